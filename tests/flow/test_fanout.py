"""Fanout alone: turns of it, on a database without an engine."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from aetherflow_hooks.config import FanoutSettings
from aetherflow_hooks.db import Row
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.flow import fanout as fanout_module
from aetherflow_hooks.flow.fanout import Fanout, Hands
from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import EndpointState, Offer, moment_of
from tests.conftest import World

ALL = range(16)


def fanout(
    world: World, made: list[tuple[int, str]], hands: Hands | None = None, **settings: float
) -> Fanout:
    return Fanout(
        world.database,
        FanoutSettings.model_validate(settings),
        engine_id="eng_test",
        shards=lambda: ALL,
        hand_on=lambda endpoints, *_: made.extend(endpoints),
        hands=hands,
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


async def test_of_large_statements_there_is_one_at_a_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that they do not take the processors from each other, and from those who send."""
    stage = fanout(world, [], batch_max=2)
    rows = world.database.rows
    at_once: list[int] = []
    under_way = 0

    async def counted(statement: str, *values: object) -> object:
        nonlocal under_way
        if statement != "fanout_events":
            return await rows(statement, *values)
        under_way += 1
        at_once.append(under_way)
        try:
            return await rows(statement, *values)
        finally:
            under_way -= 1

    monkeypatch.setattr(world.database, "rows", counted)
    for per_shard, expected in ((1, {1, 2}), (2, {1, 2}), (2, {1})):
        for shard in ALL:
            for _ in range(per_shard):
                await world.connection.execute(_OUTBOX, shard)
        at_once.clear()
        await stage.turn()
        assert set(at_once) == expected
        assert len(at_once) == len(ALL)
    assert await world.value("select count(*) from aetherflow.outbox") == 0


# Of events that nobody wants, so that nothing else comes of them.
_OUTBOX = """
insert into aetherflow.outbox (shard, due_at, event_id, tenant, type)
values ($1, now(), 'evt_' || left(md5(gen_random_uuid()::text), 24), '', 'a')"""


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


async def test_a_delivery_that_is_there_already_stays_as_it_is(world: World) -> None:
    """Nothing of ours makes one twice; a hand that put an event back into the outbox might."""
    first, second = [await world.endpoint(f"/{place}") for place in range(2)]
    await world.value("select count(aetherflow.emit('a', '{}')) from generate_series(1, 40)")
    columns = "shard, due_at, event_id, tenant, type, expires_at"
    await world.connection.execute(
        f"create temp table kept as select {columns} from aetherflow.outbox"
    )
    made: list[tuple[int, str]] = []
    stage = fanout(world, made)
    while await stage.turn() == 0:
        pass
    await world.connection.execute(
        "delete from aetherflow.deliveries where endpoint_id = $1", second["id"]
    )
    await world.connection.execute("update aetherflow.deliveries set attempt = 2")
    await world.connection.execute(f"insert into aetherflow.outbox ({columns}) select * from kept")
    made.clear()
    while await stage.turn() == 0:
        pass
    assert {endpoint_id for _, endpoint_id in made} == {second["id"]}
    counts = await world.rows(
        "select endpoint_id, attempt, count(*) from aetherflow.deliveries group by 1, 2"
    )
    assert {tuple(row) for row in counts} == {(first["id"], 2, 40), (second["id"], 0, 40)}


async def test_endpoints_on_other_channels_are_passed_by(world: World) -> None:
    """However many they are, an event for a few is not one for very many."""
    ids = [(await world.endpoint(f"/{n}", channels=[f"c{n}"]))["id"] for n in range(12)]
    for number in (11, 4):
        await world.emit(channels=[f"c{number}", "x"])
    made: list[tuple[int, str]] = []
    stage = fanout(world, made, endpoints_max=3)
    await stage.turn()
    assert not stage.wake_wide.is_set()
    assert {endpoint_id for _, endpoint_id in made} == {ids[4], ids[11]}
    assert await world.value("select count(*) from aetherflow.outbox") == 0
    assert await world.value("select count(*) from aetherflow.deliveries") == 2


class Taker:
    """Hands that have room for some endpoints."""

    def __init__(self, *rooms: tuple[str, int]) -> None:
        self.rooms = orjson.dumps({name: [room, 30.0] for name, room in rooms}).decode()
        self.taken: list[Row] = []
        self.doubted: list[Offer] = []

    def prepare(self) -> None:
        """Nothing: what is offered stands."""

    def offer(self) -> Offer:
        return Offer(77, self.rooms, [])

    def adopt(
        self,
        offer: Offer,
        event_shard: int,
        rows: Sequence[Row],
        leased_unix_us: int,
        asked_at: float,
        *,
        others: int,
    ) -> None:
        assert others > 0
        assert offer.token == 77
        assert event_shard in ALL
        assert asked_at > 0
        assert moment_of(leased_unix_us) <= datetime.now(UTC)
        self.taken += rows

    def doubt(self, offer: Offer) -> None:
        self.doubted.append(offer)


