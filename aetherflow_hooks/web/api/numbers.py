"""Numbers: how endpoints are doing, and how they did."""

from aetherflow_hooks.errors import NotFound
from aetherflow_hooks.manage import numbers, status
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api.endpoints import own
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/numbers", Scope.READ)
async def show(call: Call, query: shapes.NumbersQuery) -> shapes.NumbersShape:
    """Tell how attempts went, by the minute or the hour: of an endpoint, of a tenant or of all."""
    tenant = call.tenant(query.tenant)
    if query.endpoint_id is not None:
        endpoint = await own(call, query.endpoint_id)
        if query.tenant not in (None, endpoint["tenant"]):
            raise NotFound("endpoint", query.endpoint_id)
        tenant = None
    points = await numbers.endpoint_numbers(
        call.database,
        endpoint_id=query.endpoint_id,
        tenant=tenant,
        since=query.since,
        until=query.until,
        step=query.by,
    )
    return shapes.NumbersShape(points=[shapes.PointShape(**point) for point in points])


@route("GET", "/status", Scope.READ)
async def list_(call: Call, query: shapes.StatusQuery) -> shapes.StatusPage:
    """Tell how each endpoint, or one, is doing: what waits now, and how the last hour went."""
    if query.endpoint_id is not None:
        await own(call, query.endpoint_id)
    rows = await status.endpoint_status(
        call.database,
        tenant=call.tenant(query.tenant),
        endpoint_id=query.endpoint_id,
        after=query.after,
        rows_max=query.limit,
    )
    after = rows[-1]["id"] if len(rows) == query.limit else None
    return shapes.StatusPage(items=[shapes.StatusRow(**row) for row in rows], after=after)


@route("GET", "/overview", Scope.READ)
async def overview(call: Call, query: shapes.OfTenant) -> shapes.OverviewShape:
    """Tell how all endpoints are doing together, and which of them somebody should look at."""
    found = await status.overview(call.database, tenant=call.tenant(query.tenant))
    return shapes.OverviewShape.model_validate(found)


ROUTES = (show, list_, overview)
