"""Audit: what was changed, by whom, written in the same transaction as the change."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import NotFound
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX, Page
from aetherflow_hooks.rules.ranges import in_range

Look = Callable[[Database, str], Awaitable[Mapping[str, Any]]]

_LAST = 2**63 - 1
_ALWAYS_NEW = ("version", "updated_at")  # they say nothing that the others do not


class ChangedMeanwhile(Exception):
    """Somebody else was quicker; raised within `audited`, so that nothing takes effect."""


@asynccontextmanager
async def audited(
    database: Database, action: str, subject: str, *, look: Look | None = None
) -> AsyncIterator[Database]:
    """Give a database whose statements take effect together with a row that tells of them.

    `look` shows the subject as it is, without secrets, or raises NotFound; what is different
    afterwards is kept.
    """
    async with database.transaction() as bound:
        before = await _seen(bound, subject, look)
        yield bound
        after = await _seen(bound, subject, look)
        known = after or before or {}
        await bound.value(
            "add_audit",
            database.actor,
            action,
            subject,
            known.get("tenant"),
            _different(before, after),
            _different(after, before),
        )


async def list_changes(
    database: Database,
    *,
    subject: str | None = None,
    before: int | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List changes, the last first, of one thing or of all; go on behind the one `before`.

    A change: id, at, actor, action, subject, tenant, before and after (JSON objects of what is
    different, or None).

    Raises:
        InputRefused: `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    rows = await database.rows("list_audit", before or _LAST, subject, rows_max)
    told = [
        {
            **dict(row),
            **{side: row[side] and orjson.loads(row[side]) for side in ("before", "after")},
        }
        for row in rows
    ]
    return Page(told, str(rows[-1]["id"]) if len(rows) == rows_max else None)


async def _seen(database: Database, subject: str, look: Look | None) -> Mapping[str, Any] | None:
    if look is None:
        return None
    try:
        return await look(database, subject)
    except NotFound:
        return None


def _different(one: Mapping[str, Any] | None, other: Mapping[str, Any] | None) -> str | None:
    """Write what the one has, and the other does not have alike."""
    if one is None:
        return None
    kept = {
        name: value
        for name, value in one.items()
        if name not in _ALWAYS_NEW and (other is None or other.get(name) != value)
    }
    return orjson.dumps(kept, default=str).decode()
