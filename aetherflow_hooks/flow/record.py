"""Record: outcomes to rows, in batches, with back-pressure.

Takes    attempts with their verdicts, one by one.
Hands on when a delivery is to be tried again, and which endpoints have had enough.
Holds    every write shows the token of its lease, so a late result changes nothing; what is not
         written yet is bounded, and at the bound sending stops.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from typing import Any

import orjson

from aetherflow_hooks.config import RecordSettings
from aetherflow_hooks.db import Database, Row, array_text
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.model import (
    Answered,
    Attempt,
    DeadReason,
    Delivered,
    Delivery,
    GiveUp,
    Halt,
    RetryIn,
    moment_of,
)
from aetherflow_hooks.rules.states import OUTCOME_WORDS, VERDICT_WORDS, error_of
from aetherflow_hooks.rules.topics import DELIVERY_EXHAUSTED, ENDPOINT_DISABLED, is_operational
from aetherflow_hooks.watch.log import LogEvent, log

IDLE_SECONDS = 60.0  # a bound; the next result wakes us
SPACING_SECONDS = 0.03  # between statements while little waits: under load they get larger
QUIET_SECONDS = 0.01  # without a new result: nobody sends, and no batch gets larger
# One statement at a time is enough, and two would take the processors from each other and from
# those who send; but not where one takes so long, nor with as much waiting as BEHIND_PART allows.
ALONE_SECONDS = 0.05
BEHIND_PART = 0.75  # of the results at which sending stops
DURATION_MS_MAX = 2**31 - 1  # what its column holds


class Record:
    """Collects attempts and writes them: at once when idle, in growing batches under load."""

    def __init__(
        self,
        database: Database,
        settings: RecordSettings,
        *,
        on_recorded: Callable[[Sequence[Attempt], Collection[tuple[str, str, int]]], None],
        on_retry: Callable[[Delivery, float], None],
        on_gone: Callable[[str], None],
        on_next: Callable[[Delivery], None],
        on_full: Callable[[], None],
        on_room: Callable[[], None],
    ) -> None:
        """Tell what was written: to `on_retry` the seconds until each retry, to `on_gone` each 410.

        `on_recorded` gets each batch once, when all of it is written, with the endpoint, event and
        number of those attempts whose lease was lost.
        `on_next` gets each delivery of an endpoint with an order that lets the next one go.
        `on_full` is called when sending has to stop for the writing to catch up, and `on_room`
        after each write that leaves room for more results.
        """
        self._database = database
        self._settings = settings
        self._on_recorded = on_recorded
        self._on_retry = on_retry
        self._on_gone = on_gone
        self._on_next = on_next
        self._on_full = on_full
        self._on_room = on_room
        self._waiting: dict[int, list[Attempt]] = {}  # by shard, the one to be written next first
        self._busy: set[int] = set()
        self._hurried: set[int] = set()  # shards with a result that others wait behind
        self._late: set[tuple[str, str, int]] = set()  # of batches that are not all written
        self._count = 0
        self._crowded_from = settings.waiting_max // 2
        self._behind_from = int(settings.waiting_max * BEHIND_PART)
        self._next_at = 0.0  # when the next batch may be written, full or not
        self._began_at = 0.0  # when the newest write has begun
        self._put_at = 0.0  # when the newest result came
        self.wake = asyncio.Event()

    @property
    def is_full(self) -> bool:
        """Tell whether sending has to stop for the writing to catch up."""
        return self._count >= self._settings.waiting_max

    @property
    def waiting(self) -> int:
        """Results not written yet."""
        return self._count

    def put(self, attempt: Attempt) -> None:
        """Take a result, to be written soon."""
        shard = attempt.delivery.shard
        collected = self._waiting.get(shard)
        if collected is None:
            self._waiting[shard] = [attempt]
            self.wake.set()
        else:
            collected.append(attempt)
            if len(collected) == self._settings.batch_max:
                self.wake.set()
        if attempt.is_ordered:
            self._hurried.add(shard)
            self.wake.set()
        self._count += 1
        self._put_at = time.monotonic()
        if self._count in (self._crowded_from, self._behind_from):
            self.wake.set()
        elif self._count == self._settings.waiting_max:
            self._on_full()

    async def turn(self) -> float:
        """Write one batch; tell when to come again, in seconds."""
        shard = next((it for it in self._hurried if it not in self._busy), None)
        if shard is None:
            shard = next((it for it in self._waiting if it not in self._busy), None)
        if shard is None:
            return IDLE_SECONDS
        now = time.monotonic()
        alone_seconds = self._began_at + ALONE_SECONDS - now
        is_hurried = shard in self._hurried
        is_behind = self._count >= self._behind_from
        is_quiet = now - self._put_at >= QUIET_SECONDS  # nothing comes that could be waited for
        if self._busy and alone_seconds > 0 and not (is_hurried or is_behind or is_quiet):
            return min(alone_seconds, QUIET_SECONDS)
        is_worth_it = (
            is_hurried
            or self._count >= self._crowded_from
            or len(self._waiting[shard]) >= self._settings.batch_max
            or is_quiet
        )
        if now < self._next_at and not is_worth_it:
            return min(self._next_at - now, QUIET_SECONDS)
        self._began_at = now
        self._next_at = now + SPACING_SECONDS
        are_many = is_quiet or self._count >= self._crowded_from
        batches = self._take(shard, with_others=are_many and not is_hurried)
        self._busy.update(batches)
        try:
            await self._write(batches)
        except BaseException:
            # Whatever it is, nothing is thrown away: at the bound, sending stops.
            for shard, batch in batches.items():
                self._waiting[shard] = batch + self._waiting.get(shard, [])
            self._next_at = 0.0
            raise
        finally:
            self._busy.difference_update(batches)
        self._count -= sum(map(len, batches.values()))
        if not self.is_full:
            self._on_room()
        return 0.0

    def waits_for(self, shard: int) -> bool:
        """Tell whether a result of a shard is not written yet."""
        return shard in self._waiting or shard in self._busy

    def _take(self, first: int, *, with_others: bool) -> dict[int, list[Attempt]]:
        """Take results of a shard, and of others too as long as all together fit in a batch."""
        batches: dict[int, list[Attempt]] = {}
        room = batch_max = self._settings.batch_max
        free = [it for it in self._waiting if it not in self._busy and it != first]
        for shard in (first, *free) if with_others else (first,):
            results = self._waiting[shard]
            if batches and len(results) > room:
                break
            batches[shard], rest = results[:batch_max], results[batch_max:]
            room -= len(batches[shard])
            if rest:
                self._waiting[shard] = rest
            else:
                del self._waiting[shard]
                self._hurried.discard(shard)
        return batches

    async def _write(self, batches: dict[int, list[Attempt]]) -> None:
        """Write batches by shard: a statement for each, most of them in one round trip.

        If one fails, all are written again: what has been written before changes nothing.
        """
        delivered: dict[int, list[Attempt]] = {}
        others: dict[int, list[Attempt]] = {}
        for shard, batch in sorted(batches.items()):  # whoever writes them locks in this order
            for attempt in batch:
                kind = delivered if isinstance(attempt.verdict, Delivered) else others
                kind.setdefault(shard, []).append(attempt)
        each = [(shard, *_delivered_columns(of_shard)) for shard, of_shard in delivered.items()]
        if each:
            self._note_late(await self._database.rows_of_each("record_delivered", each))
        for shard, of_shard in others.items():
            await self._write_others(shard, of_shard)
        for attempt in chain.from_iterable(others.values()):
            if isinstance(attempt.verdict, RetryIn):
                self._on_retry(attempt.delivery, attempt.verdict.seconds)
            elif attempt.verdict == GiveUp(DeadReason.GONE):
                self._on_gone(attempt.delivery.endpoint_id)
        written = list(chain.from_iterable(batches.values()))
        for attempt in written:
            if attempt.is_ordered and isinstance(attempt.verdict, Delivered | GiveUp):
                self._on_next(attempt.delivery)
        late_ones = self._late.intersection(map(_named, written)) if self._late else ()
        self._late.difference_update(late_ones)
        self._on_recorded(written, late_ones)

    async def _write_others(self, shard: int, batch: list[Attempt]) -> None:
        """Write what was not delivered; where a value of one row is refused, all others are."""
        try:
            told = await self._run(shard, self._columns(batch))
        except InputRefused as error:
            if len(batch) > 1:
                middle = len(batch) // 2
                await self._write_others(shard, batch[:middle])
                await self._write_others(shard, batch[middle:])
                return
            log.error(
                LogEvent.STAGE_FAILED, stage="record", delivery=batch[0].delivery.id, exc_info=error
            )
            told = await self._run(shard, self._columns(batch, bare=True))
        self._note_late([row for row in told if row["kind"] == "late"])
        for row in told:
            if row["kind"] == "disabled":
                log.warning(LogEvent.ENDPOINT_DISABLED, endpoint=row["endpoint_id"])

    def _note_late(self, rows: Sequence[Row]) -> None:
        """Keep which they are; write one line per endpoint: there may be thousands of results."""
        self._late.update((row["endpoint_id"], row["event_id"], row["attempt"]) for row in rows)
        for endpoint_id, results in Counter(row["endpoint_id"] for row in rows).items():
            log.warning(LogEvent.RECORD_LATE, endpoint=endpoint_id, results=results)

    async def _run(self, shard: int, columns: tuple[list[object], ...]) -> Sequence[Row]:
        return await self._database.rows(
            "record_attempts", shard, *columns, DELIVERY_EXHAUSTED, ENDPOINT_DISABLED
        )

    def _columns(self, batch: list[Attempt], *, bare: bool = False) -> tuple[list[object], ...]:
        """Arrange attempts in columns; `bare` leaves out texts, the answer and the notice."""
        rows = [
            (
                attempt.delivery.endpoint_id,
                attempt.delivery.event_id,
                attempt.delivery.token,
                attempt.delivery.attempt,
                *_verdict(attempt),
                *_outcome(attempt),
                moment_of(attempt.started_unix_us),
                min(attempt.duration_ms, DURATION_MS_MAX),
                *((None, None, None) if bare else (*self._told(attempt), self._notice(attempt))),
            )
            for attempt in batch
        ]
        return tuple(list(column) for column in zip(*rows, strict=True))

    def _told(self, attempt: Attempt) -> tuple[str | None, bytes | None]:
        """Give the error in words and the start of the answer, both only where it failed."""
        if isinstance(attempt.verdict, Delivered):
            return None, None
        outcome = attempt.outcome
        if outcome is None:
            return None, None
        response = outcome.response if isinstance(outcome, Answered) else None
        return error_of(outcome), response and response[: self._settings.response_kept_bytes]

    def _notice(self, attempt: Attempt) -> str | None:
        """Write what operators are told of a delivery that has used up its attempts.

        Where others wait behind it, it says so.

        Nothing of one that was to tell them something: they would be told of that for ever.
        """
        is_used_up = attempt.verdict in (GiveUp(DeadReason.EXHAUSTED), Halt())
        if not is_used_up or is_operational(attempt.event_type):
            return None
        delivery = attempt.delivery
        made = delivery.attempt - (attempt.outcome is None)
        data = {
            "delivery": {"id": delivery.id, "attempts": made},
            "endpoint": {"id": delivery.endpoint_id, "tenant": attempt.tenant},
            "event": {"id": delivery.event_id, "type": attempt.event_type},
            "error": self._told(attempt)[0],
            **({"halted": True} if isinstance(attempt.verdict, Halt) else {}),
        }
        return orjson.dumps(data).decode()


def _named(attempt: Attempt) -> tuple[str, str, int]:
    """Name an attempt: its endpoint, its event, its number."""
    return attempt.delivery.endpoint_id, attempt.delivery.event_id, attempt.delivery.attempt


def _delivered_columns(batch: list[Attempt]) -> tuple[object, ...]:
    """Arrange successes in columns: few of them, since what they have in common is left out."""
    deliveries = [attempt.delivery for attempt in batch]
    answers: list[Any] = [attempt.outcome for attempt in batch]  # nothing else delivers
    return (
        [delivery.endpoint_id for delivery in deliveries],
        [delivery.event_id for delivery in deliveries],
        array_text([delivery.token for delivery in deliveries]),
        array_text([delivery.attempt for delivery in deliveries]),
        array_text([answer.status for answer in answers]),
        array_text([attempt.started_unix_us for attempt in batch]),
        array_text([min(attempt.duration_ms, DURATION_MS_MAX) for attempt in batch]),
    )


def _outcome(attempt: Attempt) -> tuple[str | None, int | None]:
    """Give the outcome's word and the HTTP status."""
    outcome = attempt.outcome
    if outcome is None:
        return None, None
    return OUTCOME_WORDS[type(outcome)], outcome.status if isinstance(outcome, Answered) else None


def _verdict(attempt: Attempt) -> tuple[str, float, str | None]:
    """Give the verdict's word, the seconds until a retry, and the reason of a death."""
    verdict = attempt.verdict
    return (
        VERDICT_WORDS[type(verdict)],
        verdict.seconds if isinstance(verdict, RetryIn) else 0.0,
        verdict.reason if isinstance(verdict, GiveUp) else None,
    )
