"""Events: what was emitted, and what became of it."""

from typing import Any

from aiohttp import web

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import event_types, events
from aetherflow_hooks.web.dashboard.forms import filled, json_object, moments, several, some
from aetherflow_hooks.web.dashboard.visits import Visit, page

OPTIONS = (
    *("tenant", "idempotency_key", "ordering_key", "channels", "deliver_at", "expires_at"),
    "validate",
)


@page("GET", "/events")
async def list_(visit: Visit) -> web.Response:
    """List events, the newest first."""
    given = some(visit.query, "tenant", "type", "channel", "before") | moments(
        visit.query, "since", "until"
    )
    found, wrong = await visit.look(events.list_, shapes.EventsQuery, given)
    return visit.show(
        "events.html",
        found=found,
        wrong=wrong,
        asked=visit.query,
        may_emit=visit.may(events.emit) and not visit.base,
    )


@page("GET", "/events/new", is_of_portal=False)
async def new(visit: Visit) -> web.Response:
    """Show the form of a new event, with the example of a type."""
    return await _form(visit, dict(visit.query))


@page("POST", "/events/new", is_of_portal=False)
async def emit(visit: Visit) -> web.Response:
    """Emit an event, its data byte for byte as it was typed."""
    form = visit.form
    text = form.get("data", "")
    try:
        given: dict[str, Any] = some(form, "type", "tenant", "idempotency_key", "ordering_key")
        given |= moments(form, "deliver_at", "expires_at")
        given |= {"channels": several(form.get("channels", "")), "data": json_object("data", text)}
        if form.get("validate"):
            given["validate"] = True
        body = filled(shapes.NewEventShape, given)
        raw = f'{{"data": {text if text.strip() else "{}"}}}'
        made = await visit.ask_once(events.emit, shapes.Named, body=body, raw=raw)
    except InputRefused as error:
        return await _form(visit, form, wrong=str(error))
    return visit.go(f"/events/{made.id}", did="emitted")


@page("GET", "/events/{event_id}")
async def show(visit: Visit, event_id: str) -> web.Response:
    """Show an event with its data, and what became of it at each endpoint."""
    query = filled(shapes.EventQuery, some(visit.query, "after"))
    found = await visit.ask(events.show, event_id=event_id, query=query)
    # Customers, who come by a link, change nothing of what the application has emitted.
    may_write = visit.may(events.expunge) and not visit.base
    return visit.show("event.html", event=found, may_write=may_write)


@page("GET", "/events/{event_id}/data")
async def data(visit: Visit, event_id: str) -> web.Response:
    """Hand the data of an event over as a file: no browser is to make a page of it."""
    found = await visit.ask(events.show, event_id=event_id, query=shapes.EventQuery())
    return web.Response(
        body=(found.data or "").encode(),
        content_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{event_id}.json"'},
    )


@page("POST", "/events/{event_id}/cancel", is_of_portal=False)
async def cancel(visit: Visit, event_id: str) -> web.Response:
    """Let an event go to nobody that is scheduled for later."""
    await visit.ask(events.cancel, event_id=event_id)
    return visit.go(f"/events/{event_id}", did="cancelled")


@page("POST", "/events/{event_id}/expunge", is_of_portal=False)
async def expunge(visit: Visit, event_id: str) -> web.Response:
    """Delete the data of an event."""
    await visit.ask(events.expunge, event_id=event_id)
    return visit.go(f"/events/{event_id}", did="expunged")


async def _form(visit: Visit, typed: Any, *, wrong: str | None = None) -> web.Response:
    visit.call.check(events.emit.scope)
    found = await visit.ask(event_types.list_, query=shapes.EventTypesQuery(deprecated=False))
    types = [row.type for row in found.items]
    chosen = typed.get("type") or types[0]
    example = ""
    if chosen in types:
        example = (await visit.ask(event_types.show, type=chosen)).example or ""
    return visit.show(
        "event_form.html",
        types=types,
        typed=dict.fromkeys(OPTIONS, "") | {"data": example} | dict(typed) | {"type": chosen},
        wrong=wrong,
    )


PAGES = (list_, new, emit, show, data, cancel, expunge)
