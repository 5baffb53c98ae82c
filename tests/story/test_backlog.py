"""Backlog: producers see what waits, and emit can be told to refuse when it is too much."""

import logging

import asyncpg
import pytest

from tests.conftest import World


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
