"""Tally alone: what was recorded is counted once, under its minute, whatever happens to a write."""

import asyncio
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.flow import tally as module
from aetherflow_hooks.flow.tally import Tally
from aetherflow_hooks.manage.numbers import endpoint_numbers
from aetherflow_hooks.model import (
    Answered,
    Attempt,
    Blocked,
    Delivered,
    Delivery,
    NotReached,
    Outcome,
    RetryIn,
    TimedOut,
    Verdict,
    unix_us_of,
)
from tests.conftest import World
from tests.flow.test_sweep import sweep

MINUTE = timedelta(minutes=1)
NOON = datetime.now(UTC).replace(minute=30, second=0, microsecond=0) - timedelta(hours=2)
FAILURES: dict[str, Outcome] = {
    "answered_429": Answered(429, None, b""),
    "answered_4xx": Answered(400, None, b""),
    "answered_5xx": Answered(503, None, b""),
    "answered_other": Answered(302, None, b""),
    "timed_out": TimedOut(10),
    "not_reached": NotReached("refused"),
    "blocked": Blocked("private", "10.0.0.1"),
}
_numbers = itertools.count()


def endpoint(n: int) -> str:
    return f"ep_{n:012x}"


def attempt(
    n: int = 1,
    outcome: Outcome | None = Answered(200, None, b""),  # noqa: B008  frozen
    *,
    at: datetime = NOON,
    ms: int = 40,
    tenant: str = "",
) -> Attempt:
    """Make an attempt of the endpoint `n`."""
    ok = isinstance(outcome, Answered) and outcome.status == 200
    verdict: Verdict = Delivered() if ok else RetryIn(60)
    event_id = f"evt_{next(_numbers):024x}"
    delivery = Delivery(n % 16, endpoint(n), event_id, 0, 1, 1, unix_us_of(at), 0, False)
    return Attempt(delivery, outcome, verdict, unix_us_of(at), ms, "a.b", tenant)


async def told(
    world: World, n: int | None = None, *, tenant: str | None = None
) -> dict[datetime, dict[str, Any]]:
    """Give the minutes around noon that have anything, of an endpoint, of a tenant or of all."""
    points = await endpoint_numbers(
        world.database,
        endpoint_id=None if n is None else endpoint(n),
        tenant=tenant,
        since=NOON - 30 * MINUTE,
        until=NOON + 90 * MINUTE,
    )
    return {it["starts_at"]: it for it in points if it["attempts"] or it["late"]}


async def attempts_of(world: World, n: int | None = None, *, tenant: str | None = None) -> int:
    found = await told(world, n, tenant=tenant)
    return sum(it["attempts"] for it in found.values())


