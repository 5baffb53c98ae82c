"""Inbox: stored once, answered at once, processed afterwards."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest
import sqlalchemy

from aetherflow_hooks import drivers
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.receive import Hooks, Inbox, Webhook
from aetherflow_hooks.receive import inbox as inbox_module
from tests.conftest import until
from tests.receive.requests import SECRET, request
from tests.receive.sources import SOURCES, Source, asyncpg_pool, psycopg_pool_sync

AT_ONCE = (0.0, 0.0)  # seconds until the second and the third try


@asynccontextmanager
async def inbox_of(source: Source, dsn: str, hooks: Hooks, **options: Any) -> AsyncIterator[Inbox]:
    async with source(dsn) as opened:
        inbox = Inbox(hooks, opened, **{"retry_seconds": AT_ONCE, **options})
        for _ in range(2):
            if inbox.is_awaited:
                await inbox.create()
            else:
                await asyncio.to_thread(inbox.create_sync)
        yield inbox


async def waiting(inbox: Inbox) -> tuple[int, int]:
    told = (
        await inbox.waiting() if inbox.is_awaited else await asyncio.to_thread(inbox.waiting_sync)
    )
    return told.waiting, told.failed


async def emptied(inbox: Inbox) -> None:
    async def is_empty() -> bool:
        return (await waiting(inbox))[0] == 0

    await until(is_empty)


@pytest.mark.parametrize("source", SOURCES)
async def test_an_event_is_stored_once_and_processed_afterwards(
    source: Source, empty_dsn: str
) -> None:
    hooks = Hooks(SECRET)
    got: list[int] = []

    if source in (SOURCES[0], SOURCES[1], SOURCES[3], SOURCES[4]):

        @hooks.on("a.b")
        async def awaited(webhook: Webhook[Any], connection: Any) -> None:
            await drivers.fetch(connection, "insert into work values ($1::text)", webhook.id)
            got.append(webhook.data["n"])
    else:

        @hooks.on("a.b")
        def handle(webhook: Webhook[Any], connection: Any) -> None:
            drivers.fetch_sync(connection, "insert into work values ($1::text)", webhook.id)
            got.append(webhook.data["n"])

    async with inbox_of(source, empty_dsn, hooks) as inbox, asyncpg_pool(empty_dsn) as pool:
        await pool.execute("create table work (id text)")
        made = [request(f"evt_{n}", f'{{"n": {n}}}') for n in range(5)]
        answers = await asyncio.gather(*(inbox.receive(*made[n % 5]) for n in range(20)))
        assert {answer.status for answer in answers} == {200}
        assert (await inbox.receive(made[0][0], {})).status == 401
        assert await waiting(inbox) == (5, 0)
        assert got == []
        async with inbox:
            await emptied(inbox)
            assert (await inbox.receive(*made[3])).status == 200
            await inbox.receive(*request("evt_9", '{"n": 9}'))
            await emptied(inbox)
        assert sorted(got) == [0, 1, 2, 3, 4, 9]
        assert await pool.fetchval("select count(distinct id) = 6 and count(*) = 6 from work")
        assert await pool.fetchval("select count(*) from aetherflow_inbox where body is null") == 6


async def test_what_is_claimed_together_begins_one_by_one_and_is_handed_back(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_module, "GATHER_SECONDS", 60.0)
    hooks = Hooks(SECRET)
    got: list[str] = []
    hooks.on("*")(lambda webhook: got.append(webhook.id))
    async with inbox_of(asyncpg_pool, empty_dsn, hooks) as inbox, asyncpg_pool(empty_dsn) as pool:
        for n in range(3):
            assert (await inbox.receive(*request(f"evt_{n}"))).status == 200
        async with inbox:
            await until(
                lambda: pool.fetchval(
                    "select count(*) = 1 from aetherflow_inbox where done_at is not null"
                )
            )
            assert await pool.fetchval(
                "select count(*) = 2 from aetherflow_inbox where tries = 1 and done_at is null"
            )
        assert got == ["evt_0"]
        rows = await pool.fetch(
            "select tries, due_at <= now() as is_due from aetherflow_inbox where done_at is null"
        )
        assert [tuple(row) for row in rows] == [(0, True)] * 2


async def test_storing_goes_on_after_its_connection_was_cut(empty_dsn: str) -> None:
    """Whoever waits for it is told, and what comes next is stored by another connection."""
    hooks = Hooks(SECRET)
    async with inbox_of(asyncpg_pool, empty_dsn, hooks) as inbox, asyncpg_pool(empty_dsn) as pool:
        async with pool.acquire() as other, other.transaction():
            await other.execute("lock table aetherflow_inbox in exclusive mode")
            cut = asyncio.create_task(inbox.receive(*request("evt_1")))
            waits = (
                "select pid from pg_stat_activity"
                " where wait_event_type = 'Lock' and datname = current_database()"
            )
            await until(lambda: pool.fetchval(waits))
            behind = asyncio.create_task(inbox.receive(*request("evt_2")))
            await asyncio.sleep(0.05)
            await pool.execute(f"select pg_terminate_backend(pid) from ({waits}) as waiting")
            assert (await cut).status == 500
        assert (await behind).status == 200
        assert (await inbox.receive(*request("evt_1"))).status == 200
        assert await waiting(inbox) == (2, 0)


WAYS = {
    "done": ("'evt_1', 1", "pkey"),
    "failed": ("'evt_1', 1, '', 0, false", "pkey"),
    "hand_back": ("'evt_1', 1", "pkey"),
    "release": ("array['k']", "key"),
    "claim": ("10, 60", "due"),
}


@pytest.mark.parametrize("name", WAYS)
async def test_a_statement_that_was_planned_for_an_empty_table_does_not_walk_a_full_one(
    empty_dsn: str, name: str
) -> None:
    """A connection keeps its plans, and the first ones are made when nothing waits yet."""
    values, index = WAYS[name]
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET)) as inbox:
        statement = inbox._table._statements[name]
        async with asyncpg_pool(empty_dsn) as pool, pool.acquire() as connection:
            await connection.execute("set plan_cache_mode = force_generic_plan")
            await connection.execute(f"prepare planned as {statement}")
            plan = await connection.fetch(f"explain execute planned ({values})")
    told = "\n".join(row[0] for row in plan)
    walked = set(re.findall(r"using aetherflow_inbox_(\w+)|Seq Scan on (aetherflow_inbox)", told))
    assert {it for pair in walked for it in pair if it} <= {index, "pkey"}, told
    assert index in told


async def test_in_a_thread_of_an_application_that_awaits_nothing(empty_dsn: str) -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []
    hooks.on("*")(lambda webhook: got.append(webhook.id))

    def serve(inbox: Inbox) -> None:
        with inbox.in_thread():
            assert inbox.receive_sync(*request("evt_1")).status == 200
            assert inbox.receive_sync(*request("evt_1")).status == 200
            while inbox.waiting_sync().waiting:
                pass

    async with inbox_of(psycopg_pool_sync, empty_dsn, hooks) as inbox:
        await asyncio.to_thread(serve, inbox)
    assert got == ["evt_1"]


async def test_what_fails_is_undone_tried_again_and_left_at_last(empty_dsn: str) -> None:
    hooks = Hooks(SECRET)
    tries: list[str] = []
    is_mended = False

    @hooks.on("a.b")
    async def fail(webhook: Webhook[Any], connection: Any) -> None:
        await connection.execute("insert into work values ($1)", webhook.id)
        tries.append(webhook.id)
        if not is_mended and not (webhook.id == "evt_once" and len(tries) > 3):
            raise ValueError("no\0pe")

    async with inbox_of(asyncpg_pool, empty_dsn, hooks) as inbox, asyncpg_pool(empty_dsn) as pool:
        await pool.execute("create table work (id text)")
        async with inbox:
            await inbox.receive(*request("evt_1"))
            await emptied(inbox)
            assert tries == ["evt_1"] * 3
            assert await waiting(inbox) == (0, 1)
            assert await pool.fetchval("select error from aetherflow_inbox") == "ValueError: nope"
            await inbox.receive(*request("evt_once"))
            await emptied(inbox)
            assert await pool.fetch("select * from work") == [("evt_once",)]
            is_mended = True
            assert await inbox.retry_failed() == 1
            await emptied(inbox)
            assert await pool.fetchval("select count(*) from work") == 2


async def test_events_of_one_key_come_one_by_one_and_in_order(empty_dsn: str) -> None:
    hooks = Hooks(SECRET)
    done: dict[str, list[int]] = {"a": [], "b": []}
    under_way: set[str] = set()
    failed: set[str] = set()

    @hooks.on("a.b")
    async def handle(webhook: Webhook[Any]) -> None:
        key, n = webhook.data["key"], webhook.data["n"]
        assert key not in under_way
        under_way.add(key)
        await asyncio.sleep(0.001)
        under_way.discard(key)
        if n % 7 == 3 and webhook.id not in failed:
            failed.add(webhook.id)
            raise ValueError("again")
        if key == "a" and n == 5:
            raise ValueError("never")
        done[key].append(n)

    async with inbox_of(asyncpg_pool, empty_dsn, hooks, key=lambda w: w.data["key"]) as inbox:
        made = [
            request(f"evt_{key}{n}", f'{{"key": "{key}", "n": {n}}}')
            for n in range(30)
            for key in ("a", "b")
        ]
        async with inbox:
            for one in made:
                await inbox.receive(*one)
                await inbox.receive(*one)
            await emptied(inbox)
            assert done["b"] == list(range(30))
            assert done["a"] == [n for n in range(30) if n != 5]
        assert await waiting(inbox) == (0, 1)


async def test_it_ends_though_an_event_comes_at_that_moment(empty_dsn: str) -> None:
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET)) as inbox:
        async with inbox, asyncio.timeout(10):

            async def is_idle() -> bool:
                return bool(inbox._woken._waiters)

            await until(is_idle)
            await inbox.receive(*request("evt_1"))
        assert inbox._running is not None
        assert inbox._running.cancelled()


async def test_processes_share_the_work(empty_dsn: str) -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []

    @hooks.on("a.b")
    async def handle(webhook: Webhook[Any]) -> None:
        await asyncio.sleep(0.002)
        got.append(webhook.id)

    async with (
        inbox_of(asyncpg_pool, empty_dsn, hooks, concurrency=3) as first,
        inbox_of(asyncpg_pool, empty_dsn, hooks, concurrency=3) as second,
    ):
        for n in range(60):
            await first.receive(*request(f"evt_{n}"))
        async with first, second:
            await emptied(first)
    assert len(got) == len(set(got)) == 60


async def test_what_died_with_its_process_is_taken_up_by_another(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(SECRET)
    began = asyncio.Event()
    dies = True
    got: list[str] = []

    @hooks.on("a.b")
    async def handle(webhook: Webhook[Any], connection: Any) -> None:
        await connection.execute("insert into work values ($1)", webhook.id)
        if dies:
            began.set()
            await asyncio.Event().wait()
        got.append(webhook.id)

    monkeypatch.setattr("aetherflow_hooks.receive.table.CLAIM_SECONDS", 0.05)
    async with inbox_of(asyncpg_pool, empty_dsn, hooks) as inbox, asyncpg_pool(empty_dsn) as pool:
        await pool.execute("create table work (id text)")
        await inbox.receive(*request("evt_1"))
        async with inbox:
            await began.wait()
            # its row is held as long as it is at work, however long that takes
            async with Inbox(hooks, inbox._table._source, retry_seconds=AT_ONCE):
                await asyncio.sleep(0.1)
                assert await pool.fetchval("select tries from aetherflow_inbox") == 1
        assert await pool.fetchval("select count(*) from work") == 0
        dies = False
        async with inbox:
            await emptied(inbox)
        assert (got, await pool.fetchval("select count(*) from work")) == (["evt_1"], 1)


async def test_an_event_that_kills_each_process_is_given_up(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.receive.table.CLAIM_SECONDS", 0.0)
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET)) as inbox:
        await inbox.receive(*request("evt_1"))
        await inbox._table._source.execute("update aetherflow_inbox set tries = 3")
        async with inbox:
            await emptied(inbox)
        assert await waiting(inbox) == (0, 1)
        error = await inbox._table._source.fetchval("select error from aetherflow_inbox")
        assert "the process died" in error


async def test_what_is_done_is_forgotten_when_it_is_old(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.receive.inbox.FORGET_SECONDS", 0.0)
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET), keep_seconds=60) as inbox:
        pool = inbox._table._source
        async with inbox:
            await inbox.receive(*request("evt_1"))
            await inbox.receive(*request("evt_2"))
            await emptied(inbox)
            await pool.execute(
                "update aetherflow_inbox set done_at = now() - interval '61 s'"
                " where event_id = 'evt_1'"
            )
            await inbox.receive(*request("evt_3"))

            async def is_forgotten() -> bool:
                found = await pool.fetch("select event_id from aetherflow_inbox order by 1")
                return [row[0] for row in found] == ["evt_2", "evt_3"]

            await until(is_forgotten)


async def test_without_postgres_it_is_answered_with_500_and_goes_on_later(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []
    hooks.on("*")(lambda webhook: got.append(webhook.id))
    monkeypatch.setattr("aetherflow_hooks.receive.inbox.POLL_SECONDS", 0.02)
    async with inbox_of(asyncpg_pool, empty_dsn, hooks) as inbox:
        await inbox._table._source.execute("alter table aetherflow_inbox rename to away")
        async with inbox:
            assert (await inbox.receive(*request("evt_1"))).status == 500
            await inbox._table._source.execute("alter table away rename to aetherflow_inbox")
            assert (await inbox.receive(*request("evt_1"))).status == 200
            await emptied(inbox)
    assert got == ["evt_1"]


async def test_what_is_broken_off_has_not_been_tried(empty_dsn: str) -> None:
    hooks = Hooks(SECRET)
    began = asyncio.Event()

    @hooks.on("a.b")
    async def wait(_webhook: Webhook[Any]) -> None:
        began.set()
        await asyncio.Event().wait()

    async with inbox_of(asyncpg_pool, empty_dsn, hooks, retry_seconds=()) as inbox:
        await inbox.receive(*request("evt_1"))
        async with inbox:
            await began.wait()
        row = await inbox._table._source.fetchrow(
            "select tries, due_at <= now() as is_due, failed_at from aetherflow_inbox"
        )
        assert tuple(row) == (0, True, None)


@pytest.mark.parametrize("problem", [SystemExit(1), asyncio.CancelledError()])
async def test_a_function_cannot_end_the_inbox(empty_dsn: str, problem: BaseException) -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []

    @hooks.on("a.b")
    async def leave(webhook: Webhook[Any]) -> None:
        if webhook.id == "evt_1":
            raise problem
        got.append(webhook.id)

    async with inbox_of(asyncpg_pool, empty_dsn, hooks, retry_seconds=()) as inbox, inbox:
        await inbox.receive(*request("evt_1"))
        await emptied(inbox)
        await inbox.receive(*request("evt_2"))
        await emptied(inbox)
        assert (got, await waiting(inbox)) == (["evt_2"], (0, 1))


async def test_an_event_that_cannot_be_stored_takes_no_other_along(empty_dsn: str) -> None:
    keys: dict[str, Any] = {"evt_1": "k", "evt_2": 7, "evt_3": "\udcff", "evt_4": "\0"}
    hooks = Hooks(SECRET)
    async with inbox_of(asyncpg_pool, empty_dsn, hooks, key=lambda w: keys.get(w.id)) as inbox:
        made = [request(f"evt_{n}") for n in range(6)]
        answers = await asyncio.gather(*(inbox.receive(*one) for one in made))
        assert [answer.status for answer in answers] == [200, 200, 500, 500, 500, 200]


async def test_it_goes_on_though_it_may_not_forget(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.receive.inbox.FORGET_SECONDS", 0.0)
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET), retry_seconds=()) as inbox:
        await inbox._table._source.execute("""
            create function no() returns trigger language plpgsql as $$ begin raise 'no'; end $$;
            create trigger no before delete on aetherflow_inbox execute function no();
        """)
        async with inbox:
            await inbox.receive(*request("evt_1"))
            await emptied(inbox)
        assert await waiting(inbox) == (0, 0)


async def test_what_failed_meanwhile_is_not_left_behind_by_a_retry(empty_dsn: str) -> None:
    async with inbox_of(asyncpg_pool, empty_dsn, Hooks(SECRET), key=lambda w: w.id) as inbox:
        for n in range(3):
            await inbox.receive(*request(f"evt_{n}"))
        pool = inbox._table._source
        await pool.execute("update aetherflow_inbox set failed_at = now(), due_at = now()")
        retried: Any = inbox._table.retry(await inbox._table.ask(inbox._table.now()))
        keys = retried.send(None)  # which keys have failed
        assert "distinct key" in keys[0]
        retried.send([("evt_0",)])
        async with pool.acquire() as connection:
            statement, *values = retried.send([])
            assert [row[0] for row in await connection.fetch(statement, *values)] == ["evt_0"]
        assert await inbox.retry_failed() == 2


async def test_transactions_that_do_not_see_what_comes_are_refused(empty_dsn: str) -> None:
    engine = sqlalchemy.create_engine(
        empty_dsn.replace("postgresql:", "postgresql+psycopg:", 1), isolation_level="SERIALIZABLE"
    )
    inbox = Inbox(Hooks(SECRET), engine)  # whose transactions are made to fit
    await asyncio.to_thread(inbox.create_sync)
    async with inbox:
        pass
    engine.dispose()
    options = {"default_transaction_isolation": "repeatable read"}
    async with asyncpg.create_pool(empty_dsn, min_size=1, server_settings=options) as pool:
        with pytest.raises(InputRefused, match="READ COMMITTED"):
            async with Inbox(Hooks(SECRET), pool):
                pass


async def test_several_processes_make_the_table_together(empty_dsn: str) -> None:
    async with asyncpg_pool(empty_dsn) as pool:
        await asyncio.gather(*(Inbox(Hooks(SECRET), pool).create() for _ in range(8)))
