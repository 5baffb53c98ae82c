"""The schema: explained, closed to strangers, made once, and the same under any name."""

import asyncio
import importlib
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from importlib.resources import files
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks import emit, migrate, start_engine
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database, check_schema
from aetherflow_hooks.db.statements import locks_of, migrations
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.errors import (
    DatabaseUnavailable,
    DatabaseUnfit,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
)
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.model import DeadReason, EndpointState
from aetherflow_hooks.rules.topics import DELIVERY_EXHAUSTED, ENDPOINT_DISABLED, patterns_of
from tests.conftest import settings_for, until

migrate_ = importlib.import_module("aetherflow_hooks.db.migrate")  # a function is called so too
NAMES = [name for _, name, _ in migrations()]


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def column(dsn: str, sql: str, *values: object) -> list[Any]:
    """Give the first column of a query's rows."""
    async with connected(dsn) as connection:
        return [row[0] for row in await connection.fetch(sql, *values)]


# What a migration left behind.

UNEXPLAINED = {
    "tables": """
        select relname from pg_class
        where relnamespace = 'aetherflow'::regnamespace and relkind in ('r', 'p', 'v', 'm', 'S')
          and obj_description(oid, 'pg_class') is null""",
    "columns": """
        select relname || '.' || attname from pg_class join pg_attribute on attrelid = pg_class.oid
        where relnamespace = 'aetherflow'::regnamespace and relkind in ('r', 'p', 'v', 'm')
          and not relispartition and attnum > 0 and not attisdropped
          and col_description(attrelid, attnum) is null""",
    "indexes": """
        select relname from pg_class
        where relnamespace = 'aetherflow'::regnamespace and relkind in ('i', 'I')
          and not relispartition and obj_description(oid, 'pg_class') is null""",
    "functions": """
        select oid::regprocedure::text from pg_proc
        where pronamespace = 'aetherflow'::regnamespace
          and obj_description(oid, 'pg_proc') is null""",
    "schema": """
        select nspname from pg_namespace
        where nspname = 'aetherflow' and obj_description(oid, 'pg_namespace') is null""",
}


@pytest.mark.parametrize("kind", UNEXPLAINED)
async def test_everything_in_the_schema_is_explained(dsn: str, kind: str) -> None:
    assert await column(dsn, UNEXPLAINED[kind]) == []


async def test_no_stranger_may_do_anything(dsn: str) -> None:
    functions = "select oid from pg_proc where pronamespace = 'aetherflow'::regnamespace"
    tables = "select oid from pg_class where relnamespace = 'aetherflow'::regnamespace"
    open_to_all = f"""
        select oid::regprocedure::text from ({functions}) f
        where has_function_privilege('public', oid, 'execute')
        union all
        select oid::regclass::text from ({tables} and relkind in ('r', 'p', 'v')) t
        where has_table_privilege('public', oid, 'select, insert, update, delete')
        union all
        select 'the schema' where has_schema_privilege('public', 'aetherflow', 'usage, create')"""
    assert len(await column(dsn, functions)) > 5
    assert await column(dsn, open_to_all) == []


READABLE = {
    "events": {"id", "tenant", "type", "data", "emitted_at"},
    "endpoints": {"id", "tenant", "url", "state"},
    "deliveries": {"endpoint_id", "event_id", "due_at"},
    "attempts": {
        *("endpoint_id", "event_id", "attempt", "status", "started_at", "duration_ms", "error"),
    },
}


@pytest.mark.parametrize("table", READABLE)
async def test_operators_find_the_columns_of_the_contract(dsn: str, table: str) -> None:
    found = await column(
        dsn,
        "select column_name::text from information_schema.columns"
        " where table_schema = 'aetherflow' and table_name = $1",
        table,
    )
    assert READABLE[table] <= set(found)
    assert not [name for name in found if "secret" in name or "password" in name]