class Broken:
    """Breaks writes of a database, before or after they are carried out."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.before = self.after = False
        self.rows = world.database.rows
        monkeypatch.setattr(world.database, "rows", self._run)

    async def _run(self, statement: str, *values: Any) -> Sequence[Any]:
        if self.before:
            raise DatabaseUnavailable("away")
        found = await self.rows(statement, *values)
        if self.after:
            raise DatabaseUnavailable("the answer was lost")
        return found


async def test_attempts_are_counted_for_the_endpoint_its_tenant_and_all(world: World) -> None:
    tally = Tally(world.database)
    tally.saw([attempt(1, tenant="acme"), attempt(2, tenant="acme"), attempt(3), attempt(3)])
    await tally.write_all()
    for n, count in ((1, 1), (2, 1), (3, 2)):
        assert await attempts_of(world, n) == count
    assert await attempts_of(world, tenant="acme") == 2
    assert await attempts_of(world, tenant="") == 2
    assert await attempts_of(world) == 4


async def test_an_attempt_is_counted_as_what_came_of_it(world: World) -> None:
    tally = Tally(world.database)
    tally.saw([attempt(1, outcome, ms=500) for outcome in FAILURES.values()])
    tally.saw([attempt(1, ms=40)] * 4)
    tally.saw([attempt(1, None)])  # nothing was sent
    await tally.write_all()
    (point,) = (await told(world, 1)).values()
    assert {kind: point[kind] for kind in FAILURES} == dict.fromkeys(FAILURES, 1)
    assert (point["attempts"], point["delivered"], point["late"]) == (11, 4, 0)
    assert point["success_rate"] == pytest.approx(4 / 11)
    # Of the nine that say how fast it answers, five took 500 ms.
    assert point["p50_ms"] == pytest.approx(500, rel=0.1)


async def test_the_minute_is_that_in_which_it_began(world: World) -> None:
    tally = Tally(world.database)
    moments = [NOON + timedelta(seconds=it) for it in (-0.001, 0, 59.999, 60, 59, 61, -1)]
    tally.saw([attempt(1, at=it) for it in moments])
    await tally.write_all()
    counted = {at: it["attempts"] for at, it in (await told(world, 1)).items()}
    assert counted == {NOON - MINUTE: 2, NOON: 3, NOON + MINUTE: 2}


async def test_one_that_ends_long_after_its_minute_is_added_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "OPEN_SECONDS", 0)
    tally = Tally(world.database)
    for minutes in (0, 1, 5, 0, 20, 0):
        tally.saw([attempt(1, at=NOON + minutes * MINUTE)])
        await tally.write_all()
    counted = {at: it["attempts"] for at, it in (await told(world, 1)).items()}
    assert counted == {NOON: 3, **{NOON + it * MINUTE: 1 for it in (1, 5, 20)}}
    assert {at: it["attempts"] for at, it in (await told(world)).items()} == counted
    assert tally._count == 2  # what is over and written was forgotten, and came again


async def test_late_ones_are_counted_as_that_and_nothing_else(world: World) -> None:
    tally = Tally(world.database)
    batch = [attempt(1, ms=9000), attempt(1, ms=9000), attempt(1, ms=40)]
    late = [(it.delivery.endpoint_id, it.delivery.event_id, 1) for it in batch[:2]]
    tally.saw(batch, late)
    await tally.write_all()
    (point,) = (await told(world, 1)).values()
    assert (point["attempts"], point["late"], point["success_rate"]) == (1, 2, 1.0)
    assert point["p99_ms"] == pytest.approx(40, rel=0.1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_write_that_failed_is_made_again_and_counts_once(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Whether it was carried out before the connection was lost, or not."""
    broken = Broken(world, monkeypatch)
    tally = Tally(world.database)
    for _ in range(3):
        tally.saw([attempt(1), attempt(2, tenant="acme")])
        setattr(broken, when, True)
        with pytest.raises(DatabaseUnavailable):
            await tally.write_all()
        tally.saw([attempt(1)])
        with pytest.raises(DatabaseUnavailable):
            await tally.write_all()
        setattr(broken, when, False)
    await tally.write_all()
    assert tally.waiting == 0
    assert await attempts_of(world, 1) == 6
    assert await attempts_of(world, 2) == await attempts_of(world, tenant="acme") == 3
    assert await attempts_of(world) == 9


async def test_a_write_that_is_carried_out_behind_a_later_one_changes_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(world, monkeypatch)
    tally = Tally(world.database)
    sent: list[tuple[Any, ...]] = []
    run = broken.rows

    async def noted(statement: str, *values: Any) -> Sequence[Any]:
        sent.append((statement, *values))
        return await run(statement, *values)

    broken.rows = noted
    tally.saw([attempt(1)])
    await tally.write_all()
    tally.saw([attempt(1)])
    await tally.write_all()
    first, _ = sent
    await run(*first)
    assert await attempts_of(world, 1) == await attempts_of(world) == 2


async def test_what_comes_during_a_write_is_written_by_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Broken(world, monkeypatch)
    tally = Tally(world.database)
    run = broken.rows

    async def interrupted(statement: str, *values: Any) -> Sequence[Any]:
        tally.saw([attempt(1), attempt(2)])
        broken.rows = run
        return await run(statement, *values)

    tally.saw([attempt(1)])
    broken.rows = interrupted
    await tally.write_all()
    assert [await attempts_of(world, n) for n in (1, 2, None)] == [2, 1, 3]


async def test_many_endpoints_are_written_a_part_at_a_time_the_oldest_first(world: World) -> None:
    tally = Tally(world.database)
    tally.saw([attempt(n, tenant=f"t{n % 3}") for n in range(2500)])
    left = []
    while tally.waiting:
        tally._next_at = 0
        await tally.turn()
        left.append(tally.waiting)
        assert await attempts_of(world, 0) == 1  # with the first
        assert await world.value("select count(*) from aetherflow.tallies") >= 2500 - left[-1]
    assert len(left) == math.ceil(2500 / (module.ROWS_MAX - 4))  # beside the sums
    assert await attempts_of(world) == 2500
    assert [await attempts_of(world, tenant=f"t{it}") for it in range(3)] == [834, 833, 833]


