"""Event types: the catalogue that customers read, and the schemas that `emit` can be held to."""

from contextlib import suppress
from typing import Any, TypedDict

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import AlreadyThere, InputRefused, NotFound
from aetherflow_hooks.manage.audit import ChangedMeanwhile, audited
from aetherflow_hooks.rules.schemas import check_example, check_schema
from aetherflow_hooks.rules.topics import is_operational, is_type

TYPES_MAX = 1_000  # of an application's own; a list of them is one answer
DESCRIPTION_CHARACTERS_MAX = 1_000
EXAMPLE_BYTES_MAX = 65_536
CHANGE_TRIES_MAX = 10


class EventTypeChange(TypedDict, total=False):
    """What an event type is to be from now on; what is not named stays. None takes it away."""

    description: str
    schema: str | None
    example: str | None
    deprecated: bool


async def list_event_types(
    database: Database, *, deprecated: bool | None = None
) -> list[dict[str, Any]]:
    """List the catalogue by name: all of it, or what is deprecated, or what is not.

    Keys: type, description, is_built_in (AetherFlow's, not the application's own), has_schema,
    deprecated_at (None: it is not), created_at, updated_at.
    """
    return [dict(row) for row in await database.rows("list_event_types", deprecated)]


async def show_event_type(database: Database, event_type: str) -> dict[str, Any]:
    """Give a type with its `schema` and an `example` of its data, JSON texts as they were given.

    `versions` names the earlier ones that endpoints can get.

    Raises:
        NotFound: it is not in the catalogue.
    """
    rows = await database.rows("show_event_type", event_type) if is_type(event_type) else ()
    if not rows:
        raise NotFound("event type", event_type[:200])
    return dict(rows[0])


async def add_event_type(
    database: Database,
    event_type: str,
    *,
    description: str = "",
    schema: str | None = None,
    example: str | None = None,
) -> dict[str, Any]:
    """Register a type of the application's own; give it as `show_event_type` does.

    `schema` is a JSON Schema of draft 2020-12, which has to hold all that it refers to; `example`
    is a JSON object that fits it. Both are kept as they are given.

    Raises:
        InputRefused: a value breaks a rule, the type is there already, or there are too many.
    """
    if not is_type(event_type):
        raise InputRefused(f"{event_type[:200]!r} is not a type: 1 to 128 of A-Z a-z 0-9 _ . -")
    if is_operational(event_type):
        raise InputRefused(
            f"{event_type} is not for applications: operators are told by such types"
        )
    _check(description, schema, example)
    try:
        async with audited(database, "event_type.add", event_type, look=show_event_type) as bound:
            added = await bound.value(
                "add_event_type", event_type, description, schema, example, TYPES_MAX
            )
            if added is None:
                raise InputRefused(f"there are {TYPES_MAX:,} types already, which is the most")
    except AlreadyThere:
        raise InputRefused(f"{event_type} is registered already: change it") from None
    return await show_event_type(database, event_type)


async def change_event_type(
    database: Database, event_type: str, change: EventTypeChange
) -> dict[str, Any]:
    """Change a type; give it as `show_event_type` does. Events that were emitted stay as they are.

    A deprecated one is emitted and checked as before. Of AetherFlow's own nothing else can be
    changed: what they hold was promised to customers, and a release of ours says when it is more.

    Raises:
        NotFound: it is not in the catalogue.
        InputRefused: a value breaks a rule, the example does not fit the schema, or it is one of
            AetherFlow's; nothing was changed.
    """
    for _ in range(CHANGE_TRIES_MAX):
        old = await show_event_type(database, event_type)
        if old["is_built_in"] and set(change) - {"deprecated"}:
            raise InputRefused(f"{event_type} is AetherFlow's own: it can be deprecated, no more")
        description = change.get("description", old["description"])
        schema = change.get("schema", old["schema"])
        example = change.get("example", old["example"])
        _check(description, schema, example)
        is_deprecated = change.get("deprecated", old["deprecated_at"] is not None)
        with suppress(ChangedMeanwhile):
            async with audited(
                database, "event_type.change", event_type, look=show_event_type
            ) as bound:
                if not await bound.value(
                    "change_event_type",
                    event_type,
                    old["updated_at"],
                    description,
                    schema,
                    example,
                    is_deprecated,
                ):
                    raise ChangedMeanwhile
            return await show_event_type(database, event_type)
    raise InputRefused(f"{event_type} has been changed meanwhile: look at it again")


async def delete_event_type(database: Database, event_type: str) -> None:
    """Take a type of the application's own out of the catalogue.

    It can be emitted all the same, though not with its data checked.

    Raises:
        NotFound: it is not in the catalogue.
        InputRefused: it is one of AetherFlow's, or has versions.
    """
    await show_event_type(database, event_type)
    async with audited(database, "event_type.delete", event_type, look=show_event_type) as bound:
        await bound.rows("lock_event_type", event_type)  # whoever adds a version has it too
        if await bound.value("delete_event_type", event_type) is None:
            old = await show_event_type(bound, event_type)  # or somebody else has deleted it
            raise InputRefused(
                f"{event_type} is AetherFlow's own: it can be deprecated, not deleted"
                if old["is_built_in"]
                else f"{event_type} has versions, which endpoints get: delete those before it"
            )


def _check(description: str, schema: str | None, example: str | None) -> None:
    if len(description) > DESCRIPTION_CHARACTERS_MAX:
        raise InputRefused(f"the description is over {DESCRIPTION_CHARACTERS_MAX:,} characters")
    if schema is not None:
        check_schema(schema)
    if example is not None:
        if len(example.encode(errors="replace")) > EXAMPLE_BYTES_MAX:
            raise InputRefused(f"the example is over {EXAMPLE_BYTES_MAX:,} bytes")
        check_example(schema, example)
