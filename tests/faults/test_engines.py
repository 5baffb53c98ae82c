"""Faults: engines that die, freeze, are stopped or share; a Postgres that goes away."""

import asyncio
import collections
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks import Settings, migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.db.connections import FLOW_OPTIONS, connect_options
from aetherflow_hooks.db.statements import statements
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from tests.conftest import LONG_AGO, World, settings_for, until
from tests.contract.plans import WALKS, detours
from tests.forks import Fork

OWNED = "select count(distinct owner) = $1 from aetherflow.shards where leased_until > now()"


@contextmanager
def engine_process(dsn: str, **environment: str) -> Iterator[Fork]:
    """A real engine, `aetherflow-hooks run`, in a process of its own."""
    settings = {
        "AETHERFLOW_HOOKS_PROFILE": "development",
        "AETHERFLOW_HOOKS_PACE__DISCOVER_SECONDS": "0.2",
        "AETHERFLOW_HOOKS_ENGINE__RENEW_SECONDS": "0.2",
        "AETHERFLOW_HOOKS_LOG__LEVEL": "warning",
        **{f"AETHERFLOW_HOOKS_{name}": value for name, value in environment.items()},
    }
    with tempfile.NamedTemporaryFile() as log:
        process = Fork(
            *("run", "--dsn", dsn), environment={**os.environ, **settings}, stderr=Path(log.name)
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def counted(receiver: Receiver) -> collections.Counter[str]:
    """How often each delivery arrived."""
    return collections.Counter(
        request.headers["x-aetherflow-delivery"] for request in receiver.received
    )


async def emit_many(world: World, count: int) -> None:
    await world.value(
        "select count(aetherflow.emit('a.b', '{\"n\":' || n || '}')) from generate_series(1, $1) n",
        count,
    )


async def let_leases_end(world: World) -> None:
    """Move time on to where a dead engine is forgotten and its leases have ended."""
    await world.connection.execute("update aetherflow.engines set seen_at = '-infinity'")
    await world.connection.execute("update aetherflow.shards set leased_until = '-infinity'")
    await world.connection.execute(
        "update aetherflow.deliveries d set leased_until = now() - interval '1 second'"
        # rows that a statement is writing at this moment are left to it
        " from (select ctid from aetherflow.deliveries where lease_token <> 0"
        " for update skip locked) leased where d.ctid = leased.ctid"
    )


async def test_case_54_a_killed_engines_delivery_is_sent_again_and_once(world: World) -> None:
    await world.endpoint("/a", "hang,200")
    await world.emit()
    with engine_process(world.dsn) as process:
        await world.receiver.wait_for(1)
        process.kill()
        process.wait()
    assert await world.value("select leased_until > now() from aetherflow.deliveries")
    async with world.engine():
        # Not before the lease has ended: the dead engine's request might still be under way.
        await until(lambda: world.value("select count(*) = 2 from aetherflow.engines"))
        assert len(world.receiver.received) == 1
        await let_leases_end(world)
        await world.settled()
    first, second = world.receiver.received
    assert (first.body, first.headers["webhook-id"]) == (second.body, second.headers["webhook-id"])
    assert second.headers["x-aetherflow-attempt"] == "2"


async def test_case_55_two_engines_share_the_work_without_a_duplicate(world: World) -> None:
    for number in range(100):
        await world.endpoint(f"/{number}", events=[f"to.{number}"])
    with engine_process(world.dsn), engine_process(world.dsn):
        await world.until(OWNED, 2)
        await world.until(
            "select min(n) >= 8 from (select count(*) n from aetherflow.shards group by owner) held"
        )
        await world.value(
            "select count(aetherflow.emit('to.' || n % 100, '{}')) from generate_series(1, 10000) n"
        )
        await world.settled(60)
    times = counted(world.receiver)
    assert len(times) == 10_000
    assert set(times.values()) == {1}


async def test_a_kill_in_the_middle_loses_nothing_and_doubles_only_what_was_under_way(
    world: World,
) -> None:
    for number in range(20):
        await world.endpoint(f"/{number}", "200;wait=0.005", events=[f"to.{number}"])
    with engine_process(world.dsn, PACE__SLOTS="32") as doomed, engine_process(world.dsn):
        await world.until(OWNED, 2)
        await world.value(
            "select count(aetherflow.emit('to.' || n % 20, '{}')) from generate_series(1, 3000) n"
        )
        await world.receiver.wait_for(500)
        doomed.kill()
        doomed.wait()
        under_way = await world.value(
            "select count(*) from aetherflow.deliveries where leased_until > now()"
        )
        await let_leases_end(world)
        await world.settled(60)
    times = counted(world.receiver)
    assert len(times) == 3000
    assert max(times.values()) <= 2
    assert sum(times.values()) - 3000 <= under_way


async def test_case_56_a_frozen_engines_late_result_changes_nothing(world: World) -> None:
    await world.endpoint("/a", "200;wait=1,200")
    await world.emit()
    with engine_process(world.dsn) as frozen:
        await world.receiver.wait_for(1)
        frozen.send_signal(signal.SIGSTOP)
        await let_leases_end(world)
        async with world.engine():
            await world.settled()
            frozen.send_signal(signal.SIGCONT)
            await world.until(
                "select exists (select from aetherflow.attempts where verdict = 'late')"
            )
    rows = await world.rows("select attempt, verdict from aetherflow.attempts order by attempt")
    assert [tuple(row) for row in rows] == [(1, "late"), (2, "delivered")]


async def test_case_58_sigterm_drains_and_leaves_nothing_leased(world: World) -> None:
    for number in range(10):
        await world.endpoint(f"/{number}", "200;wait=0.05")
    await emit_many(world, 100)
    with engine_process(world.dsn, ENGINE__GRACE_SECONDS="5") as process:
        await world.receiver.wait_for(100)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        code = await asyncio.to_thread(process.wait, 15)
        took_seconds = time.monotonic() - began
        told = process.stderr.read_text()
    assert (code, told) == (0, "")
    assert took_seconds < 5
    assert await world.value("select count(*) from aetherflow.deliveries") > 0
    assert (
        await world.value(
            "select count(*) filter (where lease_token <> 0) from aetherflow.deliveries"
        )
        == 0
    )
    assert await world.value("select max(attempt) from aetherflow.deliveries") == 0
    assert await world.value("select count(*) from aetherflow.engines") == 0
    assert await world.value("select bool_and(leased_until < now()) from aetherflow.shards")
    async with world.engine():
        await world.settled()
    assert counted(world.receiver) == collections.Counter(dict.fromkeys(counted(world.receiver), 1))
    assert len(counted(world.receiver)) == 1000


async def test_what_does_not_end_in_the_grace_time_is_given_back(world: World) -> None:
    await world.endpoint("/a", "hang,200")
    await world.emit()
    began = time.monotonic()
    async with world.engine(engine={"grace_seconds": 0.2}):
        await world.receiver.wait_for(1)
    assert time.monotonic() - began < 5
    left = await world.rows("select attempt, lease_token from aetherflow.deliveries")
    assert [tuple(row) for row in left] == [(1, 0)]
    broken_off = await world.rows("select outcome, verdict, error from aetherflow.attempts")
    assert [tuple(row) for row in broken_off] == [
        ("not_reached", "retry", "broken off: the engine was stopped")
    ]
    async with world.engine():
        await world.settled()
    assert len(world.receiver.received) == 2


async def test_a_second_stop_waits_for_the_first(world: World) -> None:
    await world.endpoint("/a", "200;wait=0.3")
    await world.emit()
    engine = await start_engine(world.settings())
    await world.receiver.wait_for(1)
    first = asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    await engine.stop()
    assert await world.value("select count(*) from aetherflow.deliveries") == 0
    await first


async def test_attempts_end_for_a_delivery_that_kills_its_engine(world: World) -> None:
    """Each lease counts as an attempt, and beyond the schedule nothing more is sent."""
    await world.endpoint("/a", retry_schedule_seconds=[1, 1])
    await world.emit()
    for shard in range(16):
        await world.database.rows("fanout_events", shard, 10, 10, "{}", 0, False, LONG_AGO)
    await world.connection.execute("update aetherflow.deliveries set attempt = 3")
    async with world.engine():
        await world.until("select exists (select from aetherflow.dead)")
    dead = await world.rows("select attempts, reason from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(3, "exhausted")]
    assert world.receiver.received == []


# Makes each delivery take a moment.
SLOW = """
create function slowly() returns trigger language plpgsql as $$
begin perform pg_sleep(0.001); return new; end $$;
create trigger slowly before insert on aetherflow.deliveries
for each row execute function slowly();
"""


async def test_a_fan_out_that_is_too_large_is_tried_smaller_and_the_others_go_on(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """All deliveries take longer than a statement may, and those of one event do not."""
    for number in range(10):
        await world.endpoint(f"/{number % 3}", events=["wide"], max_in_flight=1)
    await world.endpoint("/other", events=["other"])
    await world.connection.execute(SLOW)
    await world.value("select count(aetherflow.emit('wide', '{}')) from generate_series(1, 40)")
    async with world.engine(
        database={"command_timeout_seconds": 0.15}, engine={"grace_seconds": 0}
    ):
        await world.emit("other")
        await world.receiver.wait_for(1, "/other", timeout_seconds=30)
        await world.until("select not exists (select from aetherflow.outbox)", timeout_seconds=40)
    assert "database.lost" in caplog.text


@pytest.mark.parametrize("name", sorted(WALKS))
async def test_plans_hold_when_an_empty_table_has_become_full(world: World, name: str) -> None:
    """Postgres remembers the tables as empty; the statements of the flow walk their indexes."""
    options = connect_options(world.settings().database, FLOW_OPTIONS)
    connection = await asyncpg.connect(world.dsn, **options)
    found = await detours(connection, name)  # while Postgres knows nothing of the tables
    await connection.execute("analyze")
    found |= await detours(connection, name)
    await connection.close()
    assert found == set()


async def test_case_57_postgres_restarts_under_load_and_the_engine_carries_on(
    own_server: EmbeddedPostgres, receiver: Receiver
) -> None:
    dsn = await own_server.start()
    settings = settings_for(dsn, database={"retry_seconds_max": 0.5})
    await migrate(settings)
    connection = await asyncpg.connect(dsn)
    world = World(dsn, connection, None, receiver)  # type: ignore[arg-type]
    for number in range(10):
        url = receiver.url(f"/{number}", "200;wait=0.002")
        await add(connection, url)
    try:
        async with start_engine(settings):
            await emit_many(world, 300)
            await receiver.wait_for(500)
            await connection.close()
            await own_server.stop()
            await asyncio.sleep(0.3)  # an outage that the engine notices, by its own clock
            await own_server.start()
            world.connection = connection = await asyncpg.connect(dsn)
            committed = await connection.fetchval("select count(*) from aetherflow.events")
            await emit_many(world, 10)
            await world.settled(10)  # well within a lease: nothing waits for one to end
        times = counted(receiver)
        assert committed == 300
        assert len(times) == 3100
    finally:
        await connection.close()
        await own_server.stop()


async def add(connection: Any, url: str) -> None:
    """Add an endpoint where there is no Database at hand."""
    await connection.fetch(
        statements("aetherflow")["add_endpoint"],
        f"ep_{os.urandom(6).hex()}", "", url, "", None, 1, None, None, None,
        "s" * 32, ["*"], [], [], *[None] * 6, [], "{}", [], False, None, False,
    )  # fmt: skip


async def test_connections_that_are_cut_are_replaced(world: World) -> None:
    await world.endpoint()
    async with world.engine(database={"retry_seconds_max": 0.2}):
        for number in range(1, 6):
            await world.emit()
            await world.receiver.wait_for(number)
            await world.connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and application_name = 'aetherflow-hooks'"
            )
        await world.emit()
        await world.receiver.wait_for(6)
        await world.until(
            "select count(*) = 6 from (select distinct event_id from aetherflow.attempts) x",
            timeout_seconds=40,
        )


async def test_case_59_without_notifications_polling_finds_the_event(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.endpoint()
    await world.connection.execute("create function pg_temp.x() returns int return 1")
    async with world.engine(fanout={"poll_idle_seconds": 0.3}):
        await world.until("select bool_and(asleep) from aetherflow.engines")
        await world.connection.execute("update aetherflow.engines set asleep = false")  # unasked
        await asyncio.sleep(0.5)  # until its pauses have grown to the bound
        await world.emit()
        began = time.monotonic()
        await world.receiver.wait_for(1)
        await world.settled()
    assert time.monotonic() - began < 1


async def test_a_sleeping_engine_is_woken_by_emit(world: World) -> None:
    await world.endpoint()
    async with world.engine(fanout={"poll_idle_seconds": 30}, pace={"discover_seconds": 30}):
        await world.until("select bool_and(asleep) from aetherflow.engines")
        await asyncio.sleep(0.2)  # its pauses grow past this test's patience
        for number in range(1, 4):
            began = time.monotonic()
            await world.emit()
            await world.receiver.wait_for(number)
            assert time.monotonic() - began < 0.5
            await world.until("select bool_and(asleep) from aetherflow.engines")
        await world.settled()


async def test_a_sleeping_engine_is_told_where_the_event_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To look for it first would take a sleeping machine another millisecond."""
    asked: list[str] = []
    really = Database.rows

    async def rows(self: Database, statement: str, *values: object) -> Any:
        if statement in {"find_events", "fanout_events"}:
            asked.append(statement)
        return await really(self, statement, *values)

    monkeypatch.setattr(Database, "rows", rows)
    await world.endpoint()
    async with world.engine(fanout={"poll_idle_seconds": 30}, pace={"discover_seconds": 30}):
        for number in range(1, 3):
            await world.until("select bool_and(asleep) from aetherflow.engines")
            await asyncio.sleep(0.2)  # its pauses grow past this test's patience
            asked.clear()
            await world.emit()
            await world.receiver.wait_for(number)
        await world.settled()
    assert asked[0] == "fanout_events"


async def test_an_idle_engine_asks_little(world: World) -> None:
    """A second of idleness costs a few statements, not a poll every few milliseconds."""
    asked = "select sum(xact_commit) from pg_stat_database where datname = current_database()"
    async with world.engine(pace={"discover_seconds": 5}):
        await world.until("select bool_and(asleep) from aetherflow.engines")
        await asyncio.sleep(1.5)
        await world.connection.execute("select pg_stat_clear_snapshot()")
        before = await world.value(asked)
        await asyncio.sleep(2)
        await world.connection.execute("select pg_stat_clear_snapshot()")
        asked_in_two_seconds = await world.value(asked) - before
    assert asked_in_two_seconds < 40


async def test_a_connection_asks_for_no_type_that_another_one_has_met(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver would ask the catalogue anew, which takes longer than all of an event's way."""
    asked: list[frozenset[int]] = []
    really = asyncpg.Connection._introspect_types

    async def introspect(self: Any, types: Any, *values: Any) -> Any:
        asked.append(frozenset(types))
        return await really(self, types, *values)

    monkeypatch.setattr(asyncpg.Connection, "_introspect_types", introspect)
    await world.endpoint()
    met: set[frozenset[int]] = set()
    for _ in range(2):  # the second may run a statement that the first had no need of
        met, asked[:] = set(asked), []
        async with world.engine():
            await world.emit()
            await world.settled()
    assert met.isdisjoint(asked)


async def test_case_60_only_the_databases_clock_decides(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = time.time
    monkeypatch.setattr(time, "time", lambda: really() + 600)
    await world.endpoint("/a", "500,200", retry_schedule_seconds=[0.3])
    async with world.engine():
        await world.value(
            "select aetherflow.emit('a.b', '{}', deliver_at => now() + interval '500 ms')"
        )
        emitted_at = await world.value("select emitted_at from aetherflow.events")
        await world.settled()
    rows = await world.rows("select started_at from aetherflow.attempts order by started_at")
    first, second = ((row["started_at"] - emitted_at).total_seconds() for row in rows)
    assert 0.45 <= first < 1.2
    assert 0.2 <= second - first < 0.9


def test_case_61_a_cancelled_loop_leaves_no_task_and_no_connection(dsn_in_thread: str) -> None:
    """Runs in a thread of its own, as an application's loop that ends without stopping us."""
    left: list[str] = []

    async def application() -> None:
        await start_engine(settings_for(dsn_in_thread))
        await asyncio.sleep(0.2)
        raise KeyboardInterrupt

    def run() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(application())
        loop.call_later(0.5, task.cancel)
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(wait_for(task))
        except (KeyboardInterrupt, asyncio.CancelledError):
            pass
        left.extend(str(task) for task in asyncio.all_tasks(loop) if not task.done())

    async def wait_for(task: asyncio.Task[None]) -> None:
        await task

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert left == []


def test_a_loop_that_is_cancelled_inside_of_the_engines_block_ends_soon(
    dsn_in_thread: str,
) -> None:
    """An application's task holds the engine, and every task of its loop is cancelled at once."""
    tasks: list[asyncio.Task[None]] = []

    async def application() -> None:
        async with start_engine(settings_for(dsn_in_thread)):
            await asyncio.sleep(60)

    async def main() -> None:
        tasks.append(asyncio.create_task(application()))
        await asyncio.sleep(0.5)  # and ends, whereupon its loop cancels what is left

    began = time.monotonic()
    thread = threading.Thread(target=asyncio.run, args=[main()])
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    assert time.monotonic() - began < 5


@pytest.fixture
def dsn_in_thread(dsn: str) -> str:
    """A database whose end checks that nobody is connected any more."""
    return dsn


async def test_two_engines_in_one_process_serve_two_databases(world: World, empty_dsn: str) -> None:
    other_settings = settings_for(empty_dsn, database={"schema_name": "select"})
    await world.endpoint("/a")
    async with world.engine(), start_engine(other_settings, migrate=True):
        other = await asyncpg.connect(empty_dsn)
        await other.execute('set search_path = "select"')
        url = world.receiver.url("/b")
        await add_in_schema(other_settings, url)
        await other.fetchval("select emit('b.c', '{}')")
        await world.emit("a.b")
        await world.receiver.wait_for(2)
        await world.settled()
        await until(lambda: other.fetchval("select count(*) = 1 from attempts"))
        await other.close()
    assert [r.headers["x-aetherflow-event"] for r in world.receiver.at("/a")] == ["a.b"]
    assert [r.headers["x-aetherflow-event"] for r in world.receiver.at("/b")] == ["b.c"]


async def add_in_schema(settings: Settings, url: str) -> None:
    from aetherflow_hooks.db import Database  # noqa: PLC0415
    from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint  # noqa: PLC0415

    async with Database(settings.database) as database:
        await add_endpoint(database, NewEndpoint(url=url), settings=settings)


@pytest.mark.parametrize("statement", ["fanout_events", "lease_deliveries"])
async def test_an_attempt_does_not_begin_later_than_it_does(
    world: World, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    """However long a statement waits for its connection before the lease begins."""
    rows = Database.rows_of_each

    async def late(self: Database, name: str, each: Any) -> Any:
        if name == statement:
            await asyncio.sleep(0.5)
        return await rows(self, name, each)

    monkeypatch.setattr(Database, "rows_of_each", late)
    await world.endpoint("/", "500,200", retry_schedule_seconds=[0.01])
    async with world.engine():
        await world.emit()
        await world.until("select count(*) = 2 from aetherflow.attempts")
        assert await world.value("select max(started_at) < now() from aetherflow.attempts")
