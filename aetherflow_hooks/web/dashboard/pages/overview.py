"""The first page, what is told live, and the search."""

import re
from datetime import UTC, datetime

from aiohttp import web
from yarl import URL

from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import attempts, numbers
from aetherflow_hooks.web.dashboard.charts import attempts_chart, latency_chart
from aetherflow_hooks.web.dashboard.forms import filled, some
from aetherflow_hooks.web.dashboard.visits import Visit, page
from aetherflow_hooks.web.routes import IDS, streamed

LATEST = 20  # attempts
SHOWN_AT_ONCE = 50  # attempts of a second: nobody reads more

_PLACES = {
    "endpoint_id": "/endpoints/",
    "event_id": "/events/",
    "delivery_id": "/deliveries/",
    "replay_id": "/replays/",
}


@page("GET", "/")
async def show(visit: Visit) -> web.Response:
    """Show how all is going."""
    of_tenant = some(visit.query, "tenant")
    found = await visit.ask(numbers.overview, query=filled(shapes.OfTenant, of_tenant))
    minutes = await visit.ask(numbers.show, query=filled(shapes.NumbersQuery, of_tenant))
    latest = await visit.ask(
        attempts.list_, query=filled(shapes.AttemptsQuery, {**of_tenant, "limit": LATEST})
    )
    points = [point.model_dump() for point in minutes.points]
    return visit.show(
        "overview.html",
        tenant=of_tenant.get("tenant", ""),
        overview=found,
        charts=[attempts_chart(points, "%H:%M"), latency_chart(points, "%H:%M")],
        latest=latest.items,
        now=datetime.now(UTC),
    )


@page("GET", "/live")
async def live(visit: Visit) -> web.StreamResponse:
    """Tell attempts as they are recorded, to the script of a page."""
    given = some(visit.query, "tenant", "endpoint_id")
    query = filled(shapes.StreamQuery, {**given, "limit": SHOWN_AT_ONCE})
    return await streamed(visit.request, attempts.stream.handler(visit.call, query))  # type: ignore[arg-type]


@page("GET", "/search")
async def search(visit: Visit) -> web.Response:
    """Lead to what somebody typed: a thing by its id, or attempts that have to do with it."""
    text = visit.query.get("q", "").strip()
    for kind, place in _PLACES.items():
        if re.fullmatch(IDS[kind], text):
            return visit.go(place + text)
    where = (
        {"status": text}
        if re.fullmatch(r"[1-9](?:\d\d|xx)", text)
        else {"type": text}
        if re.fullmatch(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_.-]+|\.\*)", text)
        else {"error": text}
    )
    path = str(URL("/attempts").with_query(where if text else {}))
    return visit.go(path)


PAGES = (show, live, search)
