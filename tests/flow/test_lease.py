"""Lease alone: what is taken, by whom, and what becomes of it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pytest

from aetherflow_hooks.config import Settings
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.flow.lease import Lease
from aetherflow_hooks.flow.versions import Versions
from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import Endpoint, EndpointState, Leased, Wanted
from aetherflow_hooks.rules.lane import EVER_SECONDS
from aetherflow_hooks.rules.sealing import Keyring
from tests.conftest import LONG_AGO, World


class Holder:
    """Something that leases in place of pace."""

    def __init__(self, world: World, settings: Settings | None = None) -> None:
        self.wanted: list[Wanted] = []
        self.open: list[tuple[Endpoint, int]] = []
        self.endpoints: dict[str, Endpoint] = {}
        self.leased: list[Leased] = []
        self.back: list[list[Wanted]] = []
        self.late: set[str] = set()
        self.lease = Lease(
            world.database,
            settings or world.settings(),
            wanted=lambda: self.wanted,
            may_wait=lambda _: not self.open,
            open_rooms=lambda _: self.open,
            known=self.endpoints.get,
            keyring=lambda: Keyring({}),
            versions=Versions(world.database).fetch,
            on_late=lambda ids, _: self.late.update(ids),
            hand_on=self.leased.append,
            hand_back=self.back.append,
        )

    async def take(self, room: int, *endpoint_ids: str) -> Leased:
        """Take up to `room` deliveries of each endpoint."""
        self.wanted = [
            Wanted(int(endpoint_id[-3:], 16) % 16, {endpoint_id: room}, [EVER_SECONDS])
            for endpoint_id in endpoint_ids
        ]
        assert await self.lease.turn() == 0
        return self.leased[-1]


async def deliveries(world: World, count: int) -> str:
    """Give an endpoint that many due deliveries; give its id."""
    endpoint = await world.endpoint()
    await world.value(
        "select count(aetherflow.emit('a.b', '{\"n\":' || n || '}')) from generate_series(1, $1) n",
        count,
    )
    for shard in range(16):
        await world.database.rows("fanout_events", shard, 1000, 1000, "{}", 0, False, LONG_AGO)
    return str(endpoint["id"])


async def test_no_more_than_there_is_room_for_and_the_oldest_first(world: World) -> None:
    endpoint_id = await deliveries(world, 5)
    leased = await Holder(world).take(3, endpoint_id)
    events = [row["id"] for row in await world.rows("select id from aetherflow.events order by id")]
    assert [delivery.event_id for delivery, _ in leased.work] == events[:3]
    assert [event.id for _, event in leased.work if event] == events[:3]
    assert {delivery.attempt for delivery, _ in leased.work} == {1}
    assert leased.endpoints[endpoint_id].max_in_flight == 20  # the setting's default
    left = await world.value(
        "select count(*) from aetherflow.deliveries where leased_until < now()"
    )
    assert left == 2


async def test_versions_for_which_there_is_no_time_are_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint_id = await deliveries(world, 3)
    await world.connection.execute("update aetherflow.endpoints set payload_version = 'v'")
    await world.connection.execute(
        "insert into aetherflow.payload_versions (type, version, expression) values ('a.b', 'v',"
        " $$case data->>'n' when '2' then jsonb_object(array['x', factorial(30000)::text])"
        " else data end$$)"
    )
    monkeypatch.setattr("aetherflow_hooks.flow.versions.TURN_SECONDS", 0)
    holder = Holder(world)
    assert (await holder.take(3, endpoint_id)).work == []
    assert holder.late == {endpoint_id}
    waiting = (
        "select count(*) from aetherflow.deliveries where leased_until < now() and attempt = 0"
    )
    assert await world.value(waiting) == 3
    monkeypatch.setattr("aetherflow_hooks.flow.versions.TURN_SECONDS", 60)
    work = (await holder.take(3, endpoint_id)).work
    events = [event for _, event in work if event]
    assert [event.body.partition(b'"data":')[2] for event in events] == [
        b'{"n": 1}}',
        b"",
        b'{"n": 3}}',
    ]
    assert ["took over" in event.unmade for event in events] == [False, True, False]
    assert {event.type for event in events} == {"a.b"}


async def test_two_never_hold_the_same_delivery(world: World) -> None:
    endpoint_id = await deliveries(world, 200)
    holders = [Holder(world) for _ in range(4)]
    taken = await asyncio.gather(*(holder.take(50, endpoint_id) for holder in holders))
    ids = [delivery.id for leased in taken for delivery, _ in leased.work]
    again = [delivery.id for delivery, _ in (await holders[0].take(200, endpoint_id)).work]
    assert len(set(ids + again)) == len(ids + again) == 200


async def test_a_lease_that_has_ended_is_taken_again_with_the_next_attempt(world: World) -> None:
    endpoint_id = await deliveries(world, 1)
    holder = Holder(world)
    first = (await holder.take(1, endpoint_id)).work
    assert (await holder.take(1, endpoint_id)).work == []
    await world.connection.execute(
        "update aetherflow.deliveries set leased_until = now() - '1 s'::interval"
    )
    second = (await holder.take(1, endpoint_id)).work
    assert [first[0][0].attempt, second[0][0].attempt] == [1, 2]
    assert first[0][0].token != second[0][0].token


async def test_what_is_given_back_is_as_it_was(world: World) -> None:
    endpoint_id = await deliveries(world, 2)
    before = await world.rows("select * from aetherflow.deliveries order by event_id")
    holder = Holder(world)
    work = (await holder.take(2, endpoint_id)).work
    await holder.lease.give_back([delivery for delivery, _ in work])
    assert await world.rows("select * from aetherflow.deliveries order by event_id") == before


async def test_giving_back_a_lost_lease_changes_nothing(world: World) -> None:
    endpoint_id = await deliveries(world, 1)
    loser, winner = Holder(world), Holder(world)
    lost = (await loser.take(1, endpoint_id)).work[0][0]
    await world.connection.execute(
        "update aetherflow.deliveries set leased_until = now() - '1 s'::interval"
    )
    await winner.take(1, endpoint_id)
    before = await world.rows("select * from aetherflow.deliveries")
    await loser.lease.give_back([lost])
    assert await world.rows("select * from aetherflow.deliveries") == before


@pytest.mark.parametrize("state", [EndpointState.PAUSED, EndpointState.DISABLED])
async def test_nothing_is_taken_for_an_endpoint_that_is_not_active(
    world: World, state: EndpointState
) -> None:
    endpoint_id = await deliveries(world, 1)
    await set_endpoint_state(world.database, endpoint_id, state)
    assert (await Holder(world).take(1, endpoint_id)).work == []


async def test_a_changed_endpoint_comes_along_once(world: World) -> None:
    endpoint_id = await deliveries(world, 3)
    holder = Holder(world)
    holder.endpoints |= (await holder.take(1, endpoint_id)).endpoints
    assert (await holder.take(1, endpoint_id)).endpoints == {}
    await world.connection.execute(
        "update aetherflow.endpoints set max_in_flight = 7, version = version + 1"
    )
    changed = (await holder.take(1, endpoint_id)).endpoints
    assert changed[endpoint_id].max_in_flight == 7


async def test_an_event_that_is_no_longer_kept_comes_as_none(world: World) -> None:
    endpoint_id = await deliveries(world, 1)
    await world.connection.execute("delete from aetherflow.events")
    assert [event for _, event in (await Holder(world).take(1, endpoint_id)).work] == [None]


async def test_what_may_have_been_taken_by_a_broken_statement_is_given_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the lease was committed and before we heard of it."""
    endpoint_id = await deliveries(world, 3)
    holder = Holder(world)
    rows = world.database.rows_of_each

    async def broken(statement: str, each: Sequence[Sequence[Any]]) -> object:
        result = await rows(statement, each)
        if statement == "lease_deliveries":
            raise DatabaseUnavailable("lost")
        return result

    monkeypatch.setattr(world.database, "rows_of_each", broken)
    with pytest.raises(DatabaseUnavailable):
        await holder.take(2, endpoint_id)
    assert holder.back == [holder.wanted]
    leased = "select count(*) from aetherflow.deliveries where lease_token <> 0"
    assert await world.value(leased) == 2
    monkeypatch.undo()
    assert len((await holder.take(3, endpoint_id)).work) == 3
    assert await world.value("select max(attempt) from aetherflow.deliveries") == 1


