"""Event types: the catalogue."""

from http import HTTPStatus
from typing import cast

from aetherflow_hooks.manage import event_types, versions
from aetherflow_hooks.manage.event_types import EventTypeChange
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.web import shapes
from aetherflow_hooks.web.routes import Call, route


@route("GET", "/event-types", Scope.READ)
async def list_(call: Call, query: shapes.EventTypesQuery) -> shapes.EventTypesPage:
    """List the catalogue by name."""
    rows = await event_types.list_event_types(call.database, deprecated=query.deprecated)
    return shapes.EventTypesPage(items=[shapes.EventTypeRow(**row) for row in rows])


@route("POST", "/event-types", Scope.ADMIN, status=HTTPStatus.CREATED, repeats=True)
async def add(call: Call, body: shapes.NewEventTypeShape) -> shapes.EventTypeShape:
    """Register a type of the application's own."""
    made = await event_types.add_event_type(
        call.database,
        body.type,
        description=body.description,
        schema=body.json_schema,
        example=body.example,
    )
    return shapes.EventTypeShape(**made)


@route("GET", "/event-types/{type}", Scope.READ)
async def show(call: Call, type: str) -> shapes.EventTypeShape:  # noqa: A002  as in the path
    """Show a type with the schema and an example of its data."""
    return shapes.EventTypeShape(**await event_types.show_event_type(call.database, type))


@route("PATCH", "/event-types/{type}", Scope.ADMIN)
async def change(
    call: Call,
    type: str,  # noqa: A002
    body: shapes.EventTypeChangeShape,
) -> shapes.EventTypeShape:
    """Change a type; what is not named stays. AetherFlow's own can be deprecated, no more."""
    given = body.model_dump(exclude_unset=True, by_alias=True)
    for name in ("description", "deprecated"):
        if name in given and given[name] is None:
            del given[name]
    changed = await event_types.change_event_type(
        call.database, type, cast("EventTypeChange", given)
    )
    return shapes.EventTypeShape(**changed)


@route("DELETE", "/event-types/{type}", Scope.ADMIN)
async def delete(call: Call, type: str) -> None:  # noqa: A002
    """Take a type of the application's own out of the catalogue."""
    await event_types.delete_event_type(call.database, type)


@route("GET", "/event-types/{type}/versions", Scope.READ)
async def list_versions(call: Call, type: str) -> shapes.VersionsPage:  # noqa: A002
    """List how the data of a type looked before, in the order of the versions."""
    rows = await versions.list_versions(call.database, type)
    return shapes.VersionsPage(items=[shapes.VersionShape(**row) for row in rows])


@route(
    "POST",
    "/event-types/{type}/versions",
    Scope.ADMIN,
    status=HTTPStatus.CREATED,
    repeats=True,
)
async def add_version(
    call: Call,
    type: str,  # noqa: A002
    body: shapes.NewVersionShape,
) -> shapes.AddedVersionShape:
    """Register what makes a version of data; tell what it makes of the example."""
    made = await versions.add_version(
        call.database, type, body.version, body.expression, description=body.description
    )
    return shapes.AddedVersionShape(**made)


@route("DELETE", "/event-types/{type}/versions/{version}", Scope.ADMIN)
async def delete_version(call: Call, type: str, version: str) -> None:  # noqa: A002
    """Forget the first or the last version; endpoints that got it get the next one."""
    await versions.delete_version(call.database, type, version)


ROUTES = (list_, add, show, change, delete, list_versions, add_version, delete_version)
