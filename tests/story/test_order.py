"""Strict order: of a key the next goes when the one before is delivered or given up, not sooner."""

import asyncio
import json
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.deliveries import cancel_delivery, retry_delivery
from aetherflow_hooks.model import delivery_id
from tests.conftest import World

UNHURRIED: dict[str, Any] = {"pace": {"discover_seconds": 60}}  # nothing is found by chance


def numbers(world: World, path: str = "/a", key: str | None = None) -> list[int]:
    """What has arrived, in the order of arrival: attempts that failed as well."""
    bodies = [json.loads(request.body)["data"] for request in world.receiver.at(path)]
    return [data["n"] for data in bodies if key is None or data["key"] == key]


async def emit_in_order(world: World, count: int, *keys: str) -> list[str]:
    """Emit numbered events, one transaction after the other."""
    ids = []
    for number in range(count):
        for key in keys or (None,):
            data = json.dumps({"n": number, "key": key})
            ids.append(await world.emit(data=data, ordering_key=key))
    return ids


async def test_case_63_what_comes_behind_a_failing_head_waits_and_other_keys_do_not(
    world: World,
) -> None:
    await world.endpoint("/a", "200,500,500,200", ordering="skip", retry_schedule_seconds=[60, 60])
    async with world.engine():
        await world.emit(data='{"n": 0, "key": "x"}', ordering_key="x")
        await world.receiver.wait_for(1)
        for number in range(1, 5):
            await world.emit(data=f'{{"n": {number}, "key": "x"}}', ordering_key="x")
        await world.receiver.wait_for(2)  # the second fails
        await emit_in_order(world, 3, "y")  # the first of them fails too
        await world.receiver.wait_for(3)
        await emit_in_order(world, 2, "z")
        await world.until(
            "select count(*) = 3 from aetherflow.attempts where verdict = 'delivered'"
        )
        await asyncio.sleep(0.2)  # nothing else comes, though it has been due all the time
        assert numbers(world, key="x") == [0, 1]
        assert numbers(world, key="y") == [0]
        assert numbers(world, key="z") == [0, 1]
        await world.make_due()
        await world.settled()
    assert numbers(world, key="x") == [0, 1, 1, 2, 3, 4]
    assert numbers(world, key="y") == [0, 0, 1, 2]


async def test_case_64_the_next_goes_at_once_when_the_head_succeeds(world: World) -> None:
    await world.endpoint("/a", "500,200", ordering="skip", retry_schedule_seconds=[0.5])
    await emit_in_order(world, 10, "x")
    async with world.engine():
        await world.settled()
    assert numbers(world) == [0, *range(10)]
    times = [request.began for request in world.receiver.at("/a")]
    assert times[1] - times[0] > 0.4
    assert times[-1] - times[1] < 0.4  # no pause of any kind between them


async def test_an_endpoint_without_keys_gets_all_in_one_order(world: World) -> None:
    await world.endpoint("/a", ordering="skip")
    await world.endpoint("/b")  # has none, and is not held up
    async with world.engine():
        await emit_in_order(world, 50)
        await world.settled()
    assert numbers(world) == list(range(50))
    assert world.receiver.open_most("/a") == 1
    assert sorted(numbers(world, "/b")) == list(range(50))


async def test_several_keys_go_at_the_same_time(world: World) -> None:
    await world.endpoint("/a", "200;wait=0.05", ordering="skip", max_in_flight=8)
    await emit_in_order(world, 5, *"abcdefgh")
    async with world.engine():
        await world.settled()
    for key in "abcdefgh":
        assert numbers(world, key=key) == list(range(5))
    assert 2 <= world.receiver.open_most("/a") <= 8


async def test_many_keys_are_looked_through_in_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.flow.lease.KEYS_MAX", 3)
    await world.endpoint("/a", ordering="skip", max_in_flight=2)
    await emit_in_order(world, 4, *(f"{n:02}" for n in range(20)))
    async with world.engine():
        await world.settled()
    for n in range(20):
        assert numbers(world, key=f"{n:02}") == list(range(4))


async def test_case_66_with_skip_the_next_goes_when_a_head_is_given_up(world: World) -> None:
    await world.endpoint("/a", "500,200", ordering="skip", retry_schedule_seconds=[])
    await emit_in_order(world, 3, "x")
    async with world.engine():
        await world.settled()
    assert numbers(world) == [0, 1, 2]
    assert await world.value("select count(*) from aetherflow.dead where reason = 'exhausted'") == 1


async def halted(world: World) -> str:
    """Let the first of three events use up its attempts at an endpoint that blocks."""
    made = await world.endpoint("/a", "500,200", ordering="block", retry_schedule_seconds=[])
    await world.endpoint("/ops", events=["aetherflow.delivery.exhausted"])
    ids = await emit_in_order(world, 3, "x")
    await world.until("select count(*) = 1 from aetherflow.deliveries where due_at = 'infinity'")
    return delivery_id(ids[0], made["id"])


