"""Replays: many sent again, after one has seen how many that would be."""

from typing import Any

from aiohttp import web

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import replays
from aetherflow_hooks.web.dashboard.forms import filled, moments, some
from aetherflow_hooks.web.dashboard.visits import Visit, page

FIELDS = ("endpoint_id", "tenant", "pattern", "since", "until", "only_failed", "rate_per_second")


@page("GET", "/replays")
async def list_(visit: Visit) -> web.Response:
    """List replays, the newest first."""
    query = filled(shapes.Listed, some(visit.query, "tenant", "before"))
    found = await visit.ask(replays.list_, query=query)
    return visit.show("replays.html", found=found, may_start=visit.may(replays.start))


@page("GET", "/replays/new")
async def new(visit: Visit) -> web.Response:
    """Show the form of a replay."""
    return _form(visit, {"only_failed": "yes", **visit.query})


@page("POST", "/replays/new")
async def start(visit: Visit) -> web.Response:
    """Tell how many a replay would send; once that was seen, start it."""
    try:
        given: dict[str, Any] = some(
            visit.form, "endpoint_id", "tenant", "pattern", "rate_per_second"
        )
        given |= moments(visit.form, "since", "until")
        given["only_failed"] = bool(visit.form.get("only_failed"))
        body = filled(shapes.NewReplayShape, given)
        if visit.form.get("do") != "start":
            counted = await visit.ask(replays.count, body=body)
            return _form(visit, visit.form, counted=counted)
        made = await visit.ask_once(replays.start, shapes.ReplayShape, body=body)
    except (InputRefused, NotFound) as error:
        return _form(visit, visit.form, wrong=str(error))
    return visit.go(f"/replays/{made.id}", did="started")


@page("GET", "/replays/{replay_id}")
async def show(visit: Visit, replay_id: str) -> web.Response:
    """Show how far a replay has come."""
    found = await visit.ask(replays.show, replay_id=replay_id)
    return visit.show("replay.html", replay=found, may_cancel=visit.may(replays.cancel))


@page("POST", "/replays/{replay_id}/cancel")
async def cancel(visit: Visit, replay_id: str) -> web.Response:
    """Make no more of a replay."""
    await visit.ask(replays.cancel, replay_id=replay_id)
    return visit.go(f"/replays/{replay_id}", did="cancelled")


def _form(
    visit: Visit,
    typed: Any,
    *,
    counted: shapes.CountedShape | None = None,
    wrong: str | None = None,
) -> web.Response:
    visit.call.check(replays.start.scope)
    return visit.show(
        "replay_form.html",
        fields=FIELDS,
        typed=dict.fromkeys(FIELDS, "") | dict(typed),
        counted=counted,
        wrong=wrong,
    )


PAGES = (list_, new, start, show, cancel)
