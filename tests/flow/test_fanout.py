"""Fanout alone: turns of it, on a database without an engine."""

import asyncio

from aetherflow_hooks.config import FanoutSettings
from aetherflow_hooks.flow.fanout import Fanout
from tests.conftest import World

ALL = range(16)


def fanout(world: World, made: list[tuple[int, str]], **settings: float) -> Fanout:
    return Fanout(
        world.database,
        FanoutSettings.model_validate(settings),
        engine_id="eng_test",
        shards=lambda: ALL,
        hand_on=made.extend,
    )


async def asleep(world: World) -> bool:
    return bool(await world.value("select asleep from aetherflow.engines"))


async def test_a_turn_tells_which_endpoints_have_new_work(world: World) -> None:
    first, second = await world.endpoint("/1", events=["a.*"]), await world.endpoint("/2")
    await world.emit("a.b")
    await world.emit("c")
    made: list[tuple[int, str]] = []
    assert await fanout(world, made).turn() == 0
    assert {endpoint_id for _, endpoint_id in made} == {first["id"], second["id"]}
    for shard, endpoint_id in made:
        assert shard == await world.value("select aetherflow.shard_of($1)", endpoint_id)
    assert await world.value("select count(*) from aetherflow.outbox") == 0
    assert await world.value("select count(*) from aetherflow.deliveries") == 3


async def test_what_is_not_due_stays_and_the_pause_ends_with_it(world: World) -> None:
    await world.value("select aetherflow.emit('a', '{}', deliver_at => now() + interval '1 hour')")
    made: list[tuple[int, str]] = []
    stage = fanout(world, made, sleep_after_seconds=60, poll_seconds=10)
    assert await stage.turn() == 10
    await world.connection.execute(
        "update aetherflow.outbox set due_at = now() + interval '2 seconds'"
    )
    assert 1 < await stage.turn() <= 2
    assert await world.value("select count(*) from aetherflow.outbox") == 1


async def test_it_says_that_it_sleeps_and_that_it_is_awake(world: World) -> None:
    await world.connection.execute("insert into aetherflow.engines values ('eng_test', 'here')")
    stage = fanout(world, [], sleep_after_seconds=0, poll_seconds=0.01, poll_idle_seconds=0.05)
    assert await stage.turn() == 0  # once more, for what came before it was known
    assert await asleep(world)
    assert [await stage.turn() for _ in range(4)] == [0.02, 0.04, 0.05, 0.05]
    await world.emit()
    assert await stage.turn() == 0
    assert not await asleep(world)


async def test_two_at_once_make_each_delivery_once(world: World) -> None:
    await world.endpoint()
    await world.value("select count(aetherflow.emit('a', '{}')) from generate_series(1, 500)")

    async def work(stage: Fanout) -> None:
        while await stage.turn() == 0:
            pass

    stages = [fanout(world, [], batch_max=20, sleep_after_seconds=60) for _ in range(2)]
    await asyncio.gather(*(work(stage) for stage in stages))
    assert await world.value("select count(*) from aetherflow.outbox") == 0
    assert await world.value("select count(*) from aetherflow.deliveries") == 500
