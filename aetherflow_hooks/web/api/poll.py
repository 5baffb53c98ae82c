"""Poll: deliveries for endpoints that ask for them."""

import time
from http import HTTPStatus
from typing import Any

from aetherflow_hooks.flow.post import USER_AGENT
from aetherflow_hooks.manage import polls
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.watch.log import LogEvent, log
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api.endpoints import own
from aetherflow_hooks.web.problems import Problem
from aetherflow_hooks.web.routes import Call, route

LOOKS_MAX = 20  # of one request, where each finds only what has expired


@route("GET", "/poll", Scope.WRITE, conflicts=True)
async def poll(call: Call, query: shapes.PollQuery) -> shapes.PolledShape:
    """Give what waits for an endpoint that is polled, and acknowledge what was given before."""
    if not call.lent.is_released():
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, polls.HELD)
    endpoint = polls.polled(await own(call, query.endpoint_id))
    acknowledged = 0
    if query.cursor:
        acknowledged = await polls.acknowledge(
            call.database, endpoint, query.cursor, on_recorded=call.lent.on_recorded
        )
    polled = await _give(call, endpoint, query)
    if query.wait_seconds and not polled.items and not polled.is_more:
        polled = await _wait(call, endpoint, query)
    if polled.items or acknowledged:
        log.info(
            LogEvent.POLL_DONE,
            endpoint=endpoint["id"],
            tenant=endpoint["tenant"],
            acknowledged=acknowledged,
            given=len(polled.items),
        )
    return shapes.PolledShape(
        items=[shapes.PolledItem(**item) for item in polled.items],
        cursor=polled.cursor,
        is_more=polled.is_more,
    )


async def _give(call: Call, endpoint: dict[str, Any], query: shapes.PollQuery) -> polls.Polled:
    """Give what there is now, past what has expired, but not past very much of it."""
    for _ in range(LOOKS_MAX):
        polled = await polls.give(
            call.database,
            endpoint,
            settings=call.settings,
            user_agent=USER_AGENT,
            deliveries_max=query.limit,
            lease_seconds=query.lease_seconds,
            on_recorded=call.lent.on_recorded,
        )
        if polled.items or not polled.is_more:
            break
    return polled


async def _wait(call: Call, endpoint: dict[str, Any], query: shapes.PollQuery) -> polls.Polled:
    """Wait until there is something to give, no longer than was asked for."""
    ends_at = time.monotonic() + query.wait_seconds
    async with call.lent.waiting.place(call.access.actor, endpoint["id"]) as place:
        if place is None:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many wait: ask again later, or without `wait_seconds`",
                headers={"Retry-After": "1"},
            )
        while True:
            # Once more before the first wait: something may have come while nobody listened.
            polled = await _give(call, endpoint, query)
            left_seconds = ends_at - time.monotonic()
            if polled.items or polled.is_more or left_seconds <= 0 or place.is_over:
                return polled
            await place.wait(left_seconds)
            # Nobody would get what is given to them now.
            if place.is_over or call.is_gone() or not await call.still_in():
                return polled


ROUTES = (poll,)
