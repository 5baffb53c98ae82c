"""Shards alone: who holds what, when engines come, go, freeze and lose the database."""

from collections.abc import Collection

from aetherflow_hooks.config import EngineSettings
from aetherflow_hooks.shards import Shards
from tests.conftest import World


class Holder:
    """An engine's shards, and what it was told of them."""

    def __init__(self, world: World, name: str) -> None:
        self.quiet = True
        self.taken: list[set[int]] = []
        self.lost: list[set[int]] = []
        self.shards = Shards(
            world.database,
            EngineSettings(),
            engine_id=name,
            host="here",
            on_taken=lambda shards: self.taken.append(set(shards)),
            on_lost=lambda shards: self.lost.append(set(shards)),
            is_quiet=lambda _: self.quiet,
            in_flight=lambda: 7,
        )

    async def turn(self) -> set[int]:
        await self.shards.turn()
        return set(self.held())

    def held(self) -> Collection[int]:
        return self.shards.held()


ALL = set(range(16))


async def test_one_engine_holds_all_and_is_told_once(world: World) -> None:
    one = Holder(world, "one")
    assert [await one.turn() for _ in range(3)] == [ALL] * 3
    assert (one.taken, one.lost) == ([ALL], [])


async def test_a_second_engine_gets_its_half(world: World) -> None:
    one, two = Holder(world, "one"), Holder(world, "two")
    await one.turn()
    assert await two.turn() == set()  # nothing is free yet
    left = await one.turn()
    right = await two.turn()
    assert (len(left), len(right), left | right) == (8, 8, ALL)
    assert one.lost == [right]
    assert await one.turn() == left


async def test_a_shard_is_handed_over_only_when_nothing_of_it_is_under_way(world: World) -> None:
    one, two = Holder(world, "one"), Holder(world, "two")
    await one.turn()
    await two.turn()
    one.quiet = False
    assert await one.shards.turn() == 0.1  # it comes back soon to see
    assert len(one.held()) == 8
    assert await two.turn() == set()
    one.quiet = True
    await one.turn()
    assert len(await two.turn()) == 8


async def test_three_engines_cover_all_shards_without_overlap(world: World) -> None:
    holders = [Holder(world, name) for name in ("one", "two", "three")]
    for _ in range(4):
        for holder in holders:
            await holder.turn()
    held = [set(holder.held()) for holder in holders]
    assert set.union(*held) == ALL
    assert sum(len(shards) for shards in held) == 16
    assert max(len(shards) for shards in held) <= 6


async def test_what_a_silent_engine_held_is_taken_and_it_learns_so(world: World) -> None:
    one, two = Holder(world, "one"), Holder(world, "two")
    await one.turn()
    await world.connection.execute("update aetherflow.shards set leased_until = '-infinity'")
    await world.connection.execute("update aetherflow.engines set seen_at = '-infinity'")
    assert await two.turn() == ALL
    assert await one.turn() == set()
    assert one.lost == [ALL]


async def test_an_engine_that_lost_its_leases_to_nobody_takes_them_again(world: World) -> None:
    one = Holder(world, "one")
    await one.turn()
    await world.connection.execute("update aetherflow.shards set leased_until = '-infinity'")
    assert await one.turn() == ALL


async def test_signing_off_frees_everything_at_once(world: World) -> None:
    one, two = Holder(world, "one"), Holder(world, "two")
    await one.turn()
    await one.shards.sign_off()
    assert one.held() == []
    assert await two.turn() == ALL
    assert await world.value("select count(*) from aetherflow.engines") == 1


async def test_what_was_to_be_left_is_kept_when_the_others_go(world: World) -> None:
    """Engines come and go while something is under way: no shard is left to nobody."""
    one, two = Holder(world, "one"), Holder(world, "two")
    await one.turn()
    one.quiet = False
    await two.turn()
    assert len(await one.turn()) == 8
    await world.connection.execute("delete from aetherflow.engines where id = 'two'")
    assert await one.turn() == ALL
    assert one.taken[-1] == one.lost[-1]  # it looks for their work again
