"""Search alone: what it finds, in what order, and how fast."""

import time
from collections.abc import Iterable, Mapping

import pytest

from aetherflow_hooks.flow import search as search_module
from aetherflow_hooks.flow.search import Search
from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import Endpoint, EndpointState
from tests.conftest import LONG_AGO, World
from tests.flow.test_lease import Holder, deliveries


class Searcher:
    """A search whose finds are kept instead of served."""

    def __init__(self, world: World) -> None:
        self.shards = list(range(16))
        self.found: list[tuple[str, float]] = []
        self.loads: list[list[str]] = []
        self.known: dict[str, Endpoint] = {}
        self.waiting = 0
        self.wide_since: float | None = None
        self._lease = Holder(world).lease
        self.search = Search(
            world.database,
            world.settings().pace,
            shards=lambda: self.shards,
            load=self._load,
            known=self.known.get,
            waiting=lambda: self.waiting,
            wide_since=lambda: self.wide_since,
            hand_on=self._hand_on,
        )

    @property
    def ids(self) -> list[str]:
        return [endpoint_id for endpoint_id, _ in self.found]

    async def run(self) -> None:
        """Let it read until it pauses."""
        while await self.search.turn() == 0:
            pass

    async def _load(self, ids: Iterable[str]) -> Mapping[str, Endpoint]:
        self.loads.append(list(ids))
        return await self._lease.load(self.loads[-1])

    def _hand_on(self, endpoint: Endpoint, due_in_seconds: float) -> None:
        self.known[endpoint.id] = endpoint
        self.found.append((endpoint.id, due_in_seconds))


async def many(world: World, count: int) -> list[str]:
    """Give so many endpoints one due delivery each; give their ids by shard."""
    for place in range(count):
        await world.endpoint(f"/{place}")
    await world.emit()
    shard = await world.value("select shard from aetherflow.outbox")
    await world.database.rows("fanout_events", shard, 1, 1000, "{}", 0, False, LONG_AGO)
    ids = await world.rows("select id from aetherflow.endpoints order by shard, id")
    return [row["id"] for row in ids]


async def test_an_endpoint_with_work_is_found_with_the_time_it_is_due(world: World) -> None:
    endpoint_id = await deliveries(world, 2)
    shard = await world.value("select aetherflow.shard_of($1)", endpoint_id)
    searcher = Searcher(world)
    searcher.search.look([shard])
    await searcher.run()
    ((found, due_in_seconds),) = searcher.found
    assert (found, due_in_seconds <= 0) == (endpoint_id, True)
    await world.connection.execute(
        "update aetherflow.deliveries set due_at = now() + interval '1 hour'"
    )
    searcher.search.look([(shard + 1) % 16, shard])
    await searcher.run()
    assert 3590 < searcher.found[1][1] <= 3600
    assert searcher.loads == [[endpoint_id]]  # it is known by then


async def test_shards_are_read_page_by_page_in_turn_each_endpoint_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has nothing to lease does not end the search."""
    monkeypatch.setattr(search_module, "PAGE_ENDPOINTS", 2)
    ids = await many(world, 60)
    for endpoint_id in ids[::4]:
        await set_endpoint_state(world.database, endpoint_id, EndpointState.PAUSED)
    searcher = Searcher(world)
    searcher.search.look(range(16))
    await searcher.run()
    assert sorted(searcher.ids) == sorted(set(ids) - set(ids[::4]))
    assert max(len(load) for load in searcher.loads) <= 2
    shards = [int(load[0][-3:], 16) % 16 for load in searcher.loads]
    assert len(set(shards[:8])) == 8


async def test_while_many_wait_for_their_leases_pages_are_spaced(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "PAGE_ENDPOINTS", 2)
    monkeypatch.setattr(search_module, "PAGE_SECONDS", 60.0)
    monkeypatch.setattr(search_module, "STRANGERS_SECONDS", 30.0)
    await many(world, 10)
    searcher = Searcher(world)
    searcher.waiting = 2
    searcher.search.look(range(16))
    for endpoint_id in await many(world, 4):
        searcher.search.stranger(endpoint_id)
    assert await searcher.search.turn() == 0
    assert 0 < await searcher.search.turn() <= 30  # strangers come first, and more often
    assert len(searcher.loads) == 1
    searcher.waiting = 1
    await searcher.run()
    assert len(set(searcher.ids)) == 14


@pytest.mark.parametrize("waiting", [0, 3])
async def test_while_many_wait_to_be_served_little_is_read_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """They may be dead, and others are sent to meanwhile."""
    monkeypatch.setattr(search_module, "PAGE_ENDPOINTS", 3)
    monkeypatch.setattr(search_module, "SMALL_PAGE_ENDPOINTS", 1)
    monkeypatch.setattr(search_module, "PAGE_SECONDS", 0.0)
    ids = await many(world, 60)
    searcher = Searcher(world)
    searcher.waiting = waiting
    searcher.search.look(range(16))
    await searcher.run()
    assert sorted(searcher.ids) == sorted(ids)
    assert max(map(len, searcher.loads)) == (1 if waiting else 3)


async def test_where_strangers_come_all_the_time_what_waits_is_found_all_the_same(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a start every endpoint with new work is one, and others have waited for long."""
    monkeypatch.setattr(search_module, "PAGE_SECONDS", 0.0)
    ids = await many(world, 30)
    searcher = Searcher(world)
    searcher.search.look(range(16))
    for _ in range(40):
        searcher.search.stranger(ids[0])
        assert await searcher.search.turn() == 0
    assert set(searcher.ids) == set(ids)


