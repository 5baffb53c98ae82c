"""Health: endpoints that fail and do nothing else: what is told and what becomes of them."""

import json
import logging
from typing import Any

import pytest

from tests.conftest import World


async def failing(world: World, script: str = "500") -> str:
    """Let an endpoint fail four times, so that it is known to; its operators listen."""
    made: dict[str, Any] = await world.endpoint(
        "/a", script, events=["a.b"], retry_schedule_seconds=[]
    )
    await world.endpoint("/ops", events=["aetherflow.endpoint.*"])
    for number in range(1, 5):
        await world.emit()
        await world.until("select count(*) >= $1 from aetherflow.attempts", number)
    await world.until(
        "select failing_since is not null from aetherflow.endpoints where id = $1", made["id"]
    )
    endpoint_id: str = made["id"]
    return endpoint_id


async def hours_pass(world: World, hours: int) -> None:
    await world.connection.execute(
        "update aetherflow.endpoints"
        " set failing_since = failing_since - make_interval(hours => $1),"
        " failing_told_at = failing_told_at - make_interval(hours => $1)",
        hours,
    )


def told(world: World) -> list[str]:
    """What operators have been told of, in order."""
    return [request.headers["x-aetherflow-event"] for request in world.receiver.at("/ops")]


async def test_case_35_operators_are_told_before_and_when_it_is_disabled(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with world.engine():
            endpoint_id = await failing(world)
            assert told(world) == []
            await hours_pass(world, 25)
            for number in range(2):  # told once
                await world.emit()
                await world.until("select count(*) >= $1 from aetherflow.attempts", 5 + number)
            await world.receiver.wait_for(1, "/ops")
            await hours_pass(world, 100)
            await world.emit()
            warned, disabled = await world.receiver.wait_for(2, "/ops")
            await world.until(
                "select state = 'disabled' from aetherflow.endpoints where id = $1", endpoint_id
            )
    assert told(world) == ["aetherflow.endpoint.failing", "aetherflow.endpoint.disabled"]
    assert json.loads(warned.body)["data"]["endpoint"]["id"] == endpoint_id
    assert "every attempt has failed since" in json.loads(disabled.body)["data"]["reason"]
    assert caplog.text.count("endpoint.failing") == 1
    assert caplog.text.count("endpoint.disabled") == 1
    # Enabled by hand it has all of the time again.
    await world.database.value("set_endpoint_state", endpoint_id, "active")
    assert await world.value(
        "select failing_since is null from aetherflow.endpoints where id = $1", endpoint_id
    )


async def test_case_36_one_success_among_failures_and_the_time_begins_anew(world: World) -> None:
    await world.endpoint("/a", "500,500,200,500,500,200,500,500,200", retry_schedule_seconds=[])
    async with world.engine():
        for number in range(1, 9):
            await world.emit()
            await world.until("select count(*) >= $1 from aetherflow.attempts", number)
    assert await world.value("select bool_and(failing_since is null) from aetherflow.endpoints")


async def test_case_37_a_restart_in_the_middle_forgets_nothing(world: World) -> None:
    async with world.engine():
        endpoint_id = await failing(world)
    await hours_pass(world, 25)
    async with world.engine():
        await world.emit()
        await world.until("select bool_or(failing_told_at is not null) from aetherflow.endpoints")
    await hours_pass(world, 100)
    async with world.engine():
        await world.emit()
        await world.until(
            "select state = 'disabled' from aetherflow.endpoints where id = $1", endpoint_id
        )


@pytest.mark.parametrize("restarts", [False, True])
async def test_case_38_recovered_is_told_once(world: World, restarts: bool) -> None:
    async with world.engine():
        endpoint_id = await failing(world, "500,500,500,500,200")
        await hours_pass(world, 1)
        if not restarts:
            for _ in range(3):
                await world.emit()
            await world.receiver.wait_for(1, "/ops")
            await world.settled()
    if restarts:
        async with world.engine():
            for _ in range(3):
                await world.emit()
            await world.receiver.wait_for(1, "/ops")
            await world.settled()
    assert told(world) == ["aetherflow.endpoint.recovered"]
    assert await world.value(
        "select failing_since is null from aetherflow.endpoints where id = $1", endpoint_id
    )


async def test_without_a_limit_nothing_is_disabled(world: World) -> None:
    async with world.engine(health={"disable_after_seconds": 0}):
        endpoint_id = await failing(world)
        await hours_pass(world, 100_000)
        await world.emit()
        await world.receiver.wait_for(1, "/ops")
    assert told(world) == ["aetherflow.endpoint.failing"]
    assert (
        await world.value("select state from aetherflow.endpoints where id = $1", endpoint_id)
        == "active"
    )


async def test_after_a_quiet_week_the_first_failure_is_no_reason(world: World) -> None:
    async with world.engine():
        endpoint_id = await failing(world)
        await hours_pass(world, 200)
        for number in range(2):
            await world.emit()
            await world.until("select count(*) >= $1 from aetherflow.attempts", 5 + number)
        await world.receiver.wait_for(1, "/ops")
    assert told(world) == ["aetherflow.endpoint.failing"]
    state = "select state from aetherflow.endpoints where id = $1"
    assert await world.value(state, endpoint_id) == "active"


async def test_one_that_comes_and_goes_is_not_told_of(world: World) -> None:
    async with world.engine():
        await failing(world, "500,500,500,500,200,500,200,500,200,200")
    async with world.engine():
        for number in range(6):
            await world.emit()
            await world.until("select count(*) >= $1 from aetherflow.attempts", 5 + number)
        await world.until("select bool_and(failing_since is null) from aetherflow.endpoints")
        await world.settled()
    assert told(world) == []