async def test_what_there_is_room_for_is_leased_at_once(world: World) -> None:
    first, second, changed = [await world.endpoint(f"/{place}") for place in range(3)]
    await world.connection.execute(
        "update aetherflow.endpoints set version = 2 where id = $1", changed["id"]
    )
    await world.value("select count(aetherflow.emit('a', '{}')) from generate_series(1, 40)")
    hands = Taker((f"{first['id']}/1", 1), (f"{second['id']}/1", 1_000), (f"{changed['id']}/1", 9))
    made: list[tuple[int, str]] = []
    stage = fanout(world, made, hands)
    while await stage.turn() == 0:
        pass
    leased = await world.rows(
        "select endpoint_id, count(*) from aetherflow.deliveries where lease_token = 77 and "
        "attempt = 1 and leased_until between now() + interval '25 s' and now() + interval '30 s' "
        "group by endpoint_id"
    )
    counts = dict(map(tuple, leased))
    shards = await world.value("select count(distinct shard) from aetherflow.events")
    assert counts == {first["id"]: shards, second["id"]: 40}  # one of each statement; all
    taken = [row for row in hands.taken if row["endpoint_id"]]
    events = [row for row in hands.taken if not row["endpoint_id"]]
    assert len(taken) == 40 + shards
    assert len(events) == 40  # each once, however many have it
    assert {row["event_id"] for row in events} == {row["event_id"] for row in taken}
    assert {(row["type"], row["data"]) for row in events} == {("a", "{}")}
    told = {endpoint_id for _, endpoint_id in made}
    assert changed["id"] in told  # our copy of it is not right any more
    assert second["id"] not in told
    rest = await world.value(
        "select count(*) from aetherflow.deliveries where lease_token = 0 and attempt = 0 "
        "and leased_until = '-infinity'"
    )
    assert rest == 120 - 40 - shards


class Hesitant(Taker):
    """Has room again when it has been asked some times."""

    asked = 0
    times = 3

    def offer(self) -> Offer | None:  # type: ignore[override]
        self.asked += 1
        return None if self.asked % (self.times + 1) else super().offer()


@pytest.mark.parametrize("is_pile", [True, False])
async def test_what_is_left_of_a_pile_waits_for_room_as_the_pile_did(
    world: World, is_pile: bool
) -> None:
    """A single event is made at once, as there may be room for its endpoint."""
    endpoint = await world.endpoint()
    await world.endpoint("/other")
    emit = "select aetherflow.emit('a', '{}', ordering_key => $1)"
    last = await world.value(emit, "0")
    if is_pile:
        for key in "123456":
            await world.value(emit, key)
        first = "(select id from aetherflow.events order by shard limit 1)"
        key = await world.value(
            f"select ordering_key from aetherflow.outbox where event_id = {first}"
        )
        for _ in range(2):
            last = await world.value(emit, key)
    stage = fanout(world, [], Hesitant((f"{endpoint['id']}/1", 9)), batch_max=2)
    while await stage.turn() == 0:
        pass
    # The first two of its shard, and what was made beside them, were of when nobody knew yet.
    leased = await world.value(
        "select lease_token = 77 from aetherflow.deliveries "
        "where endpoint_id = $1 and event_id = $2",
        endpoint["id"],
        last,
    )
    assert leased == is_pile


async def test_of_a_pile_what_a_filter_lets_through_is_leased_at_once(world: World) -> None:
    some = await world.endpoint("/some", filter="$.n >= 8")
    await world.endpoint("/all")
    event = "aetherflow.emit('a', format('{\"n\":%s}', n), ordering_key => 'k')"  # of one shard
    await world.value(f"select count({event}) from generate_series(1, 12) n")
    hands = Taker((f"{some['id']}/1", 3))
    stage = fanout(world, [], hands)
    while await stage.turn() == 0:
        pass
    rows = await world.rows(
        "select (v.data::json->>'n')::integer as n, d.lease_token from aetherflow.deliveries d"
        " join aetherflow.events v on v.id = d.event_id where d.endpoint_id = $1 order by n",
        some["id"],
    )
    assert [tuple(row) for row in rows] == [(8, 77), (9, 77), (10, 77), (11, 0), (12, 0)]


