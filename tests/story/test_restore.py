"""Restore: a database that was brought back from a backup sends nothing before somebody says so."""

import asyncio
import logging

import pytest

from aetherflow_hooks import start_engine
from aetherflow_hooks.manage.restore import accept_restore, call_restored, is_restored, what_waits
from tests.conftest import World

ELSEWHERE = "update aetherflow.control set system_identifier = system_identifier + 1"
LATER = "update aetherflow.control set timeline = timeline + 1"


async def used(world: World) -> None:
    """Let an engine have worked here, and leave events and deliveries that wait."""
    await world.endpoint("/a", "200,500,200", retry_schedule_seconds=[60])
    async with world.engine():
        for _ in range(2):
            await world.emit()
        await world.until("select count(*) = 2 from aetherflow.attempts")
    await world.make_due()
    await world.emit()


@pytest.mark.parametrize("moved", [ELSEWHERE, LATER])
async def test_on_a_copy_nothing_is_sent_until_it_is_accepted(
    world: World, moved: str, caplog: pytest.LogCaptureFixture
) -> None:
    await used(world)
    await world.connection.execute(moved)
    with caplog.at_level(logging.INFO):
        async with world.engine():
            assert "engine.held" in caplog.text
            await asyncio.sleep(0.4)  # several looks at the outbox, if there were any
            assert len(world.receiver.received) == 2
            told = await what_waits(world.database)
            assert (told["is_restored"], told["events"], told["deliveries"]) == (True, 1, 1)
            assert told["last_event_at"] is not None
            await accept_restore(world.database)
            await world.receiver.wait_for(4)
            await world.settled()
    assert not await is_restored(world.database)
    async with world.engine():
        await world.emit()
        await world.receiver.wait_for(5)
        await world.settled()


async def test_what_waits_can_be_given_up_instead(world: World) -> None:
    await used(world)
    async with start_engine(world.settings(), restored=True):
        assert await accept_restore(world.database, cancel=True) == {"events": 1, "deliveries": 1}
        new = await world.emit()
        await world.receiver.wait_for(3)
        await world.settled()
    assert world.receiver.received[-1].headers["webhook-id"] == new
    assert len(world.receiver.received) == 3
    assert await world.value("select count(*) from aetherflow.dead where reason = 'cancelled'") == 1


async def test_what_somebody_says_holds_without_the_guard(world: World) -> None:
    await used(world)
    settings = world.settings(engine={"restore_guard": False})
    async with start_engine(settings, restored=True):
        await asyncio.sleep(0.4)
        assert len(world.receiver.received) == 2
        await accept_restore(world.database)
        await world.receiver.wait_for(4)
        await world.settled()


async def test_many_who_start_at_once_for_the_first_time_are_not_held(world: World) -> None:
    await world.connection.execute("update aetherflow.control set system_identifier = null")
    async with world.connection.transaction():
        await world.connection.execute("select from aetherflow.control for update")
        asking = [asyncio.create_task(is_restored(world.database)) for _ in range(4)]
        await asyncio.sleep(0.1)
    assert await asyncio.gather(*asking) == [False] * 4


async def test_a_held_engine_stops_at_once(world: World) -> None:
    await used(world)
    async with start_engine(world.settings(), restored=True) as engine:
        async with asyncio.timeout(2):
            await engine.stop()
    assert len(world.receiver.received) == 2


async def test_the_guard_can_be_left_out(world: World) -> None:
    await used(world)
    await world.connection.execute(ELSEWHERE)
    async with world.engine(engine={"restore_guard": False}):
        await world.receiver.wait_for(4)
        await world.settled()


async def test_a_server_that_does_not_say_which_it_is_is_taken_for_the_same(world: World) -> None:
    await used(world)
    await world.connection.execute(ELSEWHERE)
    await world.connection.execute("revoke execute on function pg_control_system() from public")
    await world.connection.execute("drop role if exists restore_owner")
    await world.connection.execute("create role restore_owner login")
    try:
        await world.connection.execute(
            "grant usage on schema aetherflow to restore_owner;"
            " grant select, update on aetherflow.control to restore_owner;"
            " grant insert, select on aetherflow.audit to restore_owner"
        )
        settings = world.settings()
        dsn = settings.database.dsn.replace("postgres@", "restore_owner@")
        async with type(world.database)(settings.with_dsn(dsn).database) as database:
            assert await is_restored(database) is False
            await call_restored(database)
            assert await is_restored(database) is True
            await accept_restore(database)
            assert await is_restored(database) is False
    finally:
        await world.connection.execute(
            "grant execute on function pg_control_system() to public;"
            " drop owned by restore_owner; drop role restore_owner"
        )
