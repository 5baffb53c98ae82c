"""PgBouncer in transaction mode between the engine and Postgres: what works, and what is told.

`make test ARGS="--pooler tests/story"` lets every story go through one.
"""

import asyncio
import logging
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from aetherflow_hooks import emit, migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from tests.conftest import World, settings_for
from tests.pooler import NAME, pgbouncer

pytestmark = pytest.mark.skipif(NAME is None, reason="there is no PgBouncer on this machine")


@pytest_asyncio.fixture
async def pooled_dsn(empty_dsn: str) -> AsyncIterator[str]:
    """A database that was never migrated, through a pooler."""
    with pgbouncer(empty_dsn) as dsn:
        yield dsn


async def test_all_of_it_goes_through_a_pooler(
    pooled_dsn: str, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(pooled_dsn)
    applied = await asyncio.gather(*(migrate(settings) for _ in range(3)))
    assert sorted(map(bool, applied)) == [False, False, True]  # each waits for its turn
    async with Database(settings.database) as database:
        assert database.is_pooled
        url = receiver.url("/", "503,200")
        await add_endpoint(
            database, NewEndpoint(url=url, retry_schedule_seconds=[0.05]), settings=settings
        )
        with caplog.at_level(logging.WARNING):
            async with start_engine(settings):
                connection = await asyncpg.connect(pooled_dsn, statement_cache_size=0)
                for n in range(50):
                    async with connection.transaction():
                        await emit(connection, "a.b", {"n": n})
                await connection.close()
                await receiver.wait_for(51)
    assert caplog.text.count("database.deaf") == 1


async def test_who_listens_past_the_pooler_is_woken(world: World) -> None:
    await world.endpoint()
    never = {"poll_idle_seconds": 60, "sleep_after_seconds": 0}
    with pgbouncer(world.dsn) as dsn:
        settings = settings_for(dsn, database={"listen_dsn": world.dsn}, fanout=never)
        async with start_engine(settings):
            for n in range(3):
                await asyncio.sleep(0.1)  # it sleeps by now
                await world.emit()
                await world.receiver.wait_for(n + 1, timeout_seconds=5)


async def test_settings_of_a_connection_hold_in_each_transaction_behind_a_pooler(
    world: World,
) -> None:
    sql = "select current_setting('synchronous_commit') || current_setting('enable_seqscan')"
    with pgbouncer(world.dsn) as dsn:
        async with Database(settings_for(dsn).database, for_flow=True) as database:
            database._statements = {**database._statements, "probe": sql}
            assert await database.value("probe") == "offoff"
            async with database.transaction() as bound:
                assert await bound.value("probe") == "offoff"
        async with Database(settings_for(dsn).database) as database:
            database._statements = {**database._statements, "probe": sql}
            assert await database.value("probe") in {"onon", "offon"}  # as the server has it