async def test_an_endpoint_with_an_order_delays_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever becomes of its statements: only its own part of what was wanted is given back."""
    plain = await deliveries(world, 2)
    holder = Holder(world)
    ordered = Wanted(0, {"ep_other": 1}, [EVER_SECONDS], is_ordered=True)
    holder.wanted = [Wanted(int(plain[-3:], 16) % 16, {plain: 5}, [EVER_SECONDS]), ordered]
    rows = world.database.rows
    handed_on: list[int] = []

    async def broken(statement: str, *values: object) -> object:
        if statement == "lease_ordered":
            handed_on.extend(len(leased.work) for leased in holder.leased)
            raise DatabaseUnavailable("lost")
        return await rows(statement, *values)

    monkeypatch.setattr(world.database, "rows", broken)
    with pytest.raises(DatabaseUnavailable):
        await holder.lease.turn()
    assert handed_on == [2]
    assert holder.back == [[ordered]]


async def test_leases_of_several_shards_are_taken_all_or_none(world: World) -> None:
    """They are one round trip, and one transaction."""
    ids = {int(id_[-3:], 16) % 16: id_ for id_ in [await deliveries(world, 1) for _ in range(8)]}
    assert len(ids) > 1
    asked = [
        (shard, [id_], [5], [EVER_SECONDS], timeout_seconds, 20.0, 7)
        for timeout_seconds in (10.0, -1e300)  # of the second no time can be made
        for shard, id_ in ids.items()
    ]
    with pytest.raises(Exception, match="interval out of range"):
        await world.database.rows_of_each("lease_deliveries", asked)
    leased = await Holder(world).take(5, *ids.values())
    assert {delivery.endpoint_id for delivery, _ in leased.work} == set(ids.values())
    assert {delivery.attempt for delivery, _ in leased.work} == {1}


async def test_what_cannot_be_read_is_given_back_and_costs_no_attempt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect between the lease and the sending: the deliveries do not run out of attempts."""
    endpoint_id = await deliveries(world, 2)
    holder = Holder(world)
    rows = world.database.rows

    async def broken(statement: str, *values: object) -> object:
        if statement == "load_events":
            raise RuntimeError("a defect")
        return await rows(statement, *values)

    monkeypatch.setattr(world.database, "rows", broken)
    for _ in range(5):
        with pytest.raises(RuntimeError):
            await holder.take(2, endpoint_id)
    monkeypatch.undo()
    work = (await holder.take(2, endpoint_id)).work
    assert [delivery.attempt for delivery, _ in work] == [1, 1]


