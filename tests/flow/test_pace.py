"""Pace alone: no database, no network; who goes next, and how many at once."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from aetherflow_hooks.config import LeaseSettings, PaceSettings
from aetherflow_hooks.flow.pace import Pace
from aetherflow_hooks.model import (
    Answered,
    Blocked,
    Delivery,
    Endpoint,
    Event,
    Leased,
    NotReached,
    TimedOut,
    rooms_of,
)
from aetherflow_hooks.rules.bucket import Bucket
from aetherflow_hooks.rules.lane import EVER_SECONDS, LATE_SECONDS, Lane, Reply, reply_of
from aetherflow_hooks.rules.turns import REST_SECONDS


class Bench:
    """A pace whose POSTs end when the test says so."""

    def __init__(self, slots: int = 64, *, waits: bool = False) -> None:
        self.held = set(range(16))
        self.under_way: list[tuple[str, Callable[[Reply], None]]] = []
        self.most: Counter[str] = Counter()
        self.back: list[Delivery] = []
        self.pace = Pace(
            PaceSettings(slots=slots),
            LeaseSettings(),
            send=self._send,
            break_off=self._break_off,
            holds=lambda shard, _: shard in self.held,
            give_back=self.back.extend,
        )
        if waits:
            self.pace.wait()

    def _send(
        self, endpoint: Endpoint, _delivery: Delivery, _event: Event, done: Callable[[Reply], None]
    ) -> None:
        self.under_way.append((endpoint.id, done))
        open_now = sum(1 for name, _ in self.under_way if name == endpoint.id)
        self.most[endpoint.id] = max(self.most[endpoint.id], open_now)

    def _break_off(self) -> None:
        broken_off, self.under_way = self.under_way, []
        for _, done in broken_off:
            done(Reply.SILENT)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def answer_all(self, reply: Reply = Reply.WELL) -> int:
        """Let everything that is under way end; tell how much that was."""
        await self.settle()
        ending, self.under_way = self.under_way, []
        for _, done in ending:
            done(reply)
        await self.settle()
        return len(ending)

    def lease_all(self, has: Counter[str] | None = None) -> int:
        """Give pace whatever it wants, as far as a database `has` it; tell how much."""
        count = 0
        while wanted := self.pace.wanted():
            rooms = Counter({id_: room for it in wanted for id_, room in it.rooms.items()})
            if has is not None:
                rooms &= has
                has -= rooms
            shards = {id_: it.shard for it in wanted for id_ in it.rooms}
            work = [
                (
                    delivery(shards[endpoint_id], endpoint_id, number),
                    Event(f"evt_{number:024x}", "a", b"{}"),
                )
                for endpoint_id, room in rooms.items()
                for number in range(room)
            ]
            count += len(work)
            self.pace.take(Leased(wanted, list(work), {}))
        return count


def delivery(shard: int, endpoint_id: str, number: int) -> Delivery:
    return Delivery(
        shard=shard,
        endpoint_id=endpoint_id,
        event_id=f"evt_{number:024x}",
        event_shard=0,
        attempt=1,
        token=1,
        leased_unix_us=0,
        leased_at_monotonic=asyncio.get_running_loop().time(),
        expired=False,
    )


def endpoint(name: str, shard: int = 0, **given: object) -> Endpoint:
    values: dict[str, object] = {
        "id": name, "tenant": "", "shard": shard, "version": 1, "url": "", "secrets": (),
        "rate_per_second": None, "burst": 1, "max_in_flight": 20, "timeout_seconds": 10.0,
        "retry_schedule_seconds": (), **given,
    }  # fmt: skip
    return Endpoint(**values)  # type: ignore[arg-type]


async def test_an_endpoint_starts_with_one_and_earns_more() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    seen = []
    for _ in range(5):
        bench.lease_all()
        seen.append(await bench.answer_all())
    assert seen[0] == 1
    assert seen == sorted(seen)
    assert max(seen) == 20 == bench.most["a"]
    await bench.pace.drain(0)


async def test_silence_takes_away_what_was_earned_and_then_gives_a_rest() -> None:
    bench = Bench()
    some = endpoint("a")
    bench.pace.due(some)
    for _ in range(6):
        bench.lease_all()
        await bench.answer_all()
    seen = []
    for _ in range(3):
        bench.lease_all()
        seen.append(await bench.answer_all(Reply.SILENT))
    assert seen[0] == 20  # which failed together and so are one failure
    assert seen == sorted(seen, reverse=True)
    assert bench.lease_all() == 0
    assert bench.pace.leased == 0
    lane = bench.pace._lanes["a"]
    assert 0.5 < lane.paused_until - time.monotonic() <= 1.0
    lane.paused_until = 0.0
    bench.pace.due(some)
    bench.lease_all()
    assert await bench.answer_all(Reply.SILENT) == 1
    assert 1.5 < lane.paused_until - time.monotonic() <= 2.0
    bench.pace.due(endpoint("a", version=2))  # its URL may be another now
    bench.lease_all()
    assert await bench.answer_all() == 1
    bench.lease_all()
    assert await bench.answer_all() > 1
    await bench.pace.drain(0)


async def test_case_39_one_that_says_that_it_is_burdened_gets_less_then_rests_then_grows() -> None:
    """As a breaker: it opens, lets one through, and what waited goes in no burst."""
    bench = Bench()
    some = endpoint("a")
    bench.pace.due(some)
    for _ in range(6):
        bench.lease_all()
        await bench.answer_all()
    seen = []
    for _ in range(10):
        bench.lease_all()
        seen.append(await bench.answer_all(Reply.BURDENED))
    assert seen[0] == 20
    assert seen[-1] == 1
    assert seen == sorted(seen, reverse=True)
    assert bench.lease_all() == 0  # open
    lane = bench.pace._lanes["a"]
    assert 0.5 < lane.paused_until - time.monotonic() <= 1.0
    lane.paused_until = 0.0
    bench.pace.due(some)
    bench.lease_all()
    assert await bench.answer_all() == 1  # the probe
    grown = []
    for _ in range(4):
        bench.lease_all()
        grown.append(await bench.answer_all())
    assert grown == [2, 4, 8, 16]
    await bench.pace.drain(0)


def test_what_an_outcome_tells_of_an_endpoint() -> None:
    burdened = [429, 500, 503, 599]
    well = [200, 204, 301, 400, 404, 408, 410]
    for reply, statuses in ((Reply.BURDENED, burdened), (Reply.WELL, well)):
        assert {reply_of(Answered(status, None, b"")) for status in statuses} == {reply}
    for outcome in (TimedOut(1.0), NotReached("reset"), Blocked("closed", "10/8")):
        assert reply_of(outcome) is Reply.SILENT


async def test_endpoints_that_never_answer_leave_most_slots_to_others() -> None:
    bench = Bench(slots=16)
    for number in range(50):
        bench.pace.due(endpoint(f"dead_{number}"))
    bench.lease_all()
    await bench.settle()
    assert len(bench.under_way) == 4 == bench.pace.leased
    bench.pace.due(endpoint("new"))
    for _ in range(2):
        _, done = bench.under_way.pop(0)
        done(Reply.SILENT)
    await bench.settle()
    bench.lease_all()
    await bench.settle()
    assert "new" in {name for name, _ in bench.under_way}  # before 46 that have waited longer
    await bench.pace.drain(0)


async def test_every_endpoint_gets_its_trial_in_the_end() -> None:
    bench = Bench(slots=16)
    for number in range(50):
        bench.pace.due(endpoint(f"dead_{number}", shard=number % 16))
    tried: set[str] = set()
    for _ in range(50):
        bench.lease_all()
        await bench.settle()
        tried |= {name for name, _ in bench.under_way}
        await bench.answer_all(Reply.SILENT)
    assert len(tried) == 50
    await bench.pace.drain(0)


async def test_those_that_time_out_together_are_not_followed_by_as_many_at_once() -> None:
    bench = Bench(slots=16)
    for number in range(50):
        bench.pace.due(endpoint(f"dead_{number}", has_answered=False))
    bench.lease_all()
    began = time.monotonic()
    assert await bench.answer_all(Reply.SILENT) == 4
    more = asyncio.Event()
    bench.pace.on_room = more.set
    leased = 0
    while leased < 4:
        await asyncio.wait_for(more.wait(), 10)
        more.clear()
        leased += bench.lease_all()
        assert time.monotonic() - began > leased * REST_SECONDS - 0.002  # as timers are coarse
    # One that answers again gives its place at once: so those of an outage are back soon.
    assert await bench.answer_all() == 4
    assert bench.lease_all() >= 4
    await bench.pace.drain(0)


async def test_leases_for_new_endpoints_follow_the_answers_of_those_before() -> None:
    """So many come with one statement; but no more of them than before have a POST under way."""
    bench = Bench(slots=16)
    has = Counter(f"new_{number}" for number in range(200))
    for name in list(has):
        bench.pace.due(endpoint(name))
    assert bench.lease_all(has) == 4
    served = await bench.answer_all()
    assert bench.lease_all(has) == 196
    await bench.settle()
    while served < 100:
        assert len(bench.under_way) == 4
        served += await bench.answer_all()
    # Where they begin to hang, what has waited for long goes back.
    lanes = bench.pace._lanes
    for name, _ in bench.under_way:
        bench.pace._trials.end(lanes[name], 0.0, 60.0)
        bench.pace._trials.start(lanes[name])
    for lane in lanes.values():
        lane.waiting = [
            (waiting._replace(leased_at_monotonic=waiting.leased_at_monotonic - 11), event)
            for waiting, event in lane.waiting
        ]
    served += await bench.answer_all(Reply.SILENT)
    assert (len(bench.back), bench.pace.leased) == (200 - served, 0)
    has.update(waiting.endpoint_id for waiting in bench.back)
    for name in has:
        bench.pace.due(lanes[name].endpoint)
    assert bench.lease_all(has) == 4
    await bench.pace.drain(0)


async def test_a_shard_that_is_let_go_gives_its_trials_to_others() -> None:
    bench = Bench(slots=16, waits=True)
    for number in range(8):
        bench.pace.due(endpoint(f"a_{number}", shard=1))
    bench.lease_all()
    bench.pace.due(endpoint("b", shard=2))
    assert bench.lease_all() == 0
    bench.held.discard(1)
    bench.pace.drop([1])
    assert bench.lease_all() == 1
    await bench.pace.drain(0)


async def test_slots_are_never_exceeded_and_every_endpoint_gets_some() -> None:
    bench = Bench(slots=16)
    for number in range(8):
        bench.pace.due(endpoint(f"ep_{number}", shard=number))
    served: Counter[str] = Counter()
    until = time.monotonic() + 0.5
    while time.monotonic() < until:  # leases are taken some 20 ms ahead
        bench.lease_all()
        await bench.settle()
        assert len(bench.under_way) <= 16
        served.update(name for name, _ in bench.under_way)
        await bench.answer_all()
    assert len(served) == 8
    assert min(served.values()) > 0.5 * max(served.values())
    await bench.pace.drain(0)


async def test_nothing_starts_while_results_have_no_room() -> None:
    bench = Bench(waits=True)
    bench.pace.due(endpoint("a"))
    bench.lease_all()
    assert await bench.answer_all() == 0
    bench.pace.resume()
    assert await bench.answer_all() > 0
    await bench.pace.drain(0)


async def test_room_is_offered_to_endpoints_that_answer_and_have_nothing_older() -> None:
    bench = Bench()
    quick = [endpoint(f"quick_{number}") for number in range(8)]
    limited, late = endpoint("limited", rate_per_second=9.0), endpoint("late")
    for some in (*quick, limited, late):
        bench.pace.due(some)
    assert bench.pace.may_wait(0)  # they have older work
    bench.lease_all(Counter(some.id for some in (*quick, limited, late)))
    assert not bench.pace.may_wait(0)
    assert bench.pace.open_rooms(0) == []  # nobody knows yet that they answer
    await bench.answer_all()
    bench.lease_all(Counter())
    bench.pace.due(late)  # it has work, which must not be overtaken
    assert not bench.pace.may_wait(0)  # for a little that is older nobody is kept idle
    rooms = bench.pace.open_rooms(0)
    assert [offered for offered, _ in rooms] == quick
    assert min(room for _, room in rooms) > 0
    assert bench.pace.may_wait(2)  # what is offered already may all be taken
    assert not bench.pace.open_rooms(2)
    bench.held.clear()
    assert not bench.pace.open_rooms(0)
    await bench.pace.drain(0)


async def test_what_fan_out_has_leased_is_sent_or_given_back() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    bench.pace.due(endpoint("b"))
    bench.lease_all(Counter("ab"))
    await bench.answer_all()
    bench.lease_all(Counter())
    work = [
        (delivery(0, name, number), Event(f"evt_{number:024x}", "a", b"{}"))
        for number, name in enumerate(["a", "a", "b", "gone"])
    ]
    bench.pace.shut("b")
    bench.pace.take(Leased(None, list(work), {}))
    assert bench.pace.leased == 2
    assert {it.endpoint_id for it in bench.back} == {"b", "gone"}
    assert await bench.answer_all() == 2
    assert bench.pace.leased == 0
    assert bench.pace.wanted() == []  # nothing says that there is more
    await bench.pace.drain(0)


async def test_a_shard_that_is_let_go_gives_back_what_waits_and_starts_nothing() -> None:
    bench = Bench(waits=True)
    bench.pace.due(endpoint("a", shard=3))
    leased = bench.lease_all()
    bench.held.discard(3)
    bench.pace.drop([3])
    assert len(bench.back) == leased > 0
    assert not bench.pace.is_busy_with(3)
    bench.pace.resume()
    assert await bench.answer_all() == 0
    assert bench.pace.known("a") is None
    assert bench.pace.leased == 0


async def test_work_that_comes_while_it_is_being_asked_for_is_not_forgotten() -> None:
    bench = Bench()
    some = endpoint("a")
    bench.pace.due(some)
    wanted = bench.pace.wanted()
    assert wanted
    bench.pace.due(some)  # a hint, during the statement
    bench.pace.take(Leased(wanted, [], {}))  # which had not seen it yet
    assert bench.pace.wanted()
    await bench.pace.drain(0)


async def proven(*endpoints: Endpoint) -> Bench:
    """Give a pace whose endpoints have answered quickly, and have no more work."""
    bench = Bench()
    for it in endpoints:
        bench.pace.due(it)
    bench.lease_all(Counter(it.id for it in endpoints))
    await bench.answer_all()
    bench.lease_all(Counter())
    return bench


async def test_endpoints_of_several_shards_are_asked_for_together() -> None:
    """One that could take a whole batch leaves room for the others that wait."""
    endpoints = [endpoint(f"ep_{number}", shard=number % 3) for number in range(6)]
    bench = await proven(*endpoints)
    bench.pace.due(endpoints[0])
    (alone,) = bench.pace.wanted()
    bench.pace.take(Leased([alone], [], {}))
    for it in endpoints:
        bench.pace.due(it)
    wanted = bench.pace.wanted()
    assert {it.shard: set(it.rooms) for it in wanted} == {
        0: {"ep_0", "ep_3"},
        1: {"ep_1", "ep_4"},
        2: {"ep_2", "ep_5"},
    }
    assert sum(rooms_of(wanted).values()) <= LeaseSettings().batch_max < 6 * alone.rooms["ep_0"]
    await bench.pace.drain(0)


async def test_of_many_endpoints_each_shard_has_its_turn() -> None:
    """And those of each can have as much: none gets only what the shard before has left."""
    bench = Bench()
    for number in range(3 * 100):
        bench.pace.due(endpoint(f"ep_{number}", shard=number % 3, has_answered=True))
    first, second = bench.pace.wanted(), bench.pace.wanted()
    assert [(it.shard, len(it.rooms)) for it in first + second] == [(0, 100), (1, 100)]
    assert set(rooms_of(first).values()) == set(rooms_of(second).values()) == {4}
    await bench.pace.drain(0)


async def test_a_shard_with_an_order_is_the_last_to_be_asked_for() -> None:
    """Its statements are many, and the next shard does not wait for them."""
    endpoints = [
        endpoint(f"ep_{number}", shard=number // 2, ordering="skip" if number in {2, 3} else None)
        for number in range(6)
    ]
    bench = Bench()
    for it in endpoints:
        bench.pace.due(it)
    first, second = bench.pace.wanted(), bench.pace.wanted()
    assert [(set(it.rooms), it.is_ordered) for it in first] == [
        ({"ep_0", "ep_1"}, False),
        ({"ep_2"}, True),
        ({"ep_3"}, True),
    ]
    assert [set(it.rooms) for it in second] == [{"ep_4", "ep_5"}]
    await bench.pace.drain(0)


async def test_an_endpoint_without_more_work_is_not_asked_for_again() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    assert bench.lease_all() == 1
    await bench.answer_all()
    assert bench.lease_all(Counter({"a": 2})) == 2
    await bench.answer_all()
    assert bench.pace.wanted() == []


async def test_each_statement_says_how_far_back_something_may_be_due() -> None:
    """Postgres may have to keep all that has left since."""
    bench = Bench()
    some = endpoint("a")

    def ask(has: int) -> float:
        """Lease what there is; tell how far back that went."""
        wanted = bench.pace.wanted()
        ((_, rooms, (since_seconds_ago,), _),) = wanted
        ((name, room),) = rooms.items()
        work = [
            (delivery(0, name, number), Event(f"evt_{number:024x}", "a", b"{}"))
            for number in range(min(has, room))
        ]
        bench.pace.take(Leased(wanted, list(work), {}))
        return since_seconds_ago

    bench.pace.due(some)
    assert ask(9) == EVER_SECONDS  # nobody knows yet
    await bench.answer_all()
    assert ask(1) == EVER_SECONDS  # there may be more
    await bench.answer_all()
    bench.pace.due(some)
    assert LATE_SECONDS <= ask(1) < LATE_SECONDS + 5
    bench.pace.due(some, -40.0)  # while others are sent
    await bench.answer_all()
    assert LATE_SECONDS + 40 <= ask(0) < LATE_SECONDS + 45
    bench.pace.due(some)
    wanted = bench.pace.wanted()
    assert wanted
    bench.pace.due(some, -30.0)  # while it is asked for
    bench.pace.take(Leased(wanted, [], {}))
    assert LATE_SECONDS + 30 <= ask(0) < LATE_SECONDS + 35
    await bench.pace.drain(0)


async def test_what_could_not_be_asked_for_is_wanted_again() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    wanted = bench.pace.wanted()
    assert wanted
    assert bench.pace.wanted() == []
    bench.pace.take_none(wanted)
    assert bench.pace.wanted() == wanted
    await bench.pace.drain(0)


async def test_an_endpoint_that_is_shut_starts_nothing_until_it_has_changed() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a", max_in_flight=1))
    bench.lease_all()
    await bench.settle()
    bench.pace.shut("a")
    await bench.answer_all()
    bench.pace.due(endpoint("a", max_in_flight=1))
    assert bench.pace.wanted() == []
    bench.pace.due(endpoint("a", max_in_flight=1, version=2))
    assert bench.pace.wanted()
    await bench.pace.drain(0)


async def test_an_endpoint_that_was_shut_for_nothing_is_opened_again() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    bench.pace.shut("a")
    wanted = bench.pace.wanted()  # it was ready before
    assert wanted
    bench.pace.take_none(wanted)
    assert bench.pace.wanted() == []
    bench.pace.open("a")
    assert bench.pace.wanted() == wanted
    await bench.pace.drain(0)


async def test_every_time_that_something_falls_due_is_remembered() -> None:
    """Asking for what is due now must not make the later times forgotten."""
    bench = Bench()
    some = endpoint("a")
    for in_seconds in (0.05, 0.15, 0.25):
        bench.pace.due(some, in_seconds)
    bench.pace.due(some)
    asked = 0
    loop = asyncio.get_running_loop()
    until = loop.time() + 0.5
    while loop.time() < until:
        wanted = bench.pace.wanted()
        if wanted:
            asked += 1
            bench.pace.take(Leased(wanted, [], {}))
        await asyncio.sleep(0.005)
    assert asked == 4
    await bench.pace.drain(0)


async def test_a_slow_endpoint_with_a_rate_gets_its_rate() -> None:
    """Answers that take long do not keep the next POST from going when its time has come."""
    bench = Bench()
    bench.pace.due(endpoint("a", rate_per_second=50.0, max_in_flight=20))
    loop = asyncio.get_running_loop()
    while len(bench.under_way) < 8:  # let it earn what it may have under way
        bench.lease_all()
        await bench.answer_all()
        bench.lease_all()
        await asyncio.sleep(0.1)
        bench.lease_all()
        await asyncio.sleep(0.1)
    await bench.answer_all()
    until, count = loop.time() + 0.2, 0
    while loop.time() < until:
        bench.lease_all()
        await asyncio.sleep(0.002)
        count = len(bench.under_way)
    assert count >= 8  # though not one was answered meanwhile
    await bench.pace.drain(0)


async def test_a_drain_breaks_off_what_does_not_end_and_gives_everything_back() -> None:
    bench = Bench()
    bench.pace.due(endpoint("a"))
    bench.lease_all()
    await bench.settle()
    under_way = len(bench.under_way)
    leased = bench.pace.leased
    await bench.pace.drain(0.01)
    assert len(bench.back) == leased - under_way  # who sends gives back what it broke off
    assert bench.pace.leased == 0
    assert bench.pace.wanted() == []


@pytest.mark.parametrize("rate", [200.0, 1000.0])
async def test_high_rates_hold_though_timers_are_coarse(rate: float) -> None:
    bench = Bench(slots=1000)
    bench.pace.due(endpoint("a", rate_per_second=rate, max_in_flight=1000))
    loop = asyncio.get_running_loop()
    began, count = loop.time(), 0
    while loop.time() - began < 0.5:
        bench.lease_all()
        count += await bench.answer_all()
        await asyncio.sleep(0.001)
    expected = rate * (loop.time() - began)
    assert 0.8 * expected <= count <= 1.1 * expected + 1 + rate * 0.02
    await bench.pace.drain(0)


async def test_what_a_high_rate_lets_go_starts_together() -> None:
    """Its timer is not set for each POST: at 500/s that cost more than the sending."""
    bench = Bench(slots=1000)
    limited = endpoint("a", rate_per_second=500.0, max_in_flight=10)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        began, rounds, count = loop.time(), 0, 0
        while loop.time() - began < 0.3:
            bench.pace.due(limited)
            bench.lease_all()
            started = await bench.answer_all()
            rounds += started > 0
            count += started
            await asyncio.sleep(0.0005)
        assert count > 0.8 * 500 * (loop.time() - began)
        assert rounds < count / 3
        await asyncio.sleep(0.1)  # now its bucket is full, and so are its leases
    await bench.pace.drain(0)


def test_other_defaults_do_not_make_an_endpoint_forget_how_it_did() -> None:
    lane = Lane(endpoint("ep_00000000000a"), bucket=Bucket(at=0.0))
    lane.failures, lane.paused_until, lane.is_shut = 7, 100.0, True
    lane.renew(replace(lane.endpoint, timeout_seconds=60.0))
    assert (lane.failures, lane.paused_until, lane.is_shut) == (7, 100.0, True)
    assert lane.endpoint.timeout_seconds == 60
    lane.renew(replace(lane.endpoint, version=lane.endpoint.version + 1))
    assert (lane.failures, lane.paused_until, lane.is_shut) == (0, 0.0, False)
