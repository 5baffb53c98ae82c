"""Event types: the catalogue."""

from typing import Any

from aiohttp import web

from aetherflow_hooks.errors import AlreadyThere, InputRefused
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.api import event_types
from aetherflow_hooks.web.dashboard.forms import filled, some
from aetherflow_hooks.web.dashboard.visits import Visit, page

OWN = ("description", "schema", "example")


@page("GET", "/event-types")
async def list_(visit: Visit) -> web.Response:
    """List the catalogue."""
    found = await visit.ask(event_types.list_, query=shapes.EventTypesQuery())
    return visit.show("event_types.html", found=found, may_add=visit.may(event_types.add))


@page("GET", "/event-types/new", is_of_portal=False)
async def new(visit: Visit) -> web.Response:
    """Show the form of a new type."""
    return _form(visit, {})


@page("POST", "/event-types/new", is_of_portal=False)
async def add(visit: Visit) -> web.Response:
    """Register a type."""
    try:
        body = filled(shapes.NewEventTypeShape, some(visit.form, "type", *OWN))
        made = await visit.ask(event_types.add, body=body)
    except (InputRefused, AlreadyThere) as error:
        return _form(visit, visit.form, wrong=str(error))
    return visit.go(f"/event-types/{made.type}", did="added")


@page("GET", "/event-types/{type}")
async def show(visit: Visit, type: str) -> web.Response:  # noqa: A002  as in the path
    """Show a type with the schema and an example of its data."""
    found = await visit.ask(event_types.show, type=type)
    listed = await visit.ask(event_types.list_versions, type=type)
    return visit.show(
        "event_type.html",
        found=found,
        versions=listed.items,
        may_change=visit.may(event_types.change),
    )


@page("GET", "/event-types/{type}/edit", is_of_portal=False)
async def edit(visit: Visit, type: str) -> web.Response:  # noqa: A002
    """Show the form of a type that is there."""
    found = await visit.ask(event_types.show, type=type)
    typed = {"description": found.description, "schema": found.json_schema or ""}
    return _form(visit, typed | {"example": found.example or ""}, type_=type)


@page("POST", "/event-types/{type}/edit", is_of_portal=False)
async def change(visit: Visit, type: str) -> web.Response:  # noqa: A002
    """Change a type of the application's own."""
    try:
        given = {name: visit.form.get(name) or None for name in OWN}
        given["description"] = given["description"] or ""
        body = filled(shapes.EventTypeChangeShape, given)
        await visit.ask(event_types.change, type=type, body=body)
    except InputRefused as error:
        return _form(visit, visit.form, type_=type, wrong=str(error))
    return visit.go(f"/event-types/{type}", did="saved")


@page("POST", "/event-types/{type}/deprecate", is_of_portal=False)
async def deprecate(visit: Visit, type: str) -> web.Response:  # noqa: A002
    """Deprecate a type, or take that back."""
    body = shapes.EventTypeChangeShape(deprecated=visit.form.get("deprecated") == "yes")
    await visit.ask(event_types.change, type=type, body=body)
    return visit.go(f"/event-types/{type}", did="saved")


@page("POST", "/event-types/{type}/delete", is_of_portal=False)
async def delete(visit: Visit, type: str) -> web.Response:  # noqa: A002
    """Take a type of the application's own out of the catalogue."""
    await visit.ask(event_types.delete, type=type)
    return visit.go("/event-types", did="deleted")


def _form(
    visit: Visit, typed: Any, *, type_: str | None = None, wrong: str | None = None
) -> web.Response:
    visit.call.check(event_types.add.scope)
    return visit.show(
        "event_type_form.html",
        typed=dict.fromkeys(("type", *OWN), "") | dict(typed),
        type=type_,
        wrong=wrong,
    )


PAGES = (list_, new, add, show, edit, change, deprecate, delete)
