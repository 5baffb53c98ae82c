"""The doctor finds each fault that is made, tells its cure, and finds nothing where all is well."""

import asyncio
import json
import resource
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from click.testing import CliRunner

from aetherflow_hooks import migrate
from aetherflow_hooks.cli import commands
from aetherflow_hooks.cli.doctor import _diagnose
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage import doctor
from aetherflow_hooks.manage.doctor import CHECKS, Fault
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.keys import new_key
from aetherflow_hooks.manage.restore import call_restored
from tests.conftest import World, settings_for
from tests.folders import roomy_folder
from tests.pooler import NAME, pgbouncer
from tests.web.conftest import free_port


@pytest.fixture(scope="module")
def healthy_server() -> Iterator[EmbeddedPostgres]:
    """A Postgres with the settings of a real one."""
    base = Path(tempfile.mkdtemp(prefix="aetherflow-", dir=roomy_folder()))
    base.chmod(0o711)
    server = EmbeddedPostgres(
        base, settings={"max_prepared_transactions": "2"}, initdb_args=["--no-sync"]
    )
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())
    shutil.rmtree(base, ignore_errors=True)


class Ward(World):
    """A healthy database, and what to do it harm with."""

    stack: AsyncExitStack

    async def faults(self, **sections: Any) -> list[Fault]:
        return await _diagnose(self.settings(**sections))

    async def execute(self, sql: str) -> None:
        await self.connection.execute(sql)

    async def another(self, sql: str) -> None:
        """Let somebody else leave a transaction open that has done this."""
        connection = await asyncpg.connect(self.dsn)
        self.stack.push_async_callback(connection.close)
        await connection.execute("begin")
        await connection.execute(sql)


@pytest_asyncio.fixture
async def ward(healthy_server: EmbeddedPostgres, receiver: Receiver) -> AsyncIterator[Ward]:
    name = f"ward_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(healthy_server.dsn())
    await admin.execute(f"create database {name}")
    dsn = healthy_server.dsn(name)
    settings = settings_for(dsn)
    await migrate(settings)
    connection = await asyncpg.connect(dsn)
    async with AsyncExitStack() as stack, Database(settings.database) as database:
        ward = Ward(dsn, connection, database, receiver)
        ward.stack = stack
        yield ward
    await connection.close()
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


async def test_nothing_is_found_where_all_is_well(ward: Ward) -> None:
    await ward.endpoint("/well")
    async with ward.engine():
        for _ in range(20):
            await ward.emit()
        await ward.settled()
        assert await ward.faults() == []
    assert await ward.faults() == []  # without an engine nothing waits
    assert ward.receiver.received
    assert len(ward.receiver.received) == 20


HARM: dict[str, tuple[str, str, str]] = {  # SQL, the check that finds it, words of what it says
    "a missing index": (
        "drop index aetherflow.deliveries_due",
        "indexes",
        "create index deliveries_due on aetherflow.deliveries (shard, endpoint_id, due_at);",
    ),
    "a missing primary key": (
        "alter table aetherflow.outbox drop constraint outbox_pkey",
        "indexes",
        "add primary key (shard, begun, due_at, event_id)",
    ),
    "an index that is not valid": (
        (
            "update pg_index set indisvalid = false"
            " where indexrelid = 'aetherflow.dead_died'::regclass"
        ),
        "indexes",
        "dead_died is not valid",
    ),
    "autovacuum off for a table": (
        "alter table aetherflow.outbox set (autovacuum_enabled = off)",
        "tables",
        "alter table aetherflow.outbox reset (autovacuum_enabled)",
    ),
    "an unlogged table": (
        "alter table aetherflow.dead set unlogged",
        "tables",
        "alter table aetherflow.dead set logged",
    ),
    "commits that do not wait for the disk": (
        (
            "do $$ begin execute format('alter database %I set synchronous_commit = off',"
            " current_database()); end $$"
        ),
        "postgres",
        "synchronous_commit is off",
    ),
    "triggers that do not fire": (
        (
            "do $$ begin execute format('alter database %I set session_replication_role = replica',"
            " current_database()); end $$"
        ),
        "postgres",
        "session_replication_role is replica",
    ),
    "a database that is read-only": (
        (
            "do $$ begin execute format('alter database %I set default_transaction_read_only = on',"
            " current_database()); end $$"
        ),
        "postgres",
        "default_transaction_read_only is on",
    ),
    "a trigger that is switched off": (
        (
            "create table orders (id int primary key, customer text);"
            "select aetherflow.watch('orders');"
            "alter table orders disable trigger aetherflow_watch_insert"
        ),
        "triggers",
        "alter table orders enable trigger",
    ),
    "partitions that are not made": (
        (
            "do $$ declare t text; begin for t in select relname from pg_class"
            " where relname ~ '^events_2' and relkind = 'r'"
            " and right(relname, 8) > to_char(now() at time zone 'UTC', 'YYYYMMDD')"
            " loop execute 'drop table aetherflow.' || t; end loop; end $$"
        ),
        "partitions",
        "0 more days",
    ),
    "a slot that nobody reads": (
        "select pg_create_physical_replication_slot('left_behind', true)",
        "holders",
        "pg_drop_replication_slot('left_behind')",
    ),
    "a prepared transaction": (
        "begin; create table t (id int); prepare transaction 'left_behind'",
        "holders",
        "commit prepared 'left_behind'",
    ),
    "work and no engine": (
        "select aetherflow.emit('a.b', '{}')",
        "work",
        "no engine lives, and 1",
    ),
    "a backlog that is full": (
        "update aetherflow.control set backlog_is_full = true",
        "work",
        "emit refuses",
    ),
}


