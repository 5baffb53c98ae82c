"""Record alone: results become rows, each under its lease."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks.config import RecordSettings
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.flow.record import ALONE_SECONDS, QUIET_SECONDS, Record
from aetherflow_hooks.model import (
    Answered,
    Attempt,
    DeadReason,
    Delivered,
    Delivery,
    GiveUp,
    NotReached,
    Outcome,
    RetryIn,
    Verdict,
    unix_us_of,
)
from tests.conftest import LONG_AGO, World

TOKEN = 4711
OK = Answered(200, None, b"")


class Recorder:
    """A Record that notes what it tells."""

    def __init__(self, world: World, **settings: int) -> None:
        self.retries: list[tuple[str, float]] = []
        self.told: list[str] = []
        self.gone: list[str] = []
        self.recorded: list[tuple[list[Attempt], set[tuple[str, str, int]]]] = []
        self.record = Record(
            world.database,
            RecordSettings.model_validate(settings),
            on_recorded=lambda batch, late: self.recorded.append((list(batch), set(late))),
            on_retry=lambda delivery, seconds: self.retries.append((delivery.event_id, seconds)),
            on_next=lambda _: None,
            on_gone=self.gone.append,
            on_full=lambda: self.told.append("full"),
            on_room=lambda: self.told.append("room"),
        )

    async def write(self, *attempts: Attempt) -> None:
        for attempt in attempts:
            self.record.put(attempt)
        while self.record.waiting:
            await self.record.turn()


async def leased(world: World, count: int = 1) -> list[Delivery]:
    """Make deliveries of one endpoint that are on lease."""
    endpoint = await world.endpoint()
    await world.value(
        "select count(aetherflow.emit('a.b', '{}')) from generate_series(1, $1)", count
    )
    for shard in range(16):
        await world.database.rows("fanout_events", shard, 1000, 1000, "{}", 0, False, LONG_AGO)
    await world.connection.execute(
        "update aetherflow.deliveries set attempt = 1, lease_token = $1,"
        " leased_until = now() + interval '30 s'",
        TOKEN,
    )
    return [
        Delivery(
            shard=row["shard"],
            endpoint_id=endpoint["id"],
            event_id=row["event_id"],
            event_shard=row["event_shard"],
            attempt=1,
            token=TOKEN,
            leased_unix_us=unix_us_of(datetime.now(UTC)),
            leased_at_monotonic=0,
            expired=False,
        )
        for row in await world.rows("select * from aetherflow.deliveries order by event_id")
    ]


def attempt(delivery: Delivery, verdict: Verdict, outcome: Outcome | None = OK) -> Attempt:
    return Attempt(delivery, outcome, verdict, unix_us_of(datetime.now(UTC)), 12, "a.b", "")


async def test_each_verdict_has_its_effect(world: World) -> None:
    done, again, used_up, expired = await leased(world, 4)
    recorder = Recorder(world)
    await recorder.write(
        attempt(done, Delivered()),
        attempt(again, RetryIn(60), NotReached("refused")),
        attempt(used_up, GiveUp(DeadReason.EXHAUSTED), Answered(500, None, b"oops")),
        attempt(expired, GiveUp(DeadReason.EXPIRED), None),
    )
    (left,) = await world.rows(
        "select event_id, lease_token, extract(epoch from due_at - now()) as due_in"
        " from aetherflow.deliveries"
    )
    assert (left["event_id"], left["lease_token"]) == (again.event_id, 0)
    assert 55 < left["due_in"] <= 60
    assert recorder.retries == [(again.event_id, 60)]
    dead = await world.rows("select event_id, reason, attempts from aetherflow.dead order by 1")
    assert [tuple(row) for row in dead] == [
        (used_up.event_id, "exhausted", 1),
        (expired.event_id, "expired", 0),
    ]
    rows = await world.rows(
        "select event_id, status, outcome, verdict, error, response"
        " from aetherflow.attempts order by event_id"
    )
    assert [tuple(row) for row in rows] == [
        (done.event_id, 200, "answered", "delivered", None, None),
        (again.event_id, None, "not_reached", "retry", "refused", None),
        (used_up.event_id, 500, "answered", "dead", "answered 500", b"oops"),
    ]


@pytest.mark.parametrize(
    "verdict", [Delivered(), RetryIn(1), GiveUp(DeadReason.EXHAUSTED), GiveUp(DeadReason.GONE)]
)
async def test_a_result_whose_lease_was_lost_changes_nothing(
    world: World, verdict: Verdict
) -> None:
    (delivery,) = await leased(world)
    await world.connection.execute("update aetherflow.deliveries set lease_token = 1, attempt = 2")
    before = await world.rows("select * from aetherflow.deliveries")
    await Recorder(world).write(attempt(delivery, verdict))
    assert await world.rows("select * from aetherflow.deliveries") == before
    assert await world.value("select verdict from aetherflow.attempts") == "late"
    assert await world.value("select count(*) from aetherflow.dead") == 0
    assert await world.value("select count(*) from aetherflow.outbox") == 0  # nobody is told
    assert await world.value("select state from aetherflow.endpoints") == "active"


async def test_writing_a_batch_twice_does_no_more_than_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is lost after the commit: the same batch is written again."""
    deliveries = await leased(world, 3)
    recorder = Recorder(world)
    rows = world.database.rows
    lost: list[str] = []

    async def once_broken(statement: str, *values: object) -> object:
        result = await rows(statement, *values)
        if not lost:
            lost.append(statement)
            raise DatabaseUnavailable("lost")
        return result

    monkeypatch.setattr(world.database, "rows", once_broken)
    verdicts: list[Verdict] = [Delivered(), RetryIn(60), GiveUp(DeadReason.EXHAUSTED)]
    batch = [attempt(d, v) for d, v in zip(deliveries, verdicts, strict=True)]
    with pytest.raises(DatabaseUnavailable):
        await recorder.write(*batch)
    assert recorder.record.waiting == 3
    await recorder.record.turn()
    assert recorder.record.waiting == 0
    counts = await world.rows(
        "select verdict, count(*) from aetherflow.attempts group by 1 order by 1"
    )
    assert [tuple(row) for row in counts] == [("dead", 1), ("delivered", 1), ("retry", 1)]
    assert (
        await world.value("select count(*) from aetherflow.events where type like 'aether%'") == 1
    )