async def test_a_crowd_is_let_in_when_the_event_that_draws_it_is_fanned_out(
    world: World,
) -> None:
    ids = await many(world, 5)
    searcher = Searcher(world)
    await searcher.run()
    searcher.wide_since = time.monotonic()
    for shard in range(16):
        searcher.search.crowd(shard)
    assert 0 < await searcher.search.turn() < 1
    assert searcher.found == []
    searcher.wide_since = None
    await searcher.run()
    assert sorted(searcher.ids) == sorted(ids)
    # Where such events never end, nobody waits for ever.
    searcher.wide_since = time.monotonic() - search_module.CROWD_SECONDS
    searcher.found.clear()
    for shard in range(16):
        searcher.search.crowd(shard)
    await searcher.run()
    assert sorted(searcher.ids) == sorted(ids)


async def test_a_shard_that_is_asked_for_while_it_is_read_is_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "PAGE_ENDPOINTS", 2)
    ids = await many(world, 60)
    shard = int(ids[0][-3:], 16) % 16
    of_shard = [it for it in ids if int(it[-3:], 16) % 16 == shard]
    searcher = Searcher(world)
    searcher.search._every_seconds = 600
    searcher.search.look([shard])
    assert await searcher.search.turn() == 0
    searcher.search.look([shard])
    await searcher.run()
    assert sorted(searcher.ids) == sorted(of_shard * 2)


async def test_looking_through_all_once_in_a_while_keeps_nobody_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "GENTLE_PAUSES", 1e6)
    ids = await many(world, 30)
    shard = int(ids[-1][-3:], 16) % 16
    searcher = Searcher(world)
    searcher.search._every_seconds = 600
    searcher.search._all_at -= 3600
    assert await searcher.search.turn() == 0
    assert await searcher.search.turn() > 1  # the next shard, after a rest
    searcher.search.look([shard])  # here is work
    assert await searcher.search.turn() == 0
    assert searcher.ids[-1] == ids[-1]
    assert await searcher.search.turn() > 1
    searcher.search._gentle_at = 0.0
    monkeypatch.setattr(search_module, "GENTLE_PAUSES", 0.0)
    await searcher.run()
    assert sorted(searcher.ids) == sorted(ids)


async def test_where_thousands_wait_the_look_through_all_takes_its_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many endpoints that do not answer: to read them all again and again would cost the others."""
    monkeypatch.setattr(search_module, "PAGE_ENDPOINTS", 100)
    monkeypatch.setattr(search_module, "SMALL_PAGE_ENDPOINTS", 1)
    monkeypatch.setattr(search_module, "PAGE_SECONDS", 0.0)
    monkeypatch.setattr(search_module, "GENTLE_PAUSES", 0.0)
    monkeypatch.setattr(search_module, "FULL_PAGE_PAUSES", 1e6)
    await many(world, 30)
    searcher = Searcher(world)
    searcher.search._every_seconds = 600
    searcher.search._all_at -= 3600
    for waiting in (0, 30):  # whether they wait to be served or not
        searcher.waiting = waiting
        while searcher.search._gentle_at <= time.monotonic():  # a shard may have none
            assert await searcher.search.turn() == 0
        assert len(searcher.found) == 1 + bool(waiting)
        assert await searcher.search.turn() > 1
        searcher.search._gentle_at = 0.0


async def test_a_shard_that_was_lost_is_left_alone(world: World) -> None:
    await many(world, 5)
    searcher = Searcher(world)
    searcher.search.look(range(16))
    searcher.shards.clear()
    await searcher.run()
    assert searcher.found == []
