"""Deliveries."""

from typing import Any

from aetherflow_hooks.manage import deliveries
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


async def own(call: Call, delivery_id: str) -> dict[str, Any]:
    """Give a delivery that is there for whoever asks.

    Raises:
        NotFound: there is none of this id, or it is another tenant's.
    """
    return call.own(
        "delivery", delivery_id, await deliveries.show_delivery(call.database, delivery_id)
    )


@route("GET", "/deliveries", Scope.READ)
async def list_(call: Call, query: shapes.DeliveriesQuery) -> shapes.DeliveriesPage:
    """List what is undelivered, by endpoint; or, by state, what is dead or was delivered."""
    page = await deliveries.list_deliveries(
        call.database,
        state=query.state,
        endpoint_id=query.endpoint_id,
        tenant=call.tenant(query.tenant),
        before=query.before,
        rows_max=query.limit,
    )
    rows = [shapes.DeliveryRow(**row) for row in page.rows]
    return shapes.DeliveriesPage(items=rows, before=page.before)


@route("GET", "/deliveries/{delivery_id}", Scope.READ)
async def show(call: Call, delivery_id: str) -> shapes.DeliveryShape:
    """Show a delivery with what is sent, and every attempt."""
    found = await own(call, delivery_id)
    for attempt in found["history"]:
        response = attempt["response"]
        attempt["response"] = response and response.decode("utf-8", "backslashreplace")
    return shapes.DeliveryShape(**found)


@route("POST", "/deliveries/{delivery_id}/retry", Scope.WRITE)
async def retry(call: Call, delivery_id: str) -> None:
    """Send a delivery as soon as its turn comes, once more where it was delivered."""
    await own(call, delivery_id)
    await deliveries.retry_delivery(call.database, delivery_id)


@route("POST", "/deliveries/{delivery_id}/cancel", Scope.WRITE)
async def cancel(call: Call, delivery_id: str) -> None:
    """Give up a delivery that waits or has halted."""
    await own(call, delivery_id)
    await deliveries.cancel_delivery(call.database, delivery_id)


ROUTES = (list_, show, retry, cancel)