async def test_what_has_expired_or_is_paused_is_not_leased_at_once(world: World) -> None:
    paused = await world.endpoint("/paused", events=["a"])
    await world.connection.execute("update aetherflow.endpoints set state = 'paused'")
    expired = await world.endpoint("/expired", events=["b"])
    await world.emit("a")
    await world.value("select aetherflow.emit('b', '{}', expires_at => now() + interval '1 s')")
    await world.connection.execute("update aetherflow.outbox set expires_at = now()")
    hands = Taker((f"{paused['id']}/1", 9), (f"{expired['id']}/1", 9))
    made: list[tuple[int, str]] = []
    assert await fanout(world, made, hands).turn() == 0
    assert [row["endpoint_id"] for row in hands.taken] == [None, None]  # events, to be kept
    assert {endpoint_id for _, endpoint_id in made} == {paused["id"], expired["id"]}


async def test_a_statement_that_failed_leaves_a_doubt(world: World) -> None:
    await world.emit()
    hands = Taker()
    stage = fanout(world, [], hands)
    await world.connection.execute("alter table aetherflow.subscriptions rename to elsewhere")
    with pytest.raises(Exception, match="subscriptions"):
        await stage.turn()
    assert len(hands.doubted) == 1


async def test_an_event_for_very_many_is_only_begun_by_the_turn_that_others_wait_for(
    world: World,
) -> None:
    """What comes after it is fanned out before it is done, and so is another one of its kind."""
    for place in range(7):
        await world.endpoint(f"/{place}")
    made: list[tuple[int, str]] = []
    stage = fanout(world, made, endpoints_max=3)
    await world.value("select count(aetherflow.emit('a', '{}')) from generate_series(1, 40)")
    while await stage.turn() == 0:
        pass
    reached = "select count(*) from aetherflow.deliveries group by event_id order by 1"
    assert [row["count"] for row in await world.rows(reached)] == [3] * 40
    assert stage.wake_wide.is_set()
    # Each turn takes one of every shard, and what was taken goes behind what was not.
    shards = await world.value("select count(distinct shard) from aetherflow.outbox")
    assert await stage.wide_turn() == 0
    await world.emit()
    while await stage.turn() == 0:
        pass
    counts = Counter(row["count"] for row in await world.rows(reached))
    assert counts == {6: shards, 3: 41 - shards}
    while await stage.wide_turn() == 0:
        pass
    assert {row["count"] for row in await world.rows(reached)} == {7}


async def test_an_event_for_very_many_reaches_who_was_there_and_wants_it_once(
    world: World,
) -> None:
    """Its later slices choose as its first does."""
    ids = [(await world.endpoint(f"/{n}", events=["a", "*", "a.*"]))["id"] for n in range(9)]
    ids.sort()
    await set_endpoint_state(world.database, ids[4], EndpointState.PAUSED)
    await set_endpoint_state(world.database, ids[5], EndpointState.DISABLED)
    await world.emit("a.b")
    for n in range(3):
        await world.endpoint(f"/late/{n}")
    stage = fanout(world, [], endpoints_max=2)
    while await stage.turn() == 0:
        pass
    # A foreign hand has made one of those that are still to come.
    await world.connection.execute(
        "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at) "
        "select aetherflow.shard_of($1), shard, $1, event_id, due_at from aetherflow.outbox",
        ids[7],
    )
    while await stage.wide_turn() == 0:
        pass
    made = await world.rows("select endpoint_id from aetherflow.deliveries order by 1")
    assert [row["endpoint_id"] for row in made] == ids[:5] + ids[6:]
    assert await world.value("select count(*) from aetherflow.outbox") == 0


async def test_an_id_tells_the_moment_of_its_event(world: World) -> None:
    wrong = await world.value(
        "select count(*) from ("
        "  select timestamptz '1990-01-01Z' + random() * interval '100 years' as moment"
        "  from generate_series(1, 10000)"
        ") m where aetherflow.event_moment(aetherflow.event_id_at(moment) || 'fff') <> moment"
    )
    assert wrong == 0


