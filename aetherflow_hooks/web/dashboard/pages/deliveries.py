"""Deliveries and attempts: what was sent, and what came of it."""

from typing import get_args

from aiohttp import web

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.rules.states import State
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import attempts, deliveries, endpoints
from aetherflow_hooks.web.dashboard.forms import moments, some
from aetherflow_hooks.web.dashboard.visits import Visit, page

STATES = [str(state) for state in State]
VERDICTS = get_args(shapes.Verdict)


@page("GET", "/deliveries")
async def list_(visit: Visit) -> web.Response:
    """List what is undelivered, or what is dead or was delivered."""
    given = some(visit.query, "tenant", "state", "endpoint_id", "before")
    found, wrong = await visit.look(deliveries.list_, shapes.DeliveriesQuery, given)
    return visit.show("deliveries.html", found=found, wrong=wrong, asked=visit.query, states=STATES)


@page("GET", "/deliveries/{delivery_id}")
async def show(visit: Visit, delivery_id: str, wrong: str | None = None) -> web.Response:
    """Show a delivery: what is sent beside what was answered, and every attempt."""
    found = await visit.ask(deliveries.show, delivery_id=delivery_id)
    try:
        keys = (await visit.ask(endpoints.show, endpoint_id=found.endpoint_id)).public_keys
    except NotFound:  # it was deleted
        keys = []
    return visit.show(
        "delivery.html",
        wrong=wrong,
        delivery=found,
        public_keys=keys,
        may_write=visit.may(deliveries.retry),
    )


@page("POST", "/deliveries/{delivery_id}/retry")
async def retry(visit: Visit, delivery_id: str) -> web.StreamResponse:
    """Send a delivery once more."""
    try:
        await visit.ask(deliveries.retry, delivery_id=delivery_id)
    except InputRefused as error:
        return await show.handler(visit, delivery_id, str(error))
    return visit.go(f"/deliveries/{delivery_id}", did="retried")


@page("POST", "/deliveries/{delivery_id}/cancel")
async def cancel(visit: Visit, delivery_id: str) -> web.StreamResponse:
    """Give a delivery up."""
    try:
        await visit.ask(deliveries.cancel, delivery_id=delivery_id)
    except InputRefused as error:
        return await show.handler(visit, delivery_id, str(error))
    return visit.go(f"/deliveries/{delivery_id}", did="cancelled")


@page("GET", "/attempts")
async def list_attempts(visit: Visit) -> web.Response:
    """List attempts, the newest first."""
    names = ("tenant", "endpoint_id", "type", "verdict", "status", "error", "before", "after")
    given = some(visit.query, *names) | moments(visit.query, "since", "until")
    if visit.query.get("only_failed"):
        given["only_failed"] = "true"
    found, wrong = await visit.look(attempts.list_, shapes.AttemptsQuery, given)
    return visit.show(
        "attempts.html", found=found, wrong=wrong, asked=visit.query, verdicts=VERDICTS
    )


PAGES = (list_, show, retry, cancel, list_attempts)
