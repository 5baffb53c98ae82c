"""Tally: attempts counted by the minute, so that numbers need no look at history.

Takes    attempts that have been recorded.
Hands on nothing; `manage` reads what is written.
Holds    what was recorded is counted once, under the minute in which it began, however often a
         write fails or is made again; what a killed engine had not written yet is not counted.
"""

import asyncio
import itertools
import math
import secrets
import time
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from itertools import islice

from aetherflow_hooks.db import Database, array_text
from aetherflow_hooks.model import EPOCH, Attempt, Delivered, moment_of
from aetherflow_hooks.rules.tallies import (
    ALL,
    KINDS,
    LATE,
    MINUTE_SECONDS,
    UNTIMED,
    bucket_of,
    kind_of,
    subject_of,
)

EVERY_SECONDS = 1.0  # so long what is counted may wait, while it is not too much
IDLE_SECONDS = 600.0  # a bound; the next attempt wakes us
# A thousand rows at once would keep Postgres and us busy for so long that deliveries wait for it.
ROWS_MAX = 125  # of a statement
WRITES_MAX = 8  # within EVERY_SECONDS
OPEN_SECONDS = 20.0  # for so long a minute that is over is remembered, for attempts that end then
# Beyond this many minutes of endpoints, what is new of an endpoint is counted under its last one:
# nothing is lost, and only the minute is wrong.
MINUTES_MAX = 100_000
BUCKETS_MAX = 128  # a code stands for a kind and a bucket: kind * BUCKETS_MAX + bucket

SHORT_MS = 1_024  # most durations are shorter, and their buckets are at hand
_SHORT = bytes(map(bucket_of, range(SHORT_MS)))

_MINUTE = timedelta(seconds=MINUTE_SECONDS)
_MINUTE_US = MINUTE_SECONDS * 1_000_000


class _Minute:
    """What was counted of one subject in one minute."""

    __slots__ = ("new", "part", "shard", "starts_at", "subject", "tenant", "total")

    def __init__(
        self, shard: int, subject: str, starts_at: datetime, part: int, tenant: str
    ) -> None:
        """Begin with nothing; `part` names the row that is written of it."""
        self.shard = shard
        self.subject = subject
        self.starts_at = starts_at
        self.part = part
        self.tenant = tenant
        self.new: dict[int, int] = {}  # by code; not in the total yet
        self.total: dict[int, int] = {}


