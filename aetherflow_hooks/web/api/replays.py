"""Replays."""

from http import HTTPStatus
from typing import Any

from aetherflow_hooks.manage import replays
from aetherflow_hooks.manage.replays import NewReplay
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.problems import Problem
from aetherflow_hooks.web.routes import Call, route


async def own(call: Call, replay_id: str) -> dict[str, Any]:
    """Give a replay that is there for whoever asks.

    Raises:
        NotFound: there is none of this id, or it is not of this tenant alone.
    """
    return call.own("replay", replay_id, await replays.show_replay(call.database, replay_id))


@route("GET", "/replays", Scope.READ)
async def list_(call: Call, query: shapes.Listed) -> shapes.ReplaysPage:
    """List replays, the newest first."""
    page = await replays.list_replays(
        call.database,
        tenant=call.tenant(query.tenant),
        before=query.before,
        rows_max=query.limit,
    )
    rows = [shapes.ReplayShape(**row) for row in page.rows]
    return shapes.ReplaysPage(items=rows, before=page.before)


@route("POST", "/replays", Scope.WRITE, status=HTTPStatus.CREATED, repeats=True)
async def start(call: Call, body: shapes.NewReplayShape) -> shapes.ReplayShape:
    """Send many again: what failed, or all that an endpoint wants of some time."""
    return shapes.ReplayShape(**await replays.start_replay(call.database, _new(call, body)))


@route("POST", "/replay-counts", Scope.READ)
async def count(call: Call, body: shapes.NewReplayShape) -> shapes.CountedShape:
    """Tell how many a replay would send, and send nothing."""
    counting = call.lent.counting
    if counting.locked():
        raise Problem(
            HTTPStatus.TOO_MANY_REQUESTS,
            "something is being counted already: try again",
            headers={"Retry-After": "1"},
        )
    async with counting:
        return shapes.CountedShape(**await replays.count_replay(call.database, _new(call, body)))


@route("GET", "/replays/{replay_id}", Scope.READ)
async def show(call: Call, replay_id: str) -> shapes.ReplayShape:
    """Show a replay: what was asked for, and how many deliveries it has made."""
    return shapes.ReplayShape(**await own(call, replay_id))


@route("POST", "/replays/{replay_id}/cancel", Scope.WRITE)
async def cancel(call: Call, replay_id: str) -> None:
    """Make no more of a replay; what it has made goes out."""
    await own(call, replay_id)
    await replays.cancel_replay(call.database, replay_id)


def _new(call: Call, body: shapes.NewReplayShape) -> NewReplay:
    return NewReplay(**body.model_dump() | {"tenant": call.tenant(body.tenant)})


ROUTES = (list_, start, count, show, cancel)