async def test_what_is_emitted_together_is_of_one_shard(world: World) -> None:
    """So that one statement fans it out, and the next moment's are another engine's."""
    await world.value("select count(aetherflow.emit('a', '{}')) from generate_series(1, 1000)")
    rows = await world.rows(
        "select shard, aetherflow.shard_of(id) as told, right(id, 11) as random, "
        "floor(extract(epoch from emitted_at) * 1000)::bigint as ms from aetherflow.events"
    )
    assert [row["shard"] for row in rows] == [row["told"] for row in rows]
    # The moment is rounded to the nearest of them.
    assert all(row["shard"] in {row["ms"] // 16 % 16, (row["ms"] + 1) // 16 % 16} for row in rows)
    assert len({row["random"] for row in rows}) == 1000


async def test_what_is_committed_behind_a_look_is_not_passed_by(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is older than what the look has found, and comes before it, also of one ordering key."""
    await world.endpoint()
    other = await asyncpg.connect(world.dsn)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("select aetherflow.emit('a.b', '{}', ordering_key => 'k')")
    await world.emit(ordering_key="k")
    stage = fanout(world, [])
    really = stage._look

    async def look() -> Any:
        found = await really()
        await transaction.commit()
        return found

    monkeypatch.setattr(stage, "_look", look)
    assert await stage.turn() == 0
    await other.close()
    assert await world.value("select count(*) from aetherflow.outbox") == 0


@pytest.mark.parametrize("numbered", [False, True])
async def test_what_is_committed_very_late_is_found_by_the_next_look(
    world: World, monkeypatch: pytest.MonkeyPatch, numbered: bool
) -> None:
    """However much has been fanned out meanwhile, and whatever its transaction did before."""
    monkeypatch.setattr(fanout_module, "WHOLE_LOOK_SECONDS", 1e6)
    await world.endpoint()
    stage = fanout(world, [])
    other = await asyncpg.connect(world.dsn)
    transaction = other.transaction()
    await transaction.start()
    if numbered:
        await other.execute("create table of_the_application (id int)")
    for step in range(12):
        await world.emit()
        assert await stage.turn() == 0
        if step == 2:
            await other.execute("select aetherflow.emit('a.b', '{}')")
        await asyncio.sleep(0.03)  # beyond what a set-back clock is allowed for
    await transaction.commit()
    await other.close()
    assert stage._sinces == stage._bounds
    assert await stage.turn() == 0
    assert await world.value("select count(*) from aetherflow.outbox") == 0


async def test_looks_go_no_further_back_than_something_can_have_come(world: World) -> None:
    await world.endpoint()
    stage = fanout(world, [])
    for _ in range(3):
        await world.emit()
        assert await stage.turn() == 0
    await stage.turn()
    now = await world.value("select clock_timestamp()")
    assert {now - it < timedelta(seconds=2) for it in stage._sinces.values()} == {True}


async def test_what_another_hand_has_written_is_found_by_a_look_at_everything(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.endpoint()
    monkeypatch.setattr(fanout_module, "WHOLE_LOOK_SECONDS", 1e6)
    stage = fanout(world, [])
    await world.emit()
    assert await stage.turn() == 0
    await stage.turn()
    left = "select count(*) from aetherflow.outbox"
    await world.emit()
    await world.connection.execute("update aetherflow.outbox set due_at = '2020-01-01'")
    await stage.turn()
    assert await world.value(left) == 1
    stage._whole_look_at = 0.0
    assert await stage.turn() == 0
    assert await world.value(left) == 0


async def test_a_look_at_everything_that_fails_is_not_made_again_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it takes longer than a statement may, nothing would be fanned out any more."""
    await world.endpoint()
    stage = fanout(world, [])
    await world.emit()
    assert await stage.turn() == 0
    really = stage._database.rows

    async def rows(statement: str, *values: Any) -> Any:
        if statement == "find_events" and fanout_module.EVER in values[1]:
            raise DatabaseUnavailable("Postgres did not answer in time")
        return await really(statement, *values)

    monkeypatch.setattr(stage._database, "rows", rows)
    stage._whole_look_at = 0.0
    with pytest.raises(DatabaseUnavailable):
        await stage.turn()
    await world.emit()
    assert await stage.turn() == 0
    assert await world.value("select count(*) from aetherflow.outbox") == 0


async def test_looks_become_short_where_what_may_have_come_is_far(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They find what comes a little late, and one that goes all the way finds the rest."""
    await world.endpoint()
    # As if a transaction had been going on for long, and to look behind it took long.
    monkeypatch.setattr(fanout_module, "QUICK_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fanout_module, "LOOKS_KNOWN", 1)
    monkeypatch.setattr(fanout_module, "LONG_LOOK_PAUSES", 1e6)
    monkeypatch.setattr(fanout_module, "WHOLE_LOOK_SECONDS", 1e6)
    stage = fanout(world, [])
    other = await asyncpg.connect(world.dsn)
    transaction = other.transaction()
    await transaction.start()
    very_late = await other.fetchval("select aetherflow.emit('a.b', '{}')")
    for pause_seconds in (0, 1.2, 0):  # LATE_SECONDS, and a bit
        await asyncio.sleep(pause_seconds)
        await world.emit()
        assert await stage.turn() == 0
    assert stage._is_slow()
    await transaction.commit()
    await other.close()
    while await stage.turn() == 0:
        pass
    left = "select event_id from aetherflow.outbox"
    assert [row["event_id"] for row in await world.rows(left)] == [very_late]
    stage._long_look_at = 0.0
    while await stage.turn() == 0:
        pass
    assert await world.rows(left) == []
