"""Backlog: producers see what waits, and emit can be told to refuse when it is too much."""

import logging

import asyncpg
import pytest

from aetherflow_hooks import start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from tests.conftest import World, settings_for, until


async def test_the_view_and_the_function_tell_what_waits(world: World) -> None:
    made = await world.endpoint("/a", "200,500", ordering="block", retry_schedule_seconds=[60])
    async with world.engine():
        for _ in range(5):
            await world.emit()
        await world.until("select count(*) = 2 from aetherflow.attempts")
        await world.connection.execute("update aetherflow.deliveries set attempt = 2")
    row = (await world.rows("select * from aetherflow.backlog"))[0]
    assert (row["endpoint_id"], row["due"], row["later"], row["in_flight"]) == (made["id"], 3, 1, 0)
    assert await world.value("select oldest_emitted_at < now() from aetherflow.backlog")
    assert await world.value("select aetherflow.backlog_size()") == 4
    await world.emit()
    assert await world.value("select aetherflow.backlog_size()") == 5
    assert await world.value("select aetherflow.backlog_size(most => 2)") == 3
    await world.make_due()
    async with world.engine():
        await world.until("select halted = 1 from aetherflow.backlog")


async def test_emit_refuses_while_too_much_waits_and_takes_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint = await world.endpoint()
    await world.database.value("set_endpoint_state", endpoint["id"], "paused")
    with caplog.at_level(logging.INFO):
        async with world.engine(emit={"backlog_max": 10}):
            for _ in range(11):
                await world.emit()
            await world.until("select backlog_is_full from aetherflow.control")
            async with world.connection.transaction():
                with pytest.raises(
                    asyncpg.ConfigurationLimitExceededError, match="try again later"
                ):
                    async with world.connection.transaction():
                        await world.emit()
            await world.emit("aetherflow.endpoint.failing")  # what operators are to know gets in
            await world.database.value("set_endpoint_state", endpoint["id"], "active")
            await world.database.value("wake", endpoint["id"])
            await world.until("select not backlog_is_full from aetherflow.control")
            await world.emit()
            await world.receiver.wait_for(12)
    assert caplog.text.count("backlog.full") == 1
    assert caplog.text.count("backlog.free") == 1


async def test_a_limit_that_is_taken_away_lets_events_in_again(world: World) -> None:
    await world.connection.execute("update aetherflow.control set backlog_is_full = true")
    async with world.engine():
        await world.until("select not backlog_is_full from aetherflow.control")


async def test_who_emits_can_be_let_see_a_number(world: World) -> None:
    await world.connection.execute("drop role if exists backlog_app; create role backlog_app")
    try:
        await world.connection.execute("select aetherflow.grant_emit('backlog_app')")
        await world.connection.execute(
            "grant execute on function aetherflow.backlog_size to backlog_app"
        )
        await world.connection.execute("set role backlog_app")
        await world.emit()
        assert await world.value("select aetherflow.backlog_size()") == 1
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await world.rows("select * from aetherflow.backlog")
    finally:
        await world.connection.execute(
            "reset role; drop owned by backlog_app; drop role backlog_app"
        )


async def test_in_a_schema_of_another_name_operators_are_told_all_the_same(
    empty_dsn: str, receiver: Receiver
) -> None:
    """What is refused is not what the engine itself has to say, or no result could be written."""
    database = {"schema_name": "hooks", "migrate_at_start": True}
    settings = settings_for(empty_dsn, database=database, emit={"backlog_max": 1})
    async with start_engine(settings):
        connection = await asyncpg.connect(empty_dsn)
        async with Database(settings.database) as given:
            new = NewEndpoint(url=receiver.url("/a", "500;wait=0.3"), retry_schedule_seconds=[])
            await add_endpoint(given, new, settings=settings)
        await connection.execute("select hooks.emit('a.b', '{}') from generate_series(1, 8)")
        full = "select backlog_is_full from hooks.control"
        await until(lambda: connection.fetchval(full))
        with pytest.raises(asyncpg.ConfigurationLimitExceededError):
            await connection.fetchval("select hooks.emit('a.b', '{}')")
        await until(lambda: connection.fetchval("select count(*) = 8 from hooks.dead"))
        told = "select count(*) from hooks.events where type = 'aetherflow.delivery.exhausted'"
        assert await connection.fetchval(told) == 8
        await connection.close()
