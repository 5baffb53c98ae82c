"""Rights: each role can do its own thing and nothing else, proven by trying the rest."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from aetherflow_hooks import migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.db.statements import migrations
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.errors import DatabaseUnfit, InputRefused
from aetherflow_hooks.manage import (
    deliveries,
    endpoints,
    event_types,
    numbers,
    replays,
    rights,
    secrets,
    status,
    versions,
)
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.manage.replays import NewReplay
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.sealing import write_key
from tests.conftest import World, database_of, settings_for
from tests.flow.test_sweep import add_old_day, partitions

LOGINS = {"hooks_app": "emit", "hooks_worker": "engine", "hooks_eyes": "read", "hooks_acme": ""}
KEYS = write_key("ours", bytes(32))

As = Callable[[str], Any]


@pytest_asyncio.fixture
async def as_(world: World) -> AsyncIterator[As]:
    """Connect as somebody who was granted one of the roles."""
    for login in LOGINS:
        await world.connection.execute(f"create role {login} login")
    made = await rights.make_roles(world.database)
    assert made == ["aetherflow_emit", "aetherflow_engine", "aetherflow_read"]
    for login, role in LOGINS.items():
        if role:
            await world.connection.execute(f"grant aetherflow_{role} to {login}")
    open_ones: list[Any] = []

    async def connect(login: str) -> Any:
        open_ones.append(await asyncpg.connect(dsn_of(world, login)))
        return open_ones[-1]

    yield connect
    for connection in open_ones:
        await connection.close()
    for login in LOGINS:
        await world.connection.execute(f"drop owned by {login}; drop role {login}")


def dsn_of(world: World, login: str) -> str:
    return world.dsn.replace("postgres@", f"{login}@", 1)


async def every_object(world: World) -> dict[str, list[str]]:
    """Give what there is in the schema: tables, partitions and functions with null arguments."""
    tables = await world.rows(
        "select format('aetherflow.%I', relname) as name from pg_class"
        " where relnamespace = 'aetherflow'::regnamespace and relkind in ('r', 'p')"
    )
    functions = await world.rows(
        "select p.proname, format('aetherflow.%I(%s)', p.proname, (select"
        " string_agg('null::' || t::regtype::text, ', ') from unnest(p.proargtypes) t)) as call"
        " from pg_proc p where p.pronamespace = 'aetherflow'::regnamespace"
    )
    return {
        "tables": [row["name"] for row in tables],
        "functions": [row["call"] for row in functions if row["proname"] not in OF_EMITTERS],
    }


OF_EMITTERS = {"emit", "schema_of", "watch", "unwatch", "tell_change"}
EMIT = "select min(oid::regprocedure::text) from pg_proc where proname = 'emit'"


async def refused(connection: Any, sql: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(sql)


async def test_who_may_emit_may_nothing_else(world: World, as_: As) -> None:
    app = await as_("hooks_app")
    for kind in ("text", "json", "jsonb"):
        await app.execute(f"select aetherflow.emit('a.b', '{{}}'::{kind}, idempotency_key => 'k')")
    assert await app.fetchval("select aetherflow.schema_of('user.joined')")
    objects = await every_object(world)
    assert len(objects["tables"]) > 30
    assert len(objects["functions"]) > 10
    for table in objects["tables"]:
        for sql in (
            "select from {}",
            "select count(*) from {}",
            "insert into {} default values",
            "delete from {}",
            "truncate {}",
            "drop table {}",
            "alter table {} add x int",
            "do $$ begin lock table {} in access share mode; end $$",
            "create index on {} ((1))",
        ):
            await refused(app, sql.format(table))
        column = await world.value(
            "select attname from pg_attribute where attrelid = $1::text::regclass and attnum > 0"
            " and attidentity = '' order by attnum limit 1",
            table,
        )
        await refused(app, f"update {table} set {column} = {column}")
    for call in objects["functions"]:
        await refused(app, f"select {call}")
    for sql in (
        "create table aetherflow.mine ()",
        "create function aetherflow.emit(x int) returns int language sql return 1",
        f"drop function {await world.value(EMIT)}",
        "drop schema aetherflow cascade",
        "set role aetherflow_engine",
    ):
        await refused(app, sql)


@pytest.mark.parametrize("schema_first", ["pg_temp", "mine"])
async def test_what_the_application_calls_alike_is_not_taken_for_ours(
    world: World, as_: As, schema_first: str
) -> None:
    """An emit that wrote into it would lose the event without a word."""
    app = await as_("hooks_app")
    await world.connection.execute("create schema mine authorization hooks_app")
    relations = await every_object(world)
    for table in relations["tables"]:
        name = table.removeprefix("aetherflow.")
        await app.execute(f"create temp table {name} (like pg_class)")
    for table in ("control", "outbox", "events", "engines", "shards", "pg_proc"):
        await app.execute(f"create table mine.{table} (shard int, due_at int)")
    # And operators and functions that would run with the rights of emit's owner.
    await app.execute(
        """
        create function mine.evil(text, text) returns boolean language plpgsql
        as $$ begin raise exception 'run as %', current_user; end $$;
        create operator mine.~ (leftarg = text, rightarg = text, function = mine.evil);
        create operator mine.!~ (leftarg = text, rightarg = text, function = mine.evil);
        create function mine.format(text, text) returns text language sql return mine.evil('', '');
        create function mine.octet_length(text) returns int language sql
        return length(mine.evil('', '')::text);
        create function mine.pg_notify(text, text) returns void language sql
        as 'select mine.evil($1, $2)';
        create function mine.gen_random_uuid() returns uuid language sql
        as 'select mine.evil('''', '''')::text::uuid';
        """
    )
    await app.execute(f"set search_path = {schema_first}, mine, pg_catalog")
    event_id = await app.fetchval("select aetherflow.emit('a.b', '{}'::text)")
    assert await world.value("select event_id from aetherflow.outbox") == event_id
    assert await world.value("select id from aetherflow.events") == event_id
    await app.execute("reset search_path; drop schema mine cascade; discard temp")


async def test_an_engine_needs_its_role_and_nothing_else(world: World, as_: As) -> None:
    """The whole way, and managing endpoints, without owning a table."""
    await add_old_day(world)
    settings = settings_for(
        dsn_of(world, "hooks_worker"), secrets={"keys": KEYS}, sweep={"every_seconds": 0.1}
    )
    async with Database(settings.database) as database, start_engine(settings):
        new = NewEndpoint(
            url=world.receiver.url("/", "500,200"),
            headers={"X-Team": "a"},
            retry_schedule_seconds=[0.01],
        )
        added = await add_endpoint(database, new, settings=settings)
        gone = NewEndpoint(url=world.receiver.url("/gone", "410"))
        await add_endpoint(database, gone, settings=settings)
        keyring = settings.keyring()
        await secrets.rotate_secret(database, added["id"], keyring=keyring, leads=False)
        await secrets.promote_secret(database, added["id"])
        app = await as_("hooks_app")
        await app.execute("select aetherflow.emit('a.b', '{}', idempotency_key => 'k')")
        await world.settled()
        assert await world.value("select count(*) from aetherflow.dead where reason = 'gone'") == 1
        for state in (EndpointState.PAUSED, EndpointState.ACTIVE):
            await endpoints.set_endpoint_state(database, added["id"], state)
        await status.endpoint_status(database)
        await status.overview(database)
        await numbers.endpoint_numbers(database)
        await deliveries.list_deliveries(database)
        await event_types.add_event_type(database, "c.d", schema='{"required": ["n"]}')
        await event_types.change_event_type(
            database, "c.d", {"deprecated": True, "example": '{"n": 1}'}
        )
        await versions.add_version(database, "c.d", "v", "jsonb_set(data, '{n}', '2')")
        old = NewEndpoint(url=world.receiver.url("/old"), tenant="old", payload_version="v")
        await add_endpoint(database, old, settings=settings)
        await app.execute("""select aetherflow.emit('c.d', '{"n": 1}', tenant => 'old')""")
        await world.settled()
        assert world.receiver.at("/old")[0].body.endswith(b'"data":{"n": 2}}')
        await versions.delete_version(database, "c.d", "v")
        with pytest.raises(InputRefused):
            await emit_event(database, "c.d", "{}", validate=True)
        await event_types.delete_event_type(database, "c.d")
        while "20240115" in await partitions(world, "events"):
            await asyncio.sleep(0.05)
        again = await replays.start_replay(database, NewReplay(endpoint_id=added["id"]))
        await world.until("select state = 'done' from aetherflow.replays")
        assert (await replays.show_replay(database, again["id"]))["made"] == 1
        await world.settled()
        await endpoints.delete_endpoint(database, added["id"])
    worker = await as_("hooks_worker")
    for sql in (
        "drop table aetherflow.events",
        "update aetherflow.events set data = '{}'",
        "delete from aetherflow.attempts",
        "update aetherflow.attempts set error = ''",
        "delete from aetherflow.events",
        "truncate aetherflow.deliveries",
        "select aetherflow.make_roles()",
        "select aetherflow.grant_emit('hooks_worker')",
        "create table aetherflow.mine ()",
    ):
        await refused(worker, sql)
    today = await world.value("select to_char(now() at time zone 'UTC', 'YYYYMMDD')")
    for name in (f"events_{today}", "events", "secrets", 'x"; drop table y'):
        with pytest.raises(asyncpg.InvalidParameterValueError):
            await worker.execute("select aetherflow.drop_partition($1)", name)


async def test_what_an_upgrade_adds_is_open_to_the_roles_that_there_are(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = migrations()
    async with database_of(server, "template1") as dsn:
        connection = await asyncpg.connect(dsn)
        module = sys.modules["aetherflow_hooks.db.migrate"]  # its name is that of the function too
        monkeypatch.setattr(module, "migrations", lambda: known[:11])
        await migrate(settings_for(dsn))
        await connection.execute("select aetherflow.make_roles(row_security => true)")
        monkeypatch.undo()
        await migrate(settings_for(dsn))
        assert await connection.fetchval(
            "select bool_and(has_table_privilege('aetherflow_engine', 'aetherflow.replays', it))"
            " from unnest(array['select', 'insert', 'update', 'delete']) it"
        )
        assert await connection.fetchval(
            "select relrowsecurity from pg_class where oid = 'aetherflow.events'::regclass"
        )
        await connection.close()


async def test_a_day_in_use_is_dropped_later(world: World, as_: As) -> None:
    await add_old_day(world)
    worker = await as_("hooks_worker")
    drop = "select aetherflow.drop_partition('events_20240115')"
    async with world.connection.transaction():
        await world.connection.execute("select count(*) from aetherflow.events")
        assert await worker.fetchval(drop) is False
    assert await worker.fetchval(drop) is True
    assert "20240115" not in await partitions(world, "events")


async def test_who_looks_on_sees_all_but_secrets(world: World, as_: As) -> None:
    added = await world.endpoint(headers={"X-Team": "canary"}, ed25519=True)
    await world.emit()
    eyes = await as_("hooks_eyes")
    for sql in (
        "select * from aetherflow.secrets",
        "select secret from aetherflow.secrets",
        "select value from aetherflow.headers",
        "select * from aetherflow.idempotency_keys",
        "delete from aetherflow.deliveries",
        "insert into aetherflow.engines (id, host) values ('a', 'b')",
        "select aetherflow.emit('a.b', '{}')",
        f"select aetherflow.promote_secret('{added['id']}', 0)",
    ):
        await refused(eyes, sql)
    async with Database(settings_for(dsn_of(world, "hooks_eyes")).database) as database:
        (shown,) = (await endpoints.list_endpoints(database)).rows
        assert shown == {name: value for name, value in added.items() if name != "secret"}
        await status.endpoint_status(database)
        await status.overview(database)
        await numbers.endpoint_numbers(database)
        await deliveries.list_deliveries(database)
        assert (await event_types.show_event_type(database, "user.joined"))["schema"]
        with pytest.raises(DatabaseUnfit):
            await endpoints.delete_endpoint(database, added["id"])


@pytest.mark.usefixtures("as_")
async def test_with_row_security_a_tenants_reader_sees_its_own_rows(world: World, as_: As) -> None:
    for tenant in ("acme", "other"):
        await world.endpoint(f"/{tenant}", tenant=tenant)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="there is no row security"):
        await world.connection.execute("select aetherflow.let_read('hooks_acme', 'acme')")
    acme = await as_("hooks_acme")
    await refused(acme, "select from aetherflow.events")
    assert "aetherflow_tenant" in await rights.make_roles(world.database, row_security=True)
    await world.connection.execute("select aetherflow.let_read('hooks_acme', 'acme')")
    worker = settings_for(dsn_of(world, "hooks_worker"))
    async with start_engine(worker):
        for tenant in ("acme", "other"):
            await (await as_("hooks_app")).execute(
                "select aetherflow.emit('a.b', '{}'::text, $1)", tenant
            )
        await world.settled()
    await world.emit(tenant="acme")
    await world.emit(tenant="other")
    for table in ("events", "endpoints", "subscriptions"):
        rows = await acme.fetch(f"select tenant from aetherflow.{table}")
        assert {row["tenant"] for row in rows} == {"acme"}, table
    own = await acme.fetchval("select id from aetherflow.endpoints")
    rows = await acme.fetch("select endpoint_id from aetherflow.attempts")
    assert [row["endpoint_id"] for row in rows] == [own]
    await world.connection.execute(
        "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)"
        " select shard, 0, id, 'evt_0', 'infinity' from aetherflow.endpoints"
    )
    assert [
        row[0] for row in await acme.fetch("select endpoint_id from aetherflow.deliveries")
    ] == [own]
    for sql in (
        "select * from aetherflow.secrets",
        "select * from aetherflow.tenant_roles",
        "insert into aetherflow.tenant_roles values ('hooks_acme', 'other')",
        "select from aetherflow.events_20240101",
        "delete from aetherflow.deliveries",
    ):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
            await acme.execute(sql)
    # Nor by a function that tells what it was given, where the planner might call it first.
    await acme.execute(
        "create function pg_temp.leak(text) returns boolean language plpgsql cost 0.0000001"
        " as $$ begin raise notice '%', $1; return true; end $$"
    )
    told: list[str] = []
    acme.add_log_listener(lambda _, message: told.append(str(message)))
    await acme.execute("select from aetherflow.endpoints where pg_temp.leak(tenant)")
    assert told
    assert not [message for message in told if "other" in message]
    eyes = await as_("hooks_eyes")
    assert await eyes.fetchval("select count(*) from aetherflow.endpoints") == 2
    await rights.make_roles(world.database)
    await refused(acme, "select from aetherflow.events")


async def test_who_owns_nothing_cannot_make_roles(world: World, as_: As) -> None:
    await as_("hooks_worker")
    async with Database(settings_for(dsn_of(world, "hooks_worker")).database) as database:
        with pytest.raises(DatabaseUnfit, match="lacks a right"):
            await rights.make_roles(database)
