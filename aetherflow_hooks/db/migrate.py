"""Migrate: bring a database forward, one numbered file after the other, never back."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from aetherflow_hooks.config import DatabaseSettings, Settings
from aetherflow_hooks.db.connections import connect, sorted_errors
from aetherflow_hooks.db.statements import in_schema, locks_of, migrations, statements
from aetherflow_hooks.errors import (
    DatabaseUnavailable,
    DatabaseUnfit,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
)

POSTGRES_MIN = 150_000
LOCK_MILLISECONDS = 2_000  # for which others wait at most behind a migration
LOCK_PAUSE_SECONDS = 4.0  # for those who have waited
LOCK_TRIES = 100
_SHARDS = re.compile(r"\d+ /\* shards \*/")
_BREAKING = re.compile(r"^-- breaking$", re.MULTILINE)  # in a migration: older engines cannot go on

_BOOKKEEPING = """
create schema if not exists aetherflow;
comment on schema aetherflow is 'AetherFlow Hooks: webhook delivery.';
create table if not exists aetherflow.migrations (
    number integer primary key,
    name text not null,
    applied_at timestamptz not null default now()
);
comment on table aetherflow.migrations is 'The migrations that were applied.';
comment on column aetherflow.migrations.number is 'They are applied in this order.';
comment on column aetherflow.migrations.name is 'The file''s name.';
comment on column aetherflow.migrations.applied_at is 'When.';
comment on index aetherflow.migrations_pkey is 'A migration by its number.';
"""


async def migrate(settings: Settings) -> list[str]:
    """Create or upgrade the schema; give the names of the migrations that were applied.

    Several callers may do this at once: they take turns, and the later ones find nothing to do.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached, or somebody has kept a table for minutes.
        DatabaseUnfit: it is older than 15, or does not keep text as UTF-8.
        SchemaTooNew: a newer program has migrated it, so that this one cannot work on.
    """
    database = settings.database
    async with sorted_errors():
        # A migration may take long, and so may the wait for another one.
        connection = await connect(database, command_timeout=None)
        try:
            await _check_server(connection)
            async with _turn(database):
                applied = await _migrate(connection, settings)
        finally:
            await connection.close(timeout=5)
    return applied


@asynccontextmanager
async def _turn(database: DatabaseSettings) -> AsyncIterator[None]:
    """Wait until nobody else migrates, and keep others waiting.

    By a lock of a transaction and not of a session, which a pooler would lend to somebody else.
    """
    keeper = await connect(database, command_timeout=None)
    try:
        async with keeper.transaction():
            await keeper.execute("set local idle_in_transaction_session_timeout = 0")
            place = f"aetherflow_hooks:{database.schema_name}"
            await keeper.execute(f"select pg_advisory_xact_lock(hashtextextended('{place}', 0))")
            yield
    finally:
        await keeper.close(timeout=5)


async def _migrate(connection: Any, settings: Settings) -> list[str]:
    """Apply what is missing."""
    database = settings.database
    applied = []
    found = await _last_applied(connection, database)
    if found is None:
        async with connection.transaction():
            await connection.execute(in_schema(_BOOKKEEPING, database.schema_name))
        found = 0
    for number, name, text in migrations():
        if number <= found:
            continue
        sql = _SHARDS.sub(f"{database.shards} /* shards */", text)
        await _apply(connection, database.schema_name, number, name, sql)
        applied.append(name)
    await _prepare(connection, settings)
    return applied


async def pending(settings: DatabaseSettings) -> dict[str, dict[str, str]]:
    """Name what `migrate` would apply, each with the tables that it keeps others from, and how.

    Whoever writes waits for these locks, and for an AccessExclusiveLock whoever reads too, until
    the migration has ended.
    """
    async with sorted_errors():
        connection = await connect(settings)
        try:
            found = await _last_applied(connection, settings) or 0
        finally:
            await connection.close(timeout=5)
    return {name: locks_of(name) for number, name, _ in migrations() if number > found}


async def check_schema(settings: DatabaseSettings) -> bool:
    """Make sure that the database fits this program; tell whether a newer one has migrated it.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
        SchemaMissing, SchemaTooOld, SchemaTooNew: it does not fit; each says what to do.
    """
    async with sorted_errors():
        connection = await connect(settings)
        try:
            found = await _last_applied(connection, settings)
        finally:
            await connection.close(timeout=5)
    known = migrations()[-1][0]
    if not found:
        raise SchemaMissing(settings.schema_name)
    if found < known:
        raise SchemaTooOld(found, known)
    return found > known


async def _apply(connection: Any, schema: str, number: int, name: str, sql: str) -> None:
    """Apply a migration, without making others wait for long behind a lock that it waits for.

    Whoever wants a table waits behind whoever has asked to change it, which waits for whoever reads
    it. So that ends soon, and is tried again.

    Raises:
        DatabaseUnavailable: somebody has kept a table for all the time.
    """
    noted = "insert into aetherflow.migrations (number, name) values ($1, $2)"
    marked = "update aetherflow.migrations set is_breaking = true where number = $1"
    for _ in range(LOCK_TRIES):
        with suppress(asyncpg.LockNotAvailableError):
            async with connection.transaction():
                await connection.execute(f"set local lock_timeout = '{LOCK_MILLISECONDS}ms'")
                await connection.execute(in_schema(sql, schema))
                await connection.execute(in_schema(noted, schema), number, name)
                if _BREAKING.search(sql):
                    await connection.execute(in_schema(marked, schema), number)
            return
        await asyncio.sleep(LOCK_PAUSE_SECONDS)
    raise DatabaseUnavailable(
        f"{name} cannot be applied: a transaction that is open for long holds a table of ours. "
        "End it (pg_stat_activity tells which it is), and migrate again"
    )


async def _prepare(connection: Any, settings: Settings) -> None:
    """Make the first partitions and tell emit the settings, so that it works from now on."""
    prepared = statements(settings.database.schema_name)
    async with connection.transaction():
        await connection.execute(prepared["make_partitions"], settings.sweep.partitions_ahead_days)
        await connection.execute(
            prepared["apply_settings"], settings.emit.data_max_bytes, settings.sweep.events_days
        )


async def _check_server(connection: Any) -> None:
    async with connection.transaction():
        version = int(await connection.fetchval("show server_version_num"))
        encoding = await connection.fetchval("show server_encoding")
    if version < POSTGRES_MIN:
        raise DatabaseUnfit(
            f"Postgres {version // 10_000} is too old: 15 is the oldest that serves"
        )
    if encoding != "UTF8":
        raise DatabaseUnfit(f"the database keeps text as {encoding}: webhooks need UTF8")


async def _last_applied(connection: Any, settings: DatabaseSettings) -> int | None:
    """Give the last migration's number, 0 for none yet, None where there is no table of them.

    Raises:
        SchemaTooNew: one that this program does not know is more than it can work on.
    """
    table = f'"{settings.schema_name}".migrations'
    known = migrations()[-1][0]
    async with connection.transaction():
        if await connection.fetchval("select to_regclass($1)", table) is None:
            return None
        last: int = await connection.fetchval(f"select coalesce(max(number), 0) from {table}")  # noqa: S608  checked name
        if last > known and await connection.fetchval(
            f"select bool_or(is_breaking) from {table} where number > $1",  # noqa: S608
            known,
        ):
            raise SchemaTooNew(last, known)
        return last