async def test_what_fan_out_has_leased_is_handed_on_with_its_events(world: World) -> None:
    holder = Holder(world)
    endpoint_id = await deliveries(world, 3)
    leased = await holder.take(1, endpoint_id)  # to know the endpoint
    holder.endpoints.update(leased.endpoints)
    holder.open = [(leased.endpoints[endpoint_id], 5)]
    offer = holder.lease.offer()
    assert offer is not None
    assert orjson.loads(offer.rooms) == {f"{endpoint_id}/1": [5, 30.0]}
    other = holder.lease.offer()
    assert other is not None
    assert other.token != offer.token
    await world.emit("a.b", '{"n": 4}')
    (shard,) = await world.connection.fetchrow("select shard from aetherflow.outbox")
    rows = await world.database.rows(
        "fanout_events", shard, 9, 9, offer.rooms, offer.token, False, LONG_AGO
    )
    taken, *rows = rows
    assert len(rows) == 2  # the delivery and the event
    holder.lease.adopt(offer, shard, rows, taken["leased_unix_us"], asked_at=1.0, others=1)
    ((delivery, event),) = holder.leased[-1].work
    assert holder.leased[-1].wanted is None
    assert (delivery.endpoint_id, delivery.attempt, delivery.token) == (endpoint_id, 1, offer.token)
    assert event is not None
    assert event.id == delivery.event_id == rows[0]["event_id"]
    assert b'"data":{"n": 4}' in event.body
    await world.connection.execute("delete from aetherflow.events where id = $1", event.id)
    await world.connection.execute("update aetherflow.deliveries set leased_until = '-infinity'")
    again = {
        delivery.event_id: event for delivery, event in (await holder.take(9, endpoint_id)).work
    }
    assert again[event.id] == event  # kept, as others may have it too


async def test_offers_to_many_are_few_while_hardly_any_of_them_is_taken_up(world: World) -> None:
    holder = Holder(world)
    endpoint_id = await deliveries(world, 1)
    (endpoint,) = (await holder.take(1, endpoint_id)).endpoints.values()
    holder.open = [(replace(endpoint, id=f"ep_{number}"), 1) for number in range(200)]

    def made(*, leased: bool) -> bool:
        """Tell whether a statement that made one delivery had an offer."""
        offer = holder.lease.offer()
        assert offer is not None
        row = (None, None, None, None, 0, endpoint_id, "evt_1", 0.0, None, None, None, None)
        rows = [row] if leased else []
        holder.lease.adopt(offer, 0, rows, 0, asked_at=1.0, others=not leased)
        return bool(offer.wanted)

    assert all(made(leased=True) for _ in range(20))
    unused = [made(leased=False) for _ in range(100)]
    assert all(unused[:10])
    assert 0 < sum(unused[50:]) < 10
    used = [made(leased=True) for _ in range(100)]
    assert all(used[50:])