async def test_case_66_with_block_the_key_halts_and_the_operator_is_told(world: World) -> None:
    async with world.engine(**UNHURRIED):
        head = await halted(world)
        (told,) = await world.receiver.wait_for(1, "/ops")
        await emit_in_order(world, 2, "y")
        await world.until("select count(*) = 3 from aetherflow.attempts where verdict <> 'halted'")
        assert numbers(world, key="x") == [0]
        data = json.loads(told.body)["data"]
        assert data["halted"] is True
        assert data["delivery"]["id"] == head
        await retry_delivery(world.database, head)
        await world.settled()
    assert numbers(world, key="x") == [0, 0, 1, 2]
    attempts = await world.rows("select verdict from aetherflow.attempts where verdict = 'halted'")
    assert len(attempts) == 1


async def test_a_halted_head_can_be_cancelled_and_the_key_goes_on(world: World) -> None:
    async with world.engine(**UNHURRIED):
        head = await halted(world)
        await cancel_delivery(world.database, head)
        await world.until("select count(*) = 0 from aetherflow.deliveries")
    assert numbers(world) == [0, 1, 2]
    assert await world.value("select reason from aetherflow.dead") == "cancelled"
    with pytest.raises(NotFound):
        await cancel_delivery(world.database, head)


async def test_a_dead_delivery_can_be_sent_again(world: World) -> None:
    made = await world.endpoint("/a", "500,200", retry_schedule_seconds=[])
    event_id = await world.emit()
    async with world.engine():
        await world.until("select count(*) = 1 from aetherflow.dead")
        dead = delivery_id(event_id, made["id"])
        await world.database.value("set_endpoint_state", made["id"], "disabled")
        with pytest.raises(InputRefused, match="its endpoint is disabled"):
            await retry_delivery(world.database, dead)
        await world.database.value("set_endpoint_state", made["id"], "active")
        await retry_delivery(world.database, dead)
        await world.until(
            "select count(*) = 1 from aetherflow.attempts where verdict = 'delivered'"
        )
    assert await world.value("select count(*) from aetherflow.dead") == 0


async def test_a_retry_in_the_middle_of_an_order_keeps_its_place(world: World) -> None:
    """Two engines, a receiver that fails at times, and an event in twenty keys."""
    await world.endpoint(
        "/a", "200,500,200,200,500,200", ordering="skip", retry_schedule_seconds=[0] * 5
    )
    keys = [f"k{n}" for n in range(20)]
    async with world.engine(), world.engine():
        await emit_in_order(world, 10, *keys)
        await world.settled()
    for key in keys:
        arrived = numbers(world, key=key)
        assert [n for n, _ in _runs(arrived)] == list(range(10))


def _runs(numbers: list[int]) -> list[tuple[int, int]]:
    """Fold what came several times in a row into one, with how often it came."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][0] == number:
            runs[-1] = number, runs[-1][1] + 1
        else:
            runs.append((number, 1))
    return runs


@pytest.mark.parametrize("ordering", ["", "fifo", "skip "])
async def test_an_unknown_order_is_refused(world: World, ordering: Any) -> None:
    with pytest.raises(InputRefused, match="an order is one of skip, block"):
        await world.endpoint(ordering=ordering)


async def test_an_event_for_very_many_is_not_overtaken_where_there_is_an_order(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.flow.fanout.FIRST_ENDPOINTS", 2)
    for number in range(6):
        await world.endpoint(f"/{number}", events=["wide"])
    for _ in range(3):
        await world.endpoint("/a", events=["wide", "narrow"], ordering="skip")
    wide = await world.emit("wide", ordering_key="x")
    narrow = await world.emit("narrow", ordering_key="x")
    async with world.engine():
        await world.settled()
    arrived = [request.headers["webhook-id"] for request in world.receiver.at("/a")]
    assert sorted(arrived) == sorted([wide, narrow] * 3)
    by_endpoint: dict[str, list[str]] = {}
    for request in world.receiver.at("/a"):
        endpoint = request.headers["x-aetherflow-delivery"].rpartition("_")[2]
        by_endpoint.setdefault(endpoint, []).append(request.headers["webhook-id"])
    assert list(by_endpoint.values()) == [[wide, narrow]] * 3
    assert sum(len(world.receiver.at(f"/{number}")) for number in range(6)) == 6


async def test_one_that_comes_late_does_not_go_beside_one_of_its_key(world: World) -> None:
    await world.endpoint("/a", "200;wait=0.4", ordering="skip", max_in_flight=5)
    late = await asyncpg.connect(world.dsn)
    transaction = late.transaction()
    await transaction.start()
    first = await late.fetchval("select aetherflow.emit('a.b', '{}', ordering_key => 'x')")
    second = await world.emit(ordering_key="x")
    async with world.engine():
        await world.receiver.wait_for(1)
        await transaction.commit()
        await world.receiver.wait_for(2)
        await world.settled()
    await late.close()
    assert [request.headers["webhook-id"] for request in world.receiver.received] == [second, first]
    assert world.receiver.open_most("/a") == 1