async def test_a_value_that_is_refused_costs_its_row_the_texts_and_the_others_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries = await leased(world, 5)
    recorder = Recorder(world)
    monkeypatch.setattr(recorder.record, "_told", lambda _: ("a NUL: \0", None))
    await recorder.write(
        *[attempt(d, Delivered()) for d in deliveries[:4]],
        attempt(deliveries[4], GiveUp(DeadReason.EXHAUSTED)),
    )
    assert await world.value("select count(*) from aetherflow.deliveries") == 0
    assert await world.value("select count(*) from aetherflow.attempts where error is null") == 5
    assert await world.value("select reason from aetherflow.dead") == "exhausted"


async def test_what_cannot_be_written_at_all_is_kept_until_it_can(world: World) -> None:
    deliveries = await leased(world, 3)
    recorder = Recorder(world)
    await world.connection.execute("alter table aetherflow.attempts rename to away")
    for delivery in deliveries:
        recorder.record.put(attempt(delivery, Delivered()))
    with pytest.raises(asyncpg.UndefinedTableError):
        await recorder.record.turn()
    assert recorder.record.waiting == 3
    await world.connection.execute("alter table aetherflow.away rename to attempts")
    await recorder.write()
    assert await world.value("select count(*) from aetherflow.deliveries") == 0


async def test_each_410_is_told_once_it_is_written_whatever_came_of_it(world: World) -> None:
    (delivery,) = await leased(world)
    await world.connection.execute("update aetherflow.deliveries set lease_token = 1")
    recorder = Recorder(world)
    await recorder.write(attempt(delivery, GiveUp(DeadReason.GONE)))
    assert recorder.gone == [delivery.endpoint_id]


async def test_any_text_of_an_error_is_kept_in_a_form_that_postgres_takes(world: World) -> None:
    (delivery,) = await leased(world)
    await Recorder(world).write(
        attempt(delivery, RetryIn(1), NotReached("a\0b\ud800c\x1b" + "x" * 5000))
    )
    error = await world.value("select error from aetherflow.attempts")
    assert error.startswith("a\ufffdb?c\x1bxxx")
    assert len(error) == 500


async def test_it_is_full_at_its_bound(world: World) -> None:
    deliveries = await leased(world, 3)
    recorder = Recorder(world, waiting_max=2)
    recorder.record.put(attempt(deliveries[0], Delivered()))
    assert not recorder.record.is_full
    recorder.record.put(attempt(deliveries[1], Delivered()))
    assert recorder.record.is_full
    assert recorder.told == ["full"]
    await recorder.record.turn()
    assert not recorder.record.is_full
    assert recorder.told == ["full", "room"]


async def test_results_are_gathered_while_more_come_and_written_when_none_does(
    world: World,
) -> None:
    deliveries = await leased(world, 2)
    record = Recorder(world).record
    record._next_at = time.monotonic() + 60  # a statement has just been made
    record.put(attempt(deliveries[0], Delivered()))
    for _ in range(2):  # as two loops do, one right after the other
        assert 0 < await record.turn() <= QUIET_SECONDS
    record.put(attempt(deliveries[1], Delivered()))
    await record.turn()
    assert record.waiting == 2
    record._put_at -= QUIET_SECONDS
    assert await record.turn() == 0
    assert record.waiting == 0