class Tally:
    """Counts attempts in memory, and writes the counts within about a second.

    A row holds all that was counted of its minute and belongs to this engine alone, so a write that
    may have been carried out is simply made again.
    """

    def __init__(self, database: Database) -> None:
        """Count nothing yet."""
        self._database = database
        self._parts = itertools.count(secrets.randbits(62))
        self._minutes: dict[datetime, dict[str, _Minute]] = {}  # of endpoints
        self._totals: dict[datetime, dict[str, _Minute]] = {}  # of tenants and of all
        self._count = 0  # of the endpoints' minutes
        self._changed: dict[_Minute, None] = {}  # to be written, the longest waiting first
        self._newest = EPOCH  # minute of an attempt
        self._forget_at = math.inf
        self._next_at = 0.0
        self._is_idle = True
        self.wake = asyncio.Event()

    @property
    def waiting(self) -> int:
        """Rows to be written."""
        return len(self._changed)

    def saw(self, attempts: Sequence[Attempt], late: Collection[tuple[str, str, int]] = ()) -> None:
        """Count attempts that have been recorded, by the time when they began.

        `late` names those whose lease was lost, by endpoint, event and attempt: they are counted as
        that and nothing else.
        """
        starts_at = EPOCH
        begins_us = ends_us = 0
        endpoints: dict[str, _Minute] = {}
        # Unpacked, and without a call in the usual case: this is run for every attempt.
        for attempt in attempts:
            delivery, outcome, verdict, started_us, duration_ms, *_ = attempt
            if outcome is None:
                continue  # nothing was sent
            if not begins_us <= started_us < ends_us:
                begins_us = started_us // _MINUTE_US * _MINUTE_US
                ends_us = begins_us + _MINUTE_US
                starts_at = moment_of(begins_us)
                endpoints = self._minutes.get(starts_at) or self._begin(starts_at)
            minute = endpoints.get(delivery.endpoint_id) or self._open(attempt, starts_at)
            if late and (delivery.endpoint_id, delivery.event_id, delivery.attempt) in late:
                code = LATE * BUCKETS_MAX
            elif isinstance(verdict, Delivered):  # the kind 0
                code = _SHORT[duration_ms] if duration_ms < SHORT_MS else bucket_of(duration_ms)
            else:
                kind = kind_of(outcome)
                timed = kind not in UNTIMED
                code = kind * BUCKETS_MAX + (bucket_of(duration_ms) if timed else 0)
            new = minute.new
            if not new:
                self._changed[minute] = None
            new[code] = new.get(code, 0) + 1
        if self._is_idle and self._changed:
            self._is_idle = False
            self.wake.set()

    async def turn(self) -> float:
        """Write what has waited longest; tell when to come again, in seconds."""
        if not self._changed:
            self._is_idle = True
            return IDLE_SECONDS
        now = time.monotonic()
        if now < self._next_at:
            return self._next_at - now
        pause_seconds = EVERY_SECONDS / min(WRITES_MAX, math.ceil(len(self._changed) / ROWS_MAX))
        self._next_at = now + pause_seconds
        await self._write()
        return pause_seconds

    async def write_all(self) -> None:
        """Write all that there is.

        Raises:
            DatabaseUnavailable: it could not be written, or not all of it.
        """
        while self._changed:
            await self._write()

    async def _write(self) -> None:
        if time.monotonic() >= self._forget_at:
            self._forget_at = math.inf
            self._forget()
        batch = self._take()
        try:
            await self._database.rows("write_tallies", *_columns(batch))
        except BaseException:
            self._changed = dict.fromkeys(batch) | self._changed
            raise

    def _take(self) -> list[_Minute]:
        """Take what is to be written, with the tenants and the total that it adds to."""
        batch: dict[_Minute, None] = {}
        for minute in list(islice(self._changed, ROWS_MAX)):
            if len(batch) >= ROWS_MAX:
                break
            self._changed.pop(minute, None)  # a sum may have been taken along already
            batch[minute] = None
            if minute.new:
                new, minute.new = minute.new, {}
                for sum_ in (
                    self._total(minute, subject_of(minute.tenant)),
                    self._total(minute, ALL),
                ):
                    _add(sum_.total, new)
                    self._changed.pop(sum_, None)
                    batch[sum_] = None
                if minute.total:
                    _add(minute.total, new)
                else:
                    minute.total = new
        return list(batch)

    def _begin(self, starts_at: datetime) -> dict[str, _Minute]:
        """Begin a minute, or one of before again."""
        if starts_at > self._newest:
            self._newest = starts_at
            self._forget_at = time.monotonic() + OPEN_SECONDS
        return self._minutes.setdefault(starts_at, {})

    def _forget(self) -> None:
        """Forget minutes that are over and written; who comes later gets a row of its own."""
        before = self._newest - _MINUTE
        for minutes in (self._minutes, self._totals):
            for starts_at in [it for it in minutes if it <= before]:
                kept = {
                    subject: minute
                    for subject, minute in minutes[starts_at].items()
                    if minute.new or minute in self._changed
                }
                if kept:
                    minutes[starts_at] = kept
                else:
                    del minutes[starts_at]
        self._count = sum(map(len, self._minutes.values()))

    def _open(self, attempt: Attempt, starts_at: datetime) -> _Minute:
        """Give the minute that an attempt is counted under, mostly a new one."""
        endpoint_id = attempt.delivery.endpoint_id
        if self._count >= MINUTES_MAX:
            for endpoints in reversed(self._minutes.values()):
                if endpoint_id in endpoints:
                    return endpoints[endpoint_id]
        minute = _Minute(
            attempt.delivery.shard, endpoint_id, starts_at, next(self._parts), attempt.tenant
        )
        self._minutes[starts_at][endpoint_id] = minute
        self._count += 1
        return minute

    def _total(self, minute: _Minute, subject: str) -> _Minute:
        """Give the sum that a minute of an endpoint adds to."""
        sums = self._totals.setdefault(minute.starts_at, {})
        if subject not in sums:
            sums[subject] = _Minute(
                minute.shard, subject, minute.starts_at, next(self._parts), minute.tenant
            )
        return sums[subject]


def _columns(batch: Sequence[_Minute]) -> tuple[list[object], ...]:
    """Arrange minutes in columns, in the order of their keys."""
    rows = sorted(batch, key=lambda it: (it.shard, it.subject, it.starts_at))
    return tuple(list(column) for column in zip(*map(_row, rows), strict=True))


def _add(total: dict[int, int], new: dict[int, int]) -> None:
    for code, count in new.items():
        total[code] = total.get(code, 0) + count


def _row(minute: _Minute) -> tuple[object, ...]:
    kinds = [0] * len(KINDS)
    histogram: dict[int, int] = {}
    for code, count in minute.total.items():
        kind, bucket = divmod(code, BUCKETS_MAX)
        kinds[kind] += count
        if kind not in UNTIMED:
            histogram[bucket] = histogram.get(bucket, 0) + count
    attempts = sum(kinds) - kinds[LATE]
    return (
        minute.shard,
        minute.subject,
        minute.starts_at,
        minute.part,
        attempts,
        *kinds,
        array_text(histogram),
        array_text(histogram.values()),
    )
