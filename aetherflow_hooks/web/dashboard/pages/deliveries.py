"""Deliveries and attempts: what was sent, and what came of it."""

from aiohttp import web

from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import attempts, deliveries
from aetherflow_hooks.web.dashboard.forms import filled, moments, some
from aetherflow_hooks.web.dashboard.visits import Visit, page

STATES = ("pending", "leased", "halted", "dead", "delivered")
VERDICTS = ("delivered", "retry", "dead", "halted", "late")


@page("GET", "/deliveries")
async def list_(visit: Visit) -> web.Response:
    """List what is undelivered, or what is dead or was delivered."""
    given = some(visit.query, "tenant", "state", "endpoint_id", "before")
    found = await visit.ask(deliveries.list_, query=filled(shapes.DeliveriesQuery, given))
    return visit.show("deliveries.html", found=found, asked=visit.query, states=STATES)


@page("GET", "/deliveries/{delivery_id}")
async def show(visit: Visit, delivery_id: str) -> web.Response:
    """Show a delivery: what is sent beside what was answered, and every attempt."""
    found = await visit.ask(deliveries.show, delivery_id=delivery_id)
    return visit.show("delivery.html", delivery=found, may_write=visit.may(deliveries.retry))


@page("POST", "/deliveries/{delivery_id}/retry")
async def retry(visit: Visit, delivery_id: str) -> web.Response:
    """Send a delivery once more."""
    await visit.ask(deliveries.retry, delivery_id=delivery_id)
    return visit.go(f"/deliveries/{delivery_id}", did="retried")


@page("POST", "/deliveries/{delivery_id}/cancel")
async def cancel(visit: Visit, delivery_id: str) -> web.Response:
    """Give a delivery up."""
    await visit.ask(deliveries.cancel, delivery_id=delivery_id)
    return visit.go(f"/deliveries/{delivery_id}", did="cancelled")


@page("GET", "/attempts")
async def list_attempts(visit: Visit) -> web.Response:
    """List attempts, the newest first."""
    names = ("tenant", "endpoint_id", "type", "verdict", "status", "error", "before", "after")
    given = some(visit.query, *names) | moments(visit.query, "since", "until")
    if visit.query.get("only_failed"):
        given["only_failed"] = "true"
    found = await visit.ask(attempts.list_, query=filled(shapes.AttemptsQuery, given))
    return visit.show("attempts.html", found=found, asked=visit.query, verdicts=VERDICTS)


PAGES = (list_, show, retry, cancel, list_attempts)