CLOSED_LISTS: dict[str, Iterable[str]] = {
    "endpoints.state": EndpointState,
    "dead.reason": DeadReason,
    "attempts.verdict": ("delivered", "retry", "dead", "halted", "late"),
    "attempts.outcome": ("answered", "timed_out", "not_reached", "blocked"),
}


@pytest.mark.parametrize("where", CLOSED_LISTS)
async def test_postgres_takes_the_words_of_the_model_and_no_others(dsn: str, where: str) -> None:
    table, name = where.split(".")
    (check,) = await column(
        dsn,
        "select pg_get_constraintdef(oid) from pg_constraint"
        " where conrelid = $1::regclass and contype = 'c' and conname like '%' || $2 || '_check'",
        f"aetherflow.{table}",
        f"{table}_{name}",
    )
    assert set(re.findall(r"'(\w+)'", check)) == {str(word) for word in CLOSED_LISTS[where]}


async def test_postgres_reads_little_of_the_deliveries_to_know_them(dsn: str) -> None:
    """As much as the column with the largest sample needs: a new column needs one, too."""
    larger = """
        select attname from pg_attribute
        where attrelid = 'aetherflow.deliveries'::regclass and attnum > 0 and not attisdropped
          and attstattarget is distinct from 10"""
    assert await column(dsn, larger) == []


# Migrating.


def test_migrations_are_numbered_without_a_gap() -> None:
    found = sorted(file.name for file in (files("aetherflow_hooks.db") / "migrations").iterdir())
    assert [f"{name}.sql" for name in NAMES] == found
    for number, name in enumerate(found, 1):
        assert re.fullmatch(rf"{number:04}_[a-z][a-z0-9_]*\.sql", name)


async def test_migrating_again_does_nothing(empty_dsn: str) -> None:
    settings = settings_for(empty_dsn)
    snapshot = (
        "select relname || relfilenode || coalesce(relacl::text, '') from pg_class"
        " where relnamespace = 'aetherflow'::regnamespace order by 1"
    )
    assert await migrate(settings) == NAMES
    before = await column(empty_dsn, snapshot)
    assert await migrate(settings) == []
    assert await column(empty_dsn, snapshot) == before
    assert await column(empty_dsn, "select name from aetherflow.migrations") == NAMES


async def test_migrating_from_several_places_at_once_is_done_by_one(empty_dsn: str) -> None:
    settings = settings_for(empty_dsn)
    done = await asyncio.gather(*(migrate(settings) for _ in range(5)))
    assert sorted(done) == [[], [], [], [], NAMES]
    await check_schema(settings.database)


