"""Restore: a database that was brought back from a backup holds work that may have been done since.

An engine that finds itself on such a copy sends nothing until an operator has looked at it. It is
told by the server's system identifier and timeline, which a restored backup, a recovery to a moment
and a promoted standby change.
"""

from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnfit
from aetherflow_hooks.manage.audit import audited

COUNTED_MAX = 1_000_000
BATCH_MAX = 10_000


async def is_called_restored(database: Database) -> bool:
    """Tell whether somebody has said that this database is a copy."""
    return bool(await database.value("is_called_restored"))


async def is_restored(database: Database) -> bool:
    """Tell whether this database is a copy that nobody has accepted yet.

    Where Postgres keeps to itself which server it is, as some providers have it, only what somebody
    has said counts.
    """
    if await is_called_restored(database):
        return True
    try:
        return bool(await database.value("is_restored"))
    except DatabaseUnfit as error:
        if "function pg_" not in str(error):
            raise
        return False


async def seems_held(database: Database, *, guards: bool) -> bool:
    """Tell what `is_held` would, and change nothing, as an engine's first look does."""
    if await is_called_restored(database) or not guards:
        return await is_called_restored(database)
    try:
        return bool(await database.value("seems_restored"))
    except DatabaseUnfit:
        return False


async def is_held(database: Database, *, guards: bool) -> bool:
    """Tell whether nothing may be sent: as the guard finds, or else only as somebody says."""
    return await (is_restored if guards else is_called_restored)(database)


async def what_waits(database: Database) -> dict[str, Any]:
    """Tell what an engine would send.

    Keys: is_restored; events and deliveries that wait, each counted up to a million; and
    last_event_at, where the history that is here ends (None: there is no event).
    """
    (row,) = await database.rows("what_waits", COUNTED_MAX)
    return {"is_restored": await is_restored(database), **dict(row)}


async def call_restored(database: Database) -> None:
    """Let engines hold back as on a copy, where the server itself does not show it."""
    await database.value("call_restored")


async def accept_restore(database: Database, *, cancel: bool = False) -> dict[str, int]:
    """Let engines work here; with `cancel` all that waits is given up first. Tell how much."""
    told = {"events": 0, "deliveries": 0}
    if cancel:
        for shard in range(await database.value("shards_count")):
            while True:
                (row,) = await database.rows("cancel_waiting", shard, BATCH_MAX)
                for name in told:
                    told[name] += row[name]
                if max(row["events"], row["deliveries"]) < BATCH_MAX:
                    break
    async with audited(
        database, "restore.cancel_and_accept" if cancel else "restore.accept", ""
    ) as bound:
        await bound.value("accept_restore")
    return told