@pytest.mark.parametrize("why", ["nothing comes", "much waits", "it is one of few"])
async def test_many_results_go_out_for_several_shards_in_one_round_trip(
    world: World, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But no more than a batch; and of few, one shard's, so that the next statement is larger."""
    here = await leased(world, 3)
    there = [it._replace(shard=(it.shard + 1) % 16) for it in here]  # not theirs: late
    far = [it._replace(shard=(it.shard + 2) % 16) for it in here]
    recorder = Recorder(world, batch_max=6, waiting_max=18 if why == "much waits" else 100)
    sent: list[list[int]] = []
    run = world.database.rows_of_each

    async def note(statement: str, each: Sequence[Sequence[Any]]) -> Any:
        sent.append([shard for shard, *_ in each])
        return await run(statement, each)

    monkeypatch.setattr(world.database, "rows_of_each", note)
    for delivery in (*there, *here, *far):
        recorder.record.put(attempt(delivery, Delivered()))
    if why == "nothing comes":
        recorder.record._put_at -= QUIET_SECONDS
    await recorder.record.turn()
    together = [there[0].shard] if why == "it is one of few" else [there[0].shard, here[0].shard]
    assert sent == [sorted(together)]
    assert recorder.record.waiting == 9 - 3 * len(together)
    (told,) = recorder.recorded
    assert told[1] == {(it.endpoint_id, it.event_id, 1) for it in there}


async def test_what_fails_for_one_shard_is_written_again_for_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (delivery,) = await leased(world)
    other = delivery._replace(shard=(delivery.shard + 1) % 16)
    recorder = Recorder(world)
    run = world.database.rows_of_each
    failures = iter(["away"])

    async def away_once(statement: str, each: Sequence[Sequence[Any]]) -> Any:
        if next(failures, None):
            raise DatabaseUnavailable("away")
        return await run(statement, each)

    monkeypatch.setattr(world.database, "rows_of_each", away_once)
    for it in (delivery, other):
        recorder.record.put(attempt(it, Delivered()))
    recorder.record._put_at -= QUIET_SECONDS
    with pytest.raises(DatabaseUnavailable):
        await recorder.record.turn()
    assert (recorder.record.waiting, recorder.recorded) == (2, [])
    await recorder.write()
    assert sum(len(batch) for batch, _ in recorder.recorded) == 2
    assert await world.value("select count(*) from aetherflow.deliveries") == 0


@pytest.mark.parametrize("why", ["it takes long", "much waits"])
async def test_a_second_statement_is_made_beside_one_that_holds_up_the_others(
    world: World, why: str
) -> None:
    """Else there is one at a time, so that they do not take the processors from each other."""
    (delivery,) = await leased(world)
    record = Recorder(world, waiting_max=4).record
    other = delivery._replace(shard=(delivery.shard + 1) % 16)
    async with world.connection.transaction():
        await world.connection.execute("select from aetherflow.deliveries for update")
        record.put(attempt(delivery, Delivered()))
        writing = asyncio.create_task(record.turn())
        while not record._busy:
            await asyncio.sleep(0)
        record._next_at = 0.0
        record.put(attempt(other, Delivered()))
        if why == "it takes long":
            assert 0 < await record.turn() <= ALONE_SECONDS
            assert record.waiting == 2
            record._began_at -= ALONE_SECONDS
        else:
            record.put(attempt(other, Delivered()))
        assert await record.turn() == 0
        assert (record.waiting, writing.done()) == (1, False)
    assert await writing == 0
    assert record.waiting == 0


async def test_each_attempt_is_told_once_when_it_is_on_record_and_whether_it_was_late(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often a part of its batch has to be written again."""
    done, late, again, late_again = await leased(world, 4)
    recorder = Recorder(world)
    lost = "update aetherflow.deliveries set lease_token = 1 where event_id = any ($1)"
    await world.connection.execute(lost, [late.event_id, late_again.event_id])
    rows = world.database.rows
    failures = iter(["record_attempts"])  # when the successes are written already

    async def once_away(statement: str, *values: object) -> object:
        if statement == next(failures, None):
            raise DatabaseUnavailable("away")
        return await rows(statement, *values)

    monkeypatch.setattr(world.database, "rows", once_away)
    batch = [
        *(attempt(it, Delivered()) for it in (done, late)),
        *(attempt(it, RetryIn(60), NotReached("refused")) for it in (again, late_again)),
    ]
    with pytest.raises(DatabaseUnavailable):
        await recorder.write(*batch)
    assert recorder.recorded == []
    await recorder.write()
    told = {(it.endpoint_id, it.event_id, it.attempt) for it in (late, late_again)}
    assert recorder.recorded == [(batch, told)]
    assert await world.value("select count(*) from aetherflow.attempts where verdict = 'late'") == 2