async def test_it_writes_once_a_second_and_sleeps_while_there_is_nothing(world: World) -> None:
    tally = Tally(world.database)
    assert await tally.turn() == module.IDLE_SECONDS
    tally.saw([attempt(1)])
    assert tally.wake.is_set()
    tally.wake.clear()
    assert await tally.turn() == module.EVERY_SECONDS
    tally.saw([attempt(1)])
    assert not tally.wake.is_set()  # it comes by itself
    assert 0 < await tally.turn() <= module.EVERY_SECONDS
    assert tally.waiting == 1


async def test_what_is_much_is_written_in_small_parts(world: World) -> None:
    """So that no delivery waits for Postgres, or for us, to be done with it."""
    tally = Tally(world.database)
    tally.saw([attempt(n) for n in range(300)])
    assert await tally.turn() == module.EVERY_SECONDS / 3
    assert await world.value("select count(*) from aetherflow.tallies") == module.ROWS_MAX
    tally.saw([attempt(n) for n in range(5000)])
    tally._next_at = 0
    assert await tally.turn() == module.EVERY_SECONDS / module.WRITES_MAX


async def test_what_it_keeps_is_bounded_and_nothing_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MINUTES_MAX", 20)
    broken = Broken(world, monkeypatch)
    tally = Tally(world.database)
    broken.before = True
    for minute in range(60):
        tally.saw([attempt(n, at=NOON + minute * MINUTE) for n in range(5)])
        with pytest.raises(DatabaseUnavailable):
            await tally.write_all()
        assert tally._count <= 20
    broken.before = False
    await tally.write_all()
    assert [await attempts_of(world, n) for n in (0, 4, None)] == [60, 60, 300]


async def test_two_engines_count_the_same_minute_together(world: World) -> None:
    tallies = [Tally(world.database) for _ in range(2)]
    for _ in range(5):
        for tally in tallies:
            tally.saw([attempt(1), attempt(2)])
        await asyncio.gather(*(it.write_all() for it in tallies))
    assert [await attempts_of(world, n) for n in (1, 2, None)] == [10, 10, 20]


async def counted(world: World) -> Counter[str]:
    """Add up every column of numbers, and what falls into each bucket."""
    total: Counter[str] = Counter()
    for row in await world.rows("select * from aetherflow.tallies where subject = 'all'"):
        for name in ("attempts", "delivered", "late", *FAILURES):
            total[name] += row[name]
        for bucket, count in zip(row["buckets"], row["counts"], strict=True):
            total[f"bucket {bucket}"] += count
    return total


async def test_old_minutes_become_hours_and_old_hours_go(world: World) -> None:
    tally = Tally(world.database)
    outcomes = [Answered(200, None, b""), *FAILURES.values()]
    for minute in range(0, 90, 10):
        tally.saw(
            [
                attempt(n, outcome, at=NOON + minute * MINUTE, ms=10**n)
                for n in range(4)
                for outcome in outcomes
            ]
        )
    await tally.write_all()
    age = "update aetherflow.tallies set starts_at = starts_at - make_interval(hours => $1)"
    await world.connection.execute(age, 72)
    before = await counted(world)
    sweeping = sweep(world, batch_max=7)
    await sweeping.turn()
    assert await counted(world) == before
    assert {row[0] for row in await world.rows("select distinct span from aetherflow.tallies")} == {
        3600
    }
    hours = await endpoint_numbers(
        world.database,
        endpoint_id=endpoint(3),
        since=NOON - timedelta(hours=72),
        until=NOON - timedelta(hours=71),
        step="hour",
    )
    assert [(it["attempts"], it["delivered"]) for it in hours] == [(3 * 8, 3), (6 * 8, 6)]
    assert hours[1]["p50_ms"] == pytest.approx(1000, rel=0.1)

    # One that comes now is added to its hour by the next sweep.
    tally.saw([attempt(3, at=NOON - timedelta(hours=72, minutes=-40))])
    await tally.write_all()
    await sweeping.turn()
    assert (await counted(world))["attempts"] == before["attempts"] + 1

    await world.connection.execute(age, 27 * 24 + 2)
    await sweeping.turn()
    assert await counted(world) == Counter()


async def test_a_minute_that_is_young_stays_one(world: World) -> None:
    tally = Tally(world.database)
    tally.saw([attempt(1)])
    await tally.write_all()
    await world.connection.execute(
        "update aetherflow.tallies set starts_at = now() - interval '48 hours 30 minutes'"
    )
    await sweep(world).turn()
    assert await world.value("select count(*) from aetherflow.tallies where span = 60") == 3