async def test_what_an_engine_that_sleeps_will_offer_is_at_hand(world: World) -> None:
    """Working it out when the event is there would be a tenth of the time to its receiver."""
    holder = Holder(world)
    endpoint_id = await deliveries(world, 2)
    (endpoint,) = (await holder.take(1, endpoint_id)).endpoints.values()

    def offered(room: int, *, seconds_later: float) -> int:
        """Tell what is offered of so much room, and after so many seconds."""
        holder.lease._offered_at -= seconds_later
        holder.open = [(endpoint, room)]
        offer = holder.lease.offer()
        assert offer is not None
        holder.lease.doubt(offer)
        return offer.wanted[0].rooms[endpoint_id]

    holder.open = [(endpoint, 1)]
    holder.lease.prepare()
    assert offered(2, seconds_later=1.0) == 1
    assert offered(3, seconds_later=5.0) == 3  # but not for ever
    holder.lease._offered_at -= 1.0
    holder.open = [(endpoint, 4)]
    holder.lease.prepare()  # which each look does
    assert offered(5, seconds_later=1.0) == 4
    await holder.take(1, endpoint_id)  # now less may be left
    assert offered(6, seconds_later=1.0) == 6


async def test_who_had_older_work_is_offered_something_as_soon_as_that_was_waited_for(
    world: World,
) -> None:
    """Else their new work is older work again by then, and so on without end."""
    holder = Holder(world)
    endpoint_id = await deliveries(world, 1)
    (endpoint,) = (await holder.take(1, endpoint_id)).endpoints.values()
    other = replace(endpoint, id="ep_000000000001")
    holder.open = [(other, 1)]
    assert endpoint_id not in offered_rooms(holder)
    holder.open = []
    assert holder.lease.offer() is None
    holder.open = [(other, 1), (endpoint, 1)]
    assert endpoint_id in offered_rooms(holder)  # within the time for which an offer holds


def offered_rooms(holder: Holder) -> str:
    """Give the rooms of an offer, of which nothing is taken."""
    offer = holder.lease.offer()
    assert offer is not None
    holder.lease.adopt(offer, 0, [], 0, asked_at=1.0, others=0)
    return offer.rooms


async def test_leases_of_a_fan_out_in_doubt_are_ended(world: World) -> None:
    """The connection may be lost when the statement is done, and before we learn of it."""
    holder = Holder(world)
    endpoint_id = await deliveries(world, 1)
    leased = await holder.take(1, endpoint_id)
    holder.open = [(leased.endpoints[endpoint_id], 5)]
    offer = holder.lease.offer()
    assert offer is not None
    await world.emit("a.b", '{"n": 4}')
    (shard,) = await world.connection.fetchrow("select shard from aetherflow.outbox")
    await world.database.rows(
        "fanout_events", shard, 9, 9, offer.rooms, offer.token, False, LONG_AGO
    )
    holder.lease.doubt(offer)
    assert holder.lease.is_in_doubt
    holder.wanted = []
    await holder.lease.turn()
    assert not holder.lease.is_in_doubt
    mine = "select count(*) from aetherflow.deliveries where lease_token = $1"
    assert await world.value(mine, offer.token) == 0
    free = "select count(*) from aetherflow.deliveries where lease_token = 0 and attempt = 0"
    assert await world.value(free) == 1


async def test_nothing_is_offered_where_nothing_has_room(world: World) -> None:
    assert Holder(world).lease.offer() is None


async def test_how_endpoints_did_last_is_read_with_them(world: World) -> None:
    """An engine that has just started knows from it whom to trust."""
    ids = [(await world.endpoint(f"/{number}"))["id"] for number in range(4)]
    await world.connection.executemany(
        "insert into aetherflow.attempts (shard, attempt, endpoint_id, event_id, started_at,"
        " duration_ms, outcome, verdict) values (aetherflow.shard_of($1), 1, $1, 'evt_0',"
        " now() - make_interval(hours => $2), 5, $3, 'retry')",
        [
            (ids[0], 1, "answered"), (ids[0], 2, "timed_out"),
            (ids[1], 1, "not_reached"), (ids[1], 2, "answered"),
        ],
    )  # fmt: skip
    await set_endpoint_state(world.database, ids[3], EndpointState.PAUSED)
    loaded = await Holder(world).lease.load(ids)
    assert {it: endpoint.has_answered for it, endpoint in loaded.items()} == {
        ids[0]: True,
        ids[1]: False,
        ids[2]: None,
    }