async def test_emit_does_not_wait_behind_a_migration_that_waits(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody reads for long what a migration changes, such as a dump."""
    monkeypatch.setattr(migrate_, "LOCK_MILLISECONDS", 100)
    monkeypatch.setattr(migrate_, "LOCK_PAUSE_SECONDS", 0.1)
    change = (9_000, "9000_more.sql", "alter table aetherflow.endpoints add column more text")
    monkeypatch.setattr(migrate_, "migrations", lambda: [*migrations(), change])
    waits = (
        "select exists (select from pg_locks where not granted and mode = 'AccessExclusiveLock')"
    )
    async with connected(dsn) as reader, connected(dsn) as application, connected(dsn) as looking:
        async with reader.transaction():
            await reader.fetch("select from aetherflow.endpoints")
            migrating = asyncio.create_task(migrate(settings_for(dsn)))

            async def it_waits() -> bool:
                return bool(await looking.fetchval(waits))

            await until(it_waits)
            for n in range(5):
                await emit(application, "a.b", {"n": n})
            assert not migrating.done()
        assert await migrating == ["9000_more.sql"]

        monkeypatch.setattr(migrate_, "LOCK_TRIES", 2)
        change = (9_001, "9001_most.sql", "alter table aetherflow.endpoints add column most text")
        monkeypatch.setattr(migrate_, "migrations", lambda: [(9_000, "", ""), change])
        async with reader.transaction():
            await reader.fetch("select from aetherflow.endpoints")
            with pytest.raises(DatabaseUnavailable, match=r"9001_most\.sql cannot be applied"):
                await migrate(settings_for(dsn))


async def test_two_schemas_of_one_database_are_migrated_at_once(empty_dsn: str) -> None:
    both = [settings_for(empty_dsn, database={"schema_name": name}) for name in ("one", "two")]
    assert await asyncio.gather(*map(migrate, both)) == [NAMES, NAMES]


BREAK = {
    "newer": (
        (
            "insert into aetherflow.migrations values (9998, '9998_breaks', default, true),"
            " (9999, '9999_later', default, false)"
        ),
        SchemaTooNew,
    ),
    "older": ("delete from aetherflow.migrations where number > 1", SchemaTooOld),
    "emptied": ("delete from aetherflow.migrations", SchemaMissing),
    "missing": ("drop schema aetherflow cascade", SchemaMissing),
}


@pytest.mark.parametrize("case", BREAK)
async def test_a_database_of_another_version_is_refused_with_what_to_do(
    dsn: str, case: str
) -> None:
    sql, error = BREAK[case]
    async with connected(dsn) as connection:
        await connection.execute(sql)
    settings = settings_for(dsn)
    do = "install a newer aetherflow-hooks" if case == "newer" else "run `aetherflow-hooks migrate`"
    with pytest.raises(error, match=do):
        await check_schema(settings.database)
    with pytest.raises(error, match=do):
        await start_engine(settings)
    if case == "newer":
        with pytest.raises(error, match=do):
            await migrate(settings)


async def test_a_database_without_utf_8_is_refused(server: EmbeddedPostgres) -> None:
    async with connected(server.dsn()) as admin:
        await admin.execute(
            "create database ascii encoding 'SQL_ASCII' template template0 locale 'C'"
        )
        try:
            with pytest.raises(DatabaseUnfit, match="SQL_ASCII"):
                await migrate(settings_for(server.dsn("ascii")))
            left = "select nspname from pg_namespace where nspname = 'aetherflow'"
            assert await column(server.dsn("ascii"), left) == []
        finally:
            await admin.execute("drop database ascii with (force)")


async def test_partitions_reach_as_far_ahead_as_the_setting_says(empty_dsn: str) -> None:
    (today,) = await column(empty_dsn, "select (now() at time zone 'UTC')::date")
    await migrate(settings_for(empty_dsn, sweep={"partitions_ahead_days": 12}))
    for table in ("events", "attempts"):
        found = await column(
            empty_dsn,
            "select right(inhrelid::regclass::text, 8)::date from pg_inherits"
            " where inhparent = $1::regclass order by 1",
            f"aetherflow.{table}",
        )
        assert found == [found[0] + timedelta(days=n) for n in range(len(found))]  # no gap
        assert found[0] <= today
        assert found[-1] >= today + timedelta(days=12)


# Other shards, other names.


async def delivered(settings: Settings, receiver: Receiver, count: int) -> None:
    """Add endpoints, emit, and see that an engine delivers all of it."""
    schema = settings.database.schema_name
    async with Database(settings.database) as database, connected(settings.database.dsn) as c:
        for n in range(count):
            await add_endpoint(
                database,
                NewEndpoint(url=receiver.url(f"/{n}")),
                settings=settings,
            )
        sent = [await emit(c, "order.paid", {"n": n}, schema=schema) for n in range(count)]
        async with start_engine(settings):
            await receiver.wait_for(count * count)

            async def nothing_waits() -> bool:
                return not await c.fetchval(f'select exists (select from "{schema}".deliveries)')

            await until(nothing_waits)
        attempts = await c.fetchval(f'select count(*) from "{schema}".attempts')
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert sorted(ids) == sorted(sent * count)
    assert attempts == count * count


@pytest.mark.parametrize("shards", [1, 4])
async def test_the_first_migration_fixes_the_number_of_shards(
    empty_dsn: str, receiver: Receiver, shards: int
) -> None:
    settings = settings_for(empty_dsn, database={"shards": shards})
    await migrate(settings)
    await migrate(settings_for(empty_dsn, database={"shards": 64}))
    assert await column(empty_dsn, "select aetherflow.shard_count()") == [shards]
    numbers = await column(empty_dsn, "select shard from aetherflow.shards order by shard")
    assert numbers == list(range(shards))
    await delivered(settings, receiver, 6)
    used = "select shard from aetherflow.events union select shard from aetherflow.endpoints"
    assert set(await column(empty_dsn, used)) <= set(numbers)


@pytest.mark.parametrize("schema", ["hooks", "select", "_2", "aetherflow_b"])
async def test_another_schema_name_is_as_good(
    empty_dsn: str, receiver: Receiver, schema: str
) -> None:
    settings = settings_for(empty_dsn, database={"schema_name": schema})
    with pytest.raises(SchemaMissing, match=f'schema "{schema}"'):
        await check_schema(settings.database)
    assert await migrate(settings) == NAMES
    assert await migrate(settings) == []
    spaces = "select nspname from pg_namespace where nspname !~ '^(pg_|information_schema|public)'"
    assert await column(empty_dsn, spaces) == [schema]
    await delivered(settings, receiver, 2)


@pytest.mark.parametrize("schema", ["hooks", "select"])
async def test_what_operators_are_told_keeps_its_name_in_another_schema(
    empty_dsn: str, schema: str
) -> None:
    settings = settings_for(empty_dsn, database={"schema_name": schema})
    await migrate(settings)
    patterns = f'select array(select "{schema}".patterns_of($1))'
    for event_type in (DELIVERY_EXHAUSTED, ENDPOINT_DISABLED):
        assert await column(empty_dsn, patterns, event_type) == [patterns_of(event_type)]


@pytest.mark.parametrize("schema", ["hooks", "select"])
async def test_an_endpoint_that_is_gone_is_recorded_in_another_schema(
    empty_dsn: str, schema: str
) -> None:
    settings = settings_for(empty_dsn, database={"schema_name": schema})
    await migrate(settings)
    async with Database(settings.database) as database, connected(empty_dsn) as c:
        added = await add_endpoint(
            database, NewEndpoint(url="https://example.com/"), settings=settings
        )
        shard = await c.fetchval(f'select "{schema}".shard_of($1)', added["id"])
        await c.execute(
            f'insert into "{schema}".deliveries'  # on lease, by the token 7
            " (shard, event_shard, attempt, endpoint_id, event_id, due_at, lease_token)"
            " values ($1, 0, 1, $2, 'evt_0', now(), 7)",
            shard,
            added["id"],
        )
        now = await c.fetchval("select now()")
        result = [added["id"], "evt_0", 7, 1, "dead", 0.0, "gone"]
        attempt = ["answered", 410, now, 5, None, None, None]
        columns = [[value] for value in (*result, *attempt)]
        types = DELIVERY_EXHAUSTED, ENDPOINT_DISABLED
        told = await database.rows("record_attempts", shard, *columns, *types)
        assert [tuple(row)[:2] for row in told] == [("disabled", added["id"])]
        emitted = f'select type from "{schema}".events'
        assert await column(empty_dsn, emitted) == [ENDPOINT_DISABLED]


@pytest.mark.parametrize(
    "schema",
    [
        "aetherflow",
        "select",
        "hooks",
    ],
)
async def test_a_role_can_be_let_emit_whatever_the_schema_is_called(
    empty_dsn: str, schema: str
) -> None:
    await migrate(settings_for(empty_dsn, database={"schema_name": schema}))
    async with connected(empty_dsn) as c:
        transaction = c.transaction()  # rolled back, since a role outlives its database
        await transaction.start()
        await c.execute("create role emits_elsewhere")
        await c.execute(f"select \"{schema}\".grant_emit('emits_elsewhere')")
        functions = "select bool_and(has_function_privilege('emits_elsewhere', oid, 'execute'))"
        of_emit = " from pg_proc where proname = 'emit' and pronamespace = $1::regnamespace"
        granted = await c.fetchval(functions + of_emit, f'"{schema}"')
        await transaction.rollback()
    assert granted


async def test_an_upgrade_to_channels_keeps_who_may_emit_and_what_waits(
    empty_dsn: str, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Postgres adds no parameter to a function, so `emit` was made again."""
    settings = settings_for(empty_dsn)
    with monkeypatch.context() as patched:
        patched.setattr(migrate_, "migrations", lambda: migrations()[:20])
        assert await migrate(settings) == NAMES[:20]
    async with connected(empty_dsn) as c:
        await c.execute("create role emits_always")
        try:
            await c.execute("select aetherflow.grant_emit('emits_always')")
            await c.execute(
                "insert into aetherflow.endpoints (id, shard, url) values ('ep_0', 0, $1)",
                receiver.url("/a"),
            )
            await c.execute(
                "insert into aetherflow.secrets values ('ep_0', now(), 'infinity', 's')"
            )
            await c.execute("insert into aetherflow.subscriptions values ('', '*', 'ep_0', now())")
            first = await c.fetchval("select aetherflow.emit('a.b', '{}')")
            assert await migrate(settings) == NAMES[20:]
            await c.execute("set role emits_always")
            second = await c.fetchval("select aetherflow.emit('a.b', '{}'::json)")
            third = await c.fetchval("select aetherflow.emit('a.b', '{}', channels => '{eu}')")
            await c.execute("reset role")
        finally:
            await c.execute("reset role; drop owned by emits_always; drop role emits_always")
    async with start_engine(settings):
        await receiver.wait_for(3)
    ids = [request.headers["webhook-id"] for request in receiver.received]
    assert sorted(ids) == sorted([first, second, third])


async def test_a_newer_schema_that_breaks_nothing_is_worked_on(
    dsn: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    """Engines of a release before can be restarted while others are upgraded."""
    async with connected(dsn) as connection:
        await connection.execute("insert into aetherflow.migrations values (9999, '9999_later')")
    settings = settings_for(dsn)
    assert await check_schema(settings.database) is True
    assert await migrate(settings) == []
    with caplog.at_level("WARNING"):
        await delivered(settings, receiver, 2)
    assert caplog.text.count("schema.newer") == 1


async def test_a_migration_can_say_that_it_breaks_older_engines(
    dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    change = (9_000, "9000_more.sql", "-- Why.\n-- breaking\ncreate table aetherflow.more ()")
    with monkeypatch.context() as newer:
        newer.setattr(migrate_, "migrations", lambda: [*migrations(), change])
        assert await migrate(settings_for(dsn)) == ["9000_more.sql"]
    with pytest.raises(SchemaTooNew):
        await check_schema(settings_for(dsn).database)


STRONG = ("ShareLock", "ShareRowExclusiveLock", "ExclusiveLock", "AccessExclusiveLock")
LOCKS = """
select c.relname::text as name, array_agg(l.mode) as modes
from pg_locks l
join pg_class c on c.oid = l.relation and c.relkind in ('r', 'p')
where l.pid = pg_backend_pid() and c.relnamespace = 'aetherflow'::regnamespace and l.mode = any ($1)
  and c.relname = any ($2) and c.relname !~ '_[0-9]{8}$'
group by 1 order by 1
"""


async def test_what_a_migration_locks_is_written_beside_it(empty_dsn: str) -> None:
    """As Postgres itself tells, of tables that were there before."""
    found = {}
    async with connected(empty_dsn) as connection:
        await connection.execute(migrate_._BOOKKEEPING)
        for _, name, text in migrations():
            there = await column(empty_dsn, "select relname::text from pg_class")
            async with connection.transaction():
                await connection.execute(text)
                rows = await connection.fetch(LOCKS, STRONG, there)
            found[name] = {row["name"]: max(row["modes"], key=STRONG.index) for row in rows}
    assert found == {name: locks_of(name) for name in found}
