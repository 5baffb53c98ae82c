"""Deliveries are sent again by hand: each time that it is said, and on record as that."""

import asyncio
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.deliveries import retry_delivery, show_delivery
from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import EndpointState, delivery_id
from tests.conftest import World


async def history(world: World, named: str) -> list[tuple[int, str | None, str]]:
    shown = await show_delivery(world.database, named)
    return [(it["attempt"], it["trigger"], it["verdict"]) for it in shown["history"]]


async def asked(world: World, named: str) -> str:
    """Ask for a retry; tell what came of it."""
    try:
        await retry_delivery(world.database, named)
    except InputRefused as refused:
        return str(refused)
    return "due"


async def test_case_68_each_retry_that_is_accepted_is_an_attempt_by_hand(world: World) -> None:
    endpoint = await world.endpoint("/a", "500,500,200", retry_schedule_seconds=[])
    named = delivery_id(await world.emit(), endpoint["id"])
    async with world.engine():
        await world.settled()
    told = await asyncio.gather(*(asked(world, named) for _ in range(5)))
    assert told.count("due") == 1
    assert all("about to be, as was asked before" in it for it in told if it != "due")
    assert "about to be" in await asked(world, named)
    async with world.engine():
        await world.settled()
        assert await asked(world, named) == "due"
        await world.receiver.wait_for(3)
        await world.settled()
    assert await history(world, named) == [
        (1, None, "dead"),
        (1, "manual", "dead"),
        (1, "manual", "delivered"),
    ]


async def test_a_retry_is_accepted_once_though_the_second_who_asks_had_begun_before(
    world: World,
) -> None:
    endpoint = await world.endpoint("/a", "500", retry_schedule_seconds=[])
    event_id = await world.emit()
    async with world.engine():
        await world.settled()
    async with world.database.transaction() as earlier:  # its now() is of here
        assert await asked(world, delivery_id(event_id, endpoint["id"])) == "due"
        told = await earlier.value("retry_delivery", endpoint["id"], event_id)
    assert "as was asked before" in told


async def test_what_waits_for_its_retry_is_hurried_and_then_goes_by_its_schedule(
    world: World,
) -> None:
    endpoint = await world.endpoint("/a", "500,500,200", retry_schedule_seconds=[3600, 0.1])
    named = delivery_id(await world.emit(), endpoint["id"])
    async with world.engine():
        await world.until("select attempt = 1 and leased_until < now() from aetherflow.deliveries")
        assert await asked(world, named) == "due"
        await world.settled()
    assert await history(world, named) == [
        (1, None, "retry"),
        (2, "manual", "retry"),
        (3, None, "delivered"),
    ]


async def test_what_was_delivered_is_sent_once_more_and_to_nobody_else(world: World) -> None:
    endpoint = await world.endpoint("/a")
    await world.endpoint("/b")
    event_id = await world.emit(data='{"n": 1.0}')
    named = delivery_id(event_id, endpoint["id"])
    async with world.engine():
        await world.settled()
        told = await asyncio.gather(*(asked(world, named) for _ in range(5)))
        assert told.count("due") >= 1
        await world.settled()
    requests = world.receiver.at("/a")
    assert len(requests) == 1 + told.count("due")
    assert len({request.body for request in requests}) == 1
    assert {request.headers["webhook-id"] for request in requests} == {event_id}
    assert len(world.receiver.at("/b")) == 1
    made = await history(world, named)
    assert made == [(1, None, "delivered"), *[(1, "manual", "delivered")] * told.count("due")]
    assert (await show_delivery(world.database, named))["state"] == "delivered"


async def test_of_one_that_is_sent_again_the_last_attempt_is_told(world: World) -> None:
    endpoint = await world.endpoint("/a", "200,500", retry_schedule_seconds=[3600])
    named = delivery_id(await world.emit(), endpoint["id"])
    async with world.engine():
        await world.settled()
        await asyncio.sleep(0.2)  # when an attempt began is told to some ms
        assert await asked(world, named) == "due"
        await world.until("select count(*) = 2 from aetherflow.attempts")
    shown = await show_delivery(world.database, named)
    assert (shown["state"], shown["last_status"]) == ("pending", 500)


async def test_one_that_is_being_sent_is_left_alone(world: World) -> None:
    endpoint = await world.endpoint("/a", "hang", timeout_seconds=30)
    named = delivery_id(await world.emit(), endpoint["id"])
    async with world.engine(engine={"grace_seconds": 0.1}):
        await world.receiver.wait_for(1)
        assert "it is being sent" in await asked(world, named)


@pytest.mark.parametrize("script", ["200", "500"])
async def test_case_69_a_retry_that_cannot_be_is_refused_with_the_reason(
    world: World, script: str
) -> None:
    endpoint = await world.endpoint("/a", script, retry_schedule_seconds=[])
    named = delivery_id(await world.emit(), endpoint["id"])
    async with world.engine():
        await world.settled()
    await set_endpoint_state(world.database, endpoint["id"], EndpointState.DISABLED)
    assert "its endpoint is disabled" in await asked(world, named)
    await set_endpoint_state(world.database, endpoint["id"], EndpointState.ACTIVE)
    await world.value("delete from aetherflow.events")
    assert "its event is not kept any more" in await asked(world, named)
    assert await world.value("select count(*) from aetherflow.deliveries") == 0


async def test_there_has_to_be_a_delivery(world: World) -> None:
    endpoint: dict[str, Any] = await world.endpoint("/a", events=["c.d"])
    event_id = await world.emit()
    async with world.engine():
        await world.settled()
    for named in (delivery_id(event_id, endpoint["id"]), "dlv_x", ""):
        with pytest.raises(NotFound):
            await retry_delivery(world.database, named)
