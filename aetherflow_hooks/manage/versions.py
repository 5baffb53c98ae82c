"""Versions: how the data of an event type looked before it was changed, for endpoints that want it.

A type has a row of versions in the order of their names. Each has an expression that makes it of
the next one, the last of what is emitted. So each change is described once, and what an endpoint
got before the next change it gets after it.
"""

from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound, TookTooLong
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.event_types import DESCRIPTION_CHARACTERS_MAX, show_event_type
from aetherflow_hooks.rules.topics import is_type
from aetherflow_hooks.rules.versions import (
    MAKING_MILLISECONDS,
    check_expression,
    check_version,
    too_slow,
)

VERSIONS_MAX = 50  # of a type; data goes through all of them on its way to the first


async def add_version(
    database: Database, event_type: str, version: str, expression: str, *, description: str = ""
) -> dict[str, Any]:
    """Register what makes a version of data as the next one has it; give it as it is listed.

    `expression` is SQL over one column, `data`, of the type jsonb, which gives an object; it is
    kept as Postgres writes it down. It is tried on the type's example, and what comes of that is
    given besides, as `made`. A version comes before the first one there is, or behind the last.

    Raises:
        NotFound: the type is not in the catalogue.
        InputRefused: a value breaks a rule, the type has no example, the version is there already,
            or would come between others, the expression is not pure, or does not make an object of
            the example; nothing was changed.
    """
    check_version(version)
    check_expression(expression)
    if len(description) > DESCRIPTION_CHARACTERS_MAX:
        raise InputRefused(f"the description is over {DESCRIPTION_CHARACTERS_MAX:,} characters")
    async with audited(
        database, "version.add", _named(event_type, version), look=_look(event_type, version)
    ) as bound:
        example = await _lock(bound, event_type)
        if example is None:
            raise InputRefused(f"{event_type} has no example to try an expression on: give it one")
        known = [row["version"] for row in await bound.rows("list_versions", event_type, None)]
        if version in known:
            raise InputRefused(
                f"{event_type} has a version {version} already, and none is changed: endpoints "
                "would get other bytes than before. It can be deleted"
            )
        if known and known[0] < version < known[-1]:
            raise InputRefused(
                f"{version} would come between {known[0]} and {known[-1]}, and those before it are "
                "made of the one behind them: a version comes before the first or behind the last"
            )
        if len(known) >= VERSIONS_MAX:
            raise InputRefused(f"{event_type} has {VERSIONS_MAX} versions, which is the most")
        await bound.rows("limit_statement", MAKING_MILLISECONDS)
        try:
            stored = await bound.value("read_expression", expression)
        except TookTooLong:
            raise InputRefused("the expression is refused: it takes too long to read") from None
        await bound.value("add_version", event_type, version, stored, description)
        if known:  # it is a step on the way to those before it
            await made_version(bound, event_type, example, min(*known, version))
        made = await made_version(bound, event_type, example, version)
    return {**await show_version(database, event_type, version), "made": made}


async def list_versions(database: Database, event_type: str) -> list[dict[str, Any]]:
    """List the versions of a type in their order.

    Keys: type, version, expression, description, created_at.

    Raises:
        NotFound: the type is not in the catalogue.
    """
    await show_event_type(database, event_type)
    return [dict(row) for row in await database.rows("list_versions", event_type, None)]


async def show_version(database: Database, event_type: str, version: str) -> dict[str, Any]:
    """Give a version of a type as it is listed.

    Raises:
        NotFound: there is none of this name.
    """
    is_none = not is_type(event_type) or not version.isascii() or not version.isprintable()
    rows = () if is_none else await database.rows("list_versions", event_type, version)
    if not rows:
        raise NotFound("version", _named(event_type, version)[:200])
    return dict(rows[0])


async def delete_version(database: Database, event_type: str, version: str) -> None:
    """Forget the first or the last version of a type.

    Endpoints that got it get the next one from then on, or what is emitted.

    Raises:
        NotFound: there is none of this name.
        InputRefused: there are versions before and behind it.
    """
    await show_version(database, event_type, version)
    async with audited(
        database, "version.delete", _named(event_type, version), look=_look(event_type, version)
    ) as bound:
        await _lock(bound, event_type)
        known = [row["version"] for row in await bound.rows("list_versions", event_type, None)]
        if known and known[0] < version < known[-1]:
            raise InputRefused(
                f"{version} is between {known[0]} and {known[-1]}, and those before it are made of "
                "it: delete the first or the last"
            )
        if await bound.value("delete_version", event_type, version) is None:
            raise NotFound("version", _named(event_type, version))


async def made_version(database: Database, event_type: str, data: str, version: str) -> str:
    """Give data as a version of its type has it; it stays as it is where nothing is registered.

    Raises:
        InputRefused: that cannot be; the message may tell of the data.
    """
    try:
        ((made, problem, detail),) = await database.rows_within(
            "make_version", event_type, data, version, milliseconds=MAKING_MILLISECONDS
        )
    except TookTooLong:
        raise InputRefused(too_slow(version)) from None
    if problem is not None:
        raise InputRefused(problem if detail is None else f"{problem}: {detail}")
    return str(made)


async def _lock(database: Database, event_type: str) -> str | None:
    """Let nobody else change the type until the transaction ends; give its example.

    Raises:
        NotFound: it is not in the catalogue.
    """
    rows = await database.rows("lock_event_type", event_type) if is_type(event_type) else ()
    if not rows:
        raise NotFound("event type", event_type[:200])
    example: str | None = rows[0]["example"]
    return example


def _look(event_type: str, version: str) -> Any:
    async def look(database: Database, _: str) -> dict[str, Any]:
        return await show_version(database, event_type, version)

    return look


def _named(event_type: str, version: str) -> str:
    return f"{event_type}@{version}"
