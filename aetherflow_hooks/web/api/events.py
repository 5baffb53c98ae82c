"""Events."""

from http import HTTPStatus
from typing import Any

from aetherflow_hooks.manage import events
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, elements, members, route


async def own(call: Call, event_id: str, after: str | None = None) -> dict[str, Any]:
    """Give an event that is there for whoever asks.

    Raises:
        NotFound: there is none of this id, or it is another tenant's.
    """
    return call.own(
        "event", event_id, await events.show_event(call.database, event_id, after=after)
    )


@route("GET", "/events", Scope.READ)
async def list_(call: Call, query: shapes.EventsQuery) -> shapes.EventsPage:
    """List events, the newest first."""
    as_of = await call.database.value("clock")
    page = await events.list_events(
        call.database,
        before=query.before,
        since=query.since,
        until=query.until,
        tenant=call.tenant(query.tenant),
        pattern=query.type,
        channel=query.channel,
        rows_max=query.limit,
    )
    return shapes.EventsPage(
        items=[shapes.EventRow(**row) for row in page.rows], before=page.before, as_of=as_of
    )


@route("POST", "/events", Scope.WRITE, status=HTTPStatus.CREATED)
async def emit(call: Call, body: shapes.NewEventShape) -> shapes.Named:
    """Emit an event, its data byte for byte; a used `idempotency_key` gives back the first id."""
    return shapes.Named(id=await _emit(call, body, call.raw.decode()))


@route("POST", "/event-batches", Scope.WRITE, status=HTTPStatus.CREATED)
async def emit_batch(call: Call, body: shapes.BatchShape) -> shapes.EmittedShape:
    """Emit several events, all or none."""
    written = elements(members(call.raw.decode())["events"])
    async with call.database.transaction() as bound:
        within = call.on(bound)
        ids = [""] * len(written)
        # All claim their keys in one order, or two batches might wait for each other.
        for place in sorted(range(len(ids)), key=lambda it: body.events[it].idempotency_key or ""):
            ids[place] = await _emit(within, body.events[place], written[place])
    return shapes.EmittedShape(ids=ids)


@route("GET", "/events/{event_id}", Scope.READ)
async def show(call: Call, event_id: str, query: shapes.EventQuery) -> shapes.EventShape:
    """Show an event with its data, and what became of it at each endpoint."""
    return shapes.EventShape(**await own(call, event_id, query.after))


@route("POST", "/events/{event_id}/cancel", Scope.WRITE)
async def cancel(call: Call, event_id: str) -> None:
    """Let an event go to nobody that is scheduled for later."""
    await own(call, event_id)
    await events.cancel_event(call.database, event_id)


@route("DELETE", "/events/{event_id}/data", Scope.WRITE)
async def expunge(call: Call, event_id: str) -> None:
    """Delete the data of an event and the answers to it, for good; that it happened stays."""
    await own(call, event_id)
    await events.expunge_event(call.database, event_id)


async def _emit(call: Call, event: shapes.NewEventShape, text: str) -> str:
    given = event.model_dump(exclude={"type", "data", "tenant"}, by_alias=True)
    tenant = call.tenant(event.tenant if "tenant" in event.model_fields_set else None)
    return await events.emit_event(
        call.database,
        event.type,
        members(text)["data"],
        tenant=tenant or "",
        traceparent=call.traceparent,
        **given,
    )


ROUTES = (list_, emit, emit_batch, show, cancel, expunge)
