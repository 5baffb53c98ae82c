"""Seen before: an event is processed once, whichever database knows of it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import fakeredis
import psycopg_pool
import pytest
import sqlalchemy
from sqlalchemy.orm import sessionmaker

from aetherflow_hooks import drivers
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.receive import SeenInMemory, SeenInPostgres, SeenInRedis
from aetherflow_hooks.receive.seen import Seen, SeenBefore
from tests.receive.sources import SOURCES, Source, asyncpg_pool


async def take(seen: SeenBefore, event_id: str, *, fails: bool = False) -> Seen:
    """Take an event's turn, in the way of its store, and end it well or not."""
    try:
        if seen.is_awaited is False:
            return await asyncio.to_thread(_take_sync, seen, event_id, fails)
        async with seen.once(event_id) as turn:
            if fails:
                raise ValueError  # noqa: TRY301  the turn is to see it
            return turn.seen
    except ValueError:
        return Seen.NEW


def _take_sync(seen: SeenBefore, event_id: str, fails: bool) -> Seen:
    with seen.once_sync(event_id) as turn:
        if fails:
            raise ValueError
        return turn.seen


async def in_turn(seen: SeenBefore) -> None:
    """What holds for every store."""
    assert await take(seen, "evt_1", fails=True) is Seen.NEW
    assert await take(seen, "evt_1") is Seen.NEW
    assert await take(seen, "evt_1") is Seen.DONE
    assert await take(seen, "evt_2") is Seen.NEW
    if seen.is_awaited is False:
        with seen.once_sync("evt_3") as turn:
            assert turn.is_new
            assert await take(seen, "evt_3") is Seen.BUSY
    else:
        async with seen.once("evt_3") as turn:
            assert turn.is_new
            assert await take(seen, "evt_3") is Seen.BUSY
    assert await take(seen, "evt_3") is Seen.DONE


async def test_in_memory() -> None:
    await in_turn(SeenInMemory())


@asynccontextmanager
async def made(source: Source, dsn: str, **options: Any) -> AsyncIterator[SeenInPostgres]:
    async with source(dsn) as opened:
        seen = SeenInPostgres(opened, **options)
        for _ in range(2):  # a second time changes nothing
            if seen.is_awaited:
                await seen.create()
            else:
                await asyncio.to_thread(seen.create_sync)
        yield seen


@pytest.mark.parametrize("source", SOURCES)
async def test_in_postgres(source: Source, empty_dsn: str) -> None:
    async with made(source, empty_dsn) as seen:
        await in_turn(seen)


async def test_the_work_and_its_mark_are_one_transaction(empty_dsn: str) -> None:
    async with made(asyncpg_pool, empty_dsn) as seen:
        await seen._source.execute("create table work (id text)")
        for fails in (True, False, False):
            try:
                async with seen.once("evt_1") as turn:
                    if turn.is_new:
                        await turn.connection.execute("insert into work values ('evt_1')")
                    if fails:
                        raise ValueError  # noqa: TRY301  the turn is to see it
            except ValueError:
                pass
        assert await seen._source.fetchval("select count(*) from work") == 1


async def spoil(connection: Any) -> None:
    """Work as somebody does who takes no notice of errors."""
    with contextlib.suppress(Exception):
        if drivers._kind_of(connection).is_awaited:
            await drivers.fetch(connection, "select 1 / 0")
        else:
            drivers.fetch_sync(connection, "select 1 / 0")


@pytest.mark.parametrize("source", SOURCES)
async def test_work_that_cannot_be_committed_is_not_marked(source: Source, empty_dsn: str) -> None:
    async with made(source, empty_dsn) as seen:

        async def work() -> None:
            if seen.is_awaited:
                async with seen.once("evt_1") as turn:
                    await spoil(turn.connection)
            else:
                with seen.once_sync("evt_1") as turn:
                    await spoil(turn.connection)

        with pytest.raises(Exception, match=r"transaction|rolled back|current"):
            await work()
        assert await take(seen, "evt_1") is Seen.NEW


async def test_a_source_that_commits_each_statement_is_made_to_wait(empty_dsn: str) -> None:
    commits = {"autocommit": True}
    url = empty_dsn.replace("postgresql:", "postgresql+psycopg:", 1)
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with psycopg_pool.ConnectionPool(empty_dsn, min_size=1, kwargs=commits) as pool:
        for opened in (pool, engine, sessionmaker(engine)):
            seen = SeenInPostgres(opened, table="seen_" + type(opened).__name__.lower())
            seen.create_sync()
            assert await take(seen, "evt_1", fails=True) is Seen.NEW
            assert await take(seen, "evt_1") is Seen.NEW
            assert await take(seen, "evt_1") is Seen.DONE
    engine.dispose()


async def test_several_processes_make_the_table_together(empty_dsn: str) -> None:
    async with asyncpg_pool(empty_dsn) as pool:
        await asyncio.gather(*(SeenInPostgres(pool).create() for _ in range(8)))


async def test_a_table_of_ones_own(empty_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aetherflow_hooks.receive.seen.FORGET_ONE_IN", 1)
    async with asyncpg_pool(empty_dsn) as pool:
        await pool.execute("create schema hooks")
        seen = SeenInPostgres(pool, table="hooks.were_here", age_seconds=60)
        await seen.create()
        await in_turn(seen)
        await pool.execute("update hooks.were_here set seen_at = now() - interval '61 s'")
        assert await take(seen, "evt_9") is Seen.NEW
        assert await pool.fetch("select event_id from hooks.were_here") == [("evt_9",)]
        for name in ("Seen", "a;b", "a.b.c", "", 'x"y'):
            with pytest.raises(InputRefused, match="no name of a table"):
                SeenInPostgres(pool, table=name)
    with pytest.raises(InputRefused, match="opens no transactions"):
        SeenInPostgres(object())


async def test_in_redis() -> None:
    await in_turn(SeenInRedis(fakeredis.FakeAsyncRedis()))
    await in_turn(SeenInRedis(fakeredis.FakeRedis()))


async def test_a_turn_in_redis_that_nobody_ends_ends_by_itself() -> None:
    redis = fakeredis.FakeAsyncRedis()
    seen = SeenInRedis(redis, working_seconds=0.001)

    async def fail_late() -> None:
        async with seen.once("evt_1") as turn:
            assert turn.is_new
            await asyncio.sleep(0.01)
            assert await take(seen, "evt_1") is Seen.NEW  # another process has done it
            raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        await fail_late()
    assert await take(seen, "evt_1") is Seen.DONE  # which is not forgotten for that


def test_of_many_threads_one_has_the_turn() -> None:
    seen = SeenInMemory()
    turns: list[Seen] = []
    together = threading.Barrier(20)

    def work() -> None:
        together.wait()
        with seen.once_sync("evt_1") as turn:
            turns.append(turn.seen)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert turns.count(Seen.NEW) == 1
