"""The API: a file for each kind of thing, a function for each thing that can be done with it."""

from aetherflow_hooks.web.api import (
    attempts,
    changes,
    deliveries,
    endpoints,
    event_types,
    events,
    links,
    numbers,
    poll,
    replays,
    tokens,
)

ROUTES = tuple(
    route
    for module in (
        *(endpoints, event_types, events, deliveries, attempts, poll),
        *(replays, numbers, tokens, links, changes),
    )
    for route in module.ROUTES
)