@pytest.mark.parametrize("harm", HARM)
async def test_a_fault_of_the_database_is_found(
    ward: Ward, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql, check, words = HARM[harm]
    monkeypatch.setattr(doctor, "OLD_TRANSACTION_SECONDS", 0.0)
    await ward.execute(sql)
    try:
        (fault,) = await ward.faults()
    finally:
        if "left_behind" in sql:
            await ward.execute(
                "select pg_drop_replication_slot('left_behind')"
                if "slot" in sql
                else "rollback prepared 'left_behind'"
            )
    assert fault.check == check
    assert words in f"{fault.found}\n{fault.cure}"


async def test_an_old_transaction_is_found_with_who_has_it(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "OLD_TRANSACTION_SECONDS", 0.0)
    await ward.another("create table of_the_application (id int)")
    (fault,) = await ward.faults()
    assert fault.check == "holders"
    assert "idle in transaction" in fault.found
    assert "pg_terminate_backend(" in fault.cure


async def test_bloat_and_dead_rows_are_found(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DEAD_ROWS_MAX", 1_000)
    monkeypatch.setattr(doctor, "INDEX_BYTES_MAX", 1 << 20)
    await ward.execute("alter system set autovacuum_naptime = '1d'")
    await ward.execute("select pg_reload_conf()")
    await ward.execute(
        "insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)"
        " select 0, 'ep_000000000000', 'evt_' || n, 0, 1, 'gone' from generate_series(1, 30000) n"
    )
    await ward.execute("delete from aetherflow.dead")
    await ward.execute("select pg_stat_force_next_flush()")
    await ward.value("select 1")
    faults = await ward.faults()
    assert {fault.check for fault in faults} == {"tables"}
    assert "vacuum aetherflow.dead" in faults[0].cure
    await ward.execute("vacuum (index_cleanup off) aetherflow.dead")
    faults = await ward.faults()
    assert {fault.check for fault in faults} == {"indexes"}
    assert any("reindex index concurrently aetherflow.dead_pkey" in it.cure for it in faults)


async def test_a_schema_that_does_not_fit_is_found(ward: Ward) -> None:
    await ward.execute(
        "update aetherflow.migrations set number = number + 1000, is_breaking = true"
    )
    (newer,) = await ward.faults()
    await ward.execute("delete from aetherflow.migrations where number > 1001")
    await ward.execute("update aetherflow.migrations set number = 1")
    (older,) = await ward.faults()
    await ward.execute("drop schema aetherflow cascade")
    (missing,) = await ward.faults()
    assert {newer.check, older.check, missing.check} == {"schema"}
    assert "upgrade" in newer.cure
    assert older.cure == missing.cure == "aetherflow-hooks migrate"


async def test_a_role_that_lacks_a_right_is_found(ward: Ward) -> None:
    await ward.execute("select aetherflow.make_roles()")
    user = f"worker_{secrets.token_hex(4)}"
    await ward.execute(f"create role {user} login in role aetherflow_engine")
    dsn = ward.dsn.replace("postgres@", f"{user}@")
    try:
        assert await _diagnose(settings_for(dsn)) == []
        await ward.execute("revoke insert on aetherflow.attempts from aetherflow_engine")
        (fault,) = await _diagnose(settings_for(dsn))
        assert (fault.check, fault.is_serious) == ("rights", True)
        assert "may not insert: attempts" in fault.found
    finally:
        await ward.execute(f"drop role {user}")


async def test_a_clock_that_is_off_is_found(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 90)
    (fault,) = await ward.faults()
    assert (fault.check, fault.is_serious) == ("clock", True)
    assert "90." in fault.found


async def test_keys_that_are_missing_or_not_used_are_found(ward: Ward) -> None:
    sealed = {"secrets": {"keys": new_key()}}
    url = ward.receiver.url()
    await add_endpoint(ward.database, NewEndpoint(url=url), settings=ward.settings(**sealed))
    assert await ward.faults(**sealed) == []
    (missing,) = await ward.faults()
    assert (missing.check, missing.is_serious) == ("keys", True)
    await ward.execute("delete from aetherflow.secrets")
    await ward.endpoint()
    allowed = {"egress": {"allow": ["127.0.0.0/8"]}}
    in_production = ward.settings(**allowed).model_copy(update={"profile": "production"})
    told = {fault.check: fault.found for fault in await _diagnose(in_production)}
    assert told["keys"] == "1 secrets are stored as they are"


async def test_too_few_files_are_found(ward: Ward, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 4096))
    (fault,) = await ward.faults()
    assert (fault.check, "LimitNOFILE" in fault.cure) == ("files", True)


async def test_a_restored_database_is_found(ward: Ward) -> None:
    await call_restored(ward.database)
    (fault,) = await ward.faults()
    assert (fault.check, "restore accept" in fault.cure) == ("work", True)


async def test_endpoints_that_are_not_reached_or_fail_are_found(ward: Ward) -> None:
    nobody = await ward.endpoint(url=f"http://127.0.0.1:{free_port()}/")
    failing = await ward.endpoint("/failing")
    closed = await ward.endpoint("/closed")
    await ward.endpoint("/well")
    await ward.execute(
        "update aetherflow.endpoints set failing_since = now() - interval '1 day'"
        f" where id = '{failing['id']}'"
    )
    await ward.execute(
        f"update aetherflow.endpoints set url = 'http://10.1.2.3/' where id = '{closed['id']}'"
    )
    faults = await ward.faults()
    told = {fault.found.split()[0]: fault.found for fault in faults}
    assert {fault.check for fault in faults} == {"endpoints"}
    assert told.keys() == {nobody["id"], failing["id"], closed["id"]}
    assert "is not reached: no connection" in told[nobody["id"]]
    assert "10.1.2.3" in told[closed["id"]]
    assert "failing since" in told[failing["id"]]


@pytest.mark.skipif(NAME is None, reason="there is no PgBouncer on this machine")
async def test_a_pooler_that_keeps_notifications_is_found(ward: Ward) -> None:
    with pgbouncer(ward.dsn) as dsn:
        (fault,) = await _diagnose(settings_for(dsn))
        assert (fault.check, fault.is_serious) == ("pooler", False)
        assert "database.listen_dsn" in fault.cure
        assert await _diagnose(settings_for(dsn, database={"listen_dsn": ward.dsn})) == []


async def test_what_the_command_tells(ward: Ward) -> None:
    async def run(*options: str) -> Any:
        command = ["doctor", "--dsn", ward.dsn, *options]
        return await asyncio.to_thread(CliRunner().invoke, commands, command)

    nothing = f"{len(CHECKS)} checks; serious: 0, to look at: 0\n"
    well = await run()
    assert (well.exit_code, well.output) == (0, nothing)
    await ward.execute("drop index aetherflow.deliveries_due")
    sick = await run()
    assert sick.exit_code == 1
    assert "serious  indexes: deliveries_due is missing" in sick.output
    assert "cure  create index deliveries_due on" in sick.output
    (fault,) = json.loads((await run("--json")).output)
    assert fault["check"] == "indexes"


async def test_what_stands_in_the_way_of_a_check_is_a_fault_and_the_others_go_on(
    ward: Ward, tmp_path: Path
) -> None:
    await ward.execute("drop index aetherflow.deliveries_due")
    settings = {
        "database": {"listen_dsn": "postgresql://nobody@127.0.0.1:1/x"},
        "secrets": {"keys_file": str(tmp_path / "missing")},
    }
    told = {fault.check: fault.found for fault in await ward.faults(**settings)}
    assert told.keys() == {"indexes", "pooler", "keys"}
    assert "cannot be reached" in told["pooler"]
    assert "cannot be read" in told["keys"]


async def test_a_standby_is_found_and_told_as_one(own_server: EmbeddedPostgres) -> None:
    settings = settings_for(await own_server.start())
    await migrate(settings)
    await own_server.stop()
    signal = own_server.base / "data" / "standby.signal"
    signal.touch()
    shutil.chown(signal, signal.parent.stat().st_uid)
    await own_server.start()
    try:
        (fault,) = await _diagnose(settings)
    finally:
        await own_server.stop()
    assert (fault.check, fault.is_serious) == ("postgres", True)
    assert "it is a standby" in fault.found
