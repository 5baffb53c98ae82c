"""The pages: a file for each kind of thing."""

from aetherflow_hooks.web.dashboard.pages import (
    access,
    deliveries,
    endpoints,
    event_types,
    events,
    overview,
    replays,
)

PAGES = tuple(
    page
    for module in (overview, endpoints, events, deliveries, replays, event_types, access)
    for page in module.PAGES
)
