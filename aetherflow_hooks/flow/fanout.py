"""Fanout: one delivery per event and matching endpoint, exactly once.

Takes    due rows of the outbox, of the shards that this engine holds.
Hands on which endpoints have new work; what there is room for it takes on lease at once.
Holds    a row leaves the outbox in the statement that makes its deliveries, or stays.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from aetherflow_hooks.config import FanoutSettings
from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.model import Offer
from aetherflow_hooks.rules.horizon import Horizon
from aetherflow_hooks.rules.lane import EVER_SECONDS, LATE_SECONDS
from aetherflow_hooks.watch.log import LogEvent, log

FIRST_BATCH = 100  # events per statement, until it is known how long that takes
QUICK_SECONDS = 0.1
SLOW_SECONDS = 0.5

WORKERS = 2  # statements at once, while they are small
FIRST_ENDPOINTS = 500  # that an event reaches at once; the others beside what is new
HOLD_SECONDS = 0.25  # how long a pile waits at most for room to be leased as it is made
HOLD_STEP_SECONDS = 0.005
PILE_SECONDS = 1.0  # behind a full batch, what is left of it belongs to the pile
NO_ROOMS = "{}"
POLLED = "polled"  # in place of a type: nobody has to be told to lease it
# A look begins with what the one before it has seen to be there, or could not see yet. Where an old
# snapshot makes Postgres keep what has been fanned out, and a transaction that may have emitted
# goes on for long, that is a long way: then looks begin LATE_SECONDS before the first that the last
# one found, and such as go all the way take a tenth of the time. One that takes long by itself has
# waited for a lock. What another hand has written is found by a look at everything, now and then.
QUICK_LOOK_SECONDS = 0.02
LONG_LOOK_PAUSES = 9
LOOKS_KNOWN = 3
WHOLE_LOOK_PAUSES = 49
WHOLE_LOOK_SECONDS = 1.0  # between looks at everything at the least
WHOLE_LOOK_FAILED_SECONDS = 60.0  # after one that took too long for Postgres
CLOCK_STEP = timedelta(seconds=0.1)  # by which the clock of the database may be set back
EVER = datetime.min.replace(tzinfo=UTC)  # which the driver writes as -infinity

# (shard, endpoint_id) of each that has new work, whether they are very many of one event, and since
# when the first of it may be due, by our clock
HandOn = Callable[[list[tuple[int, str]], bool, float], None]


class Hands(Protocol):
    """Who sends what fan-out leases."""

    def prepare(self) -> None:
        """Work out what will be offered, while Postgres has something to do."""

    def offer(self) -> Offer | None:
        """Say what there is room for; None: ask again in a moment."""

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
        """Take over what was leased then: rows of `fanout_events` that name an event."""

    def doubt(self, offer: Offer) -> None:
        """Note that something may have been leased without our knowing."""


class Fanout:
    """Looks for events: often while they come, seldom while none does.

    An engine that has seen none for a moment says in the database that it sleeps, so that `emit`
    notifies it; under load nobody sleeps, and commits do not queue for the notification.

    An event for very many endpoints is only begun by `turn`; `wide_turn` carries it on meanwhile.
    """

    def __init__(
        self,
        database: Database,
        settings: FanoutSettings,
        *,
        engine_id: str,
        shards: Callable[[], Collection[int]],
        hand_on: HandOn,
        hands: Hands | None = None,
        on_polled: Callable[[str], None] = lambda _endpoint_id: None,
    ) -> None:
        """Work on what `shards` gives at each turn; call `hand_on` once per statement.

        Without `hands` nothing is leased, and all that is made is handed on; but for endpoints that
        are polled, which `on_polled` is told.
        """
        self._database = database
        self._settings = settings
        self._engine_id = engine_id
        self._shards = shards
        self._hand_on = hand_on
        self._hands = hands
        self._on_polled = on_polled
        self._hold_until = 0.0
        self._is_pile = False  # whether the last batch was a full one
        self._piled_at = -math.inf  # when the last full one was made
        self._batch = min(FIRST_BATCH, settings.batch_max)
        self._first_endpoints = min(FIRST_ENDPOINTS, settings.endpoints_max)
        self._last_shard = -1
        self._told: set[int] = set()  # shards of new events that we were told of
        self._horizon = Horizon()
        # By shard: nothing that is there, or is to come, was due before; by the database's clock.
        self._bounds: dict[int, datetime] = {}
        self._sinces: dict[int, datetime] = {}  # where statements begin now
        self._looks: deque[float] = deque(maxlen=LOOKS_KNOWN)  # how long those from bounds took
        self._long_look_at = 0.0
        self._whole_look_at = 0.0
        self._clock = (0.0, EVER)  # one moment by our clock and by the database's
        self._active_at = self._looked_at = self._next_at = time.monotonic()
        self._asleep = False
        self._pause_seconds = settings.poll_seconds
        self.events = 0  # fanned out since the start
        self.deliveries = 0  # made of them
        self.wake = asyncio.Event()
        self.wake_wide = asyncio.Event()
        self.wide_since: float | None = None  # since when an event for very many is on its way

    async def turn(self) -> float:
        """Fan out one batch of each shard that has any; tell when to come again, in seconds."""
        # What comes one by one is gathered for a moment, once there was some.
        await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
        events, next_due_seconds = await self._fan_out_told(), 0.0
        if not events:
            events, next_due_seconds = await self._fan_out_due()
        now = time.monotonic()
        settings = self._settings
        if events:
            self._active_at = now
            self._next_at = self._looked_at + self._settings.poll_seconds
            if self._asleep:
                await self._say(asleep=False)
            return 0.0
        if now - self._active_at < settings.sleep_after_seconds:
            return min(settings.poll_seconds, next_due_seconds)
        if not self._asleep:
            await self._say(asleep=True)
            self._pause_seconds = settings.poll_seconds
            return 0.0  # once more, for what was emitted before it could be known that we sleep
        # A transaction that emitted before and commits only now notifies nobody, so the pauses
        # grow by and by.
        self._pause_seconds = min(self._pause_seconds * 2, settings.poll_idle_seconds)
        return min(self._pause_seconds, next_due_seconds)

    def tell(self, shard: int) -> None:
        """Take a hint: there is a new event in a shard."""
        self._told.add(shard)
        self.wake.set()

    async def wide_turn(self) -> float:
        """Carry on one event of each shard where one has begun; tell when to come again."""
        shards = sorted(self._shards())
        now = time.monotonic()
        rows = await self._database.rows("find_events", shards, [EVER] * len(shards), True)
        found = [row for row in rows if row["shard"] is not None]
        if not found:
            self.wide_since = None
        elif self.wide_since is None:
            self.wide_since = now
        for shard, _, due_in_seconds, *_ in found:
            made = await self._database.rows("fanout_begun", shard, self._settings.endpoints_max)
            self.deliveries += len(made)
            self._hand_on(
                [(shard, endpoint_id) for shard, endpoint_id in made], True, now + due_in_seconds
            )
            for _, endpoint_id in made:  # which of them are polled is not told here
                self._on_polled(endpoint_id)
            log.debug(LogEvent.FANOUT_DONE, shard=shard, events=0, endpoints=len(made))
        return 0.0 if found else self._settings.poll_idle_seconds

    async def _fan_out_told(self) -> int:
        """Fan out where we were told to while we slept, without a look; give how many events."""
        told, self._told = self._told, set()
        now = time.monotonic()
        if not self._asleep or self._is_slow():
            return 0
        events = 0
        for shard in sorted(told.intersection(self._shards())):
            self._looked_at = now
            events += await self._fan_out_new(shard)
        return events

    async def _fan_out_due(self) -> tuple[int, float]:
        """Give the number of events taken, and the seconds until the next one is due."""
        taken, next_due_seconds = 0, float("inf")
        self._looked_at = time.monotonic()
        # Where the last turn broke off, this one goes on: no shard keeps the others waiting.
        due: deque[int] = deque()
        for shard, due_in_seconds in sorted(
            (await self._look()).items(), key=lambda it: (it[0] <= self._last_shard, it[0])
        ):
            if due_in_seconds > 0:
                next_due_seconds = min(next_due_seconds, due_in_seconds)
            else:
                due.append(shard)

        async def work(number: int) -> int:
            events = 0
            # Of large statements one is enough: more of them take the processors from each other,
            # and from those who send.
            while due and (number == 0 or not self._is_pile):
                self._last_shard = due.popleft()
                events += await self._fan_out_new(self._last_shard)
            return events

        done = await asyncio.gather(
            *(work(number) for number in range(WORKERS)), return_exceptions=True
        )
        for outcome in done:
            if isinstance(outcome, BaseException):
                raise outcome
            taken += outcome
        self._last_shard = -1
        return taken, next_due_seconds

    async def _look(self) -> dict[int, float]:
        """Find when the first event of each shard is due, in seconds, where there is one."""
        shards = sorted(self._shards())
        now = time.monotonic()
        is_whole = now >= self._whole_look_at
        is_short = not is_whole and self._is_slow() and now < self._long_look_at
        known = {} if is_whole else self._sinces if is_short else self._bounds
        if is_whole:
            self._whole_look_at = now + WHOLE_LOOK_FAILED_SECONDS
        if self._hands:
            asyncio.get_running_loop().call_soon(self._hands.prepare)  # while Postgres looks
        rows = await self._database.rows(
            "find_events", shards, [known.get(shard, EVER) for shard in shards], False
        )
        took_seconds = time.monotonic() - now
        found = {row["shard"]: row for row in rows}
        seen = found.pop(None)
        self._clock = now, seen["due_at"]
        unseen_since = self._horizon.saw(seen["due_at"], seen["xmin"], seen["xmax"])
        firsts: dict[int, datetime] = {shard: row["due_at"] for shard, row in found.items()}
        if not is_short:
            bound = EVER if unseen_since is None else unseen_since - CLOCK_STEP
            self._bounds = {shard: min(bound, firsts.get(shard, bound)) for shard in shards}
            self._long_look_at = now + (1 + LONG_LOOK_PAUSES) * took_seconds
        if is_whole:
            pause_seconds = max(WHOLE_LOOK_SECONDS, WHOLE_LOOK_PAUSES * took_seconds)
            self._whole_look_at = now + took_seconds + pause_seconds
        elif not is_short:
            self._looks.append(took_seconds)
        self._sinces = self._bounds
        if self._is_slow():
            asked_at: datetime = seen["due_at"]
            self._sinces = {
                shard: _later(self._bounds.get(shard, EVER), firsts.get(shard, asked_at))
                for shard in shards
            }
        return {shard: row["due_in_seconds"] for shard, row in found.items()}

    def _is_slow(self) -> bool:
        """Tell whether it takes long to look from where something may be."""
        return len(self._looks) == LOOKS_KNOWN and min(self._looks) > QUICK_LOOK_SECONDS

    def _by_our_clock(self, moment: datetime) -> float:
        """Give a moment of the database's clock in monotonic seconds."""
        ours, theirs = self._clock
        return ours - min(EVER_SECONDS, (theirs - moment).total_seconds())

    async def _fan_out_new(self, shard: int) -> int:
        """Fan out a batch of one shard; give the number of its events.

        How many deliveries an event makes is not known before, so the batch is what has lately
        proved quick: a statement that is too large would be cut off, and tried again for ever.
        """
        offer = await self._offer()
        began = time.monotonic()
        try:
            events = await self._fan_out(shard, offer)
        except DatabaseUnavailable:
            self._batch = max(1, self._batch // 4)
            raise
        took_seconds = time.monotonic() - began
        self._is_pile = events == self._batch
        if self._is_pile:
            self._piled_at = began
        if took_seconds > SLOW_SECONDS:
            self._batch = max(1, self._batch // 2)
        elif took_seconds < QUICK_SECONDS and events == self._batch:
            self._batch = min(self._batch * 2, self._settings.batch_max)
        return events

    async def _fan_out(self, shard: int, offer: Offer | None) -> int:
        """Run one statement; give how many events it took."""
        since = self._sinces.get(shard, EVER)
        asked_at = time.monotonic()
        try:
            rows = await self._database.rows(
                "fanout_events",
                shard,
                self._batch,
                self._first_endpoints,
                offer.rooms if offer else NO_ROOMS,
                offer.token if offer else 0,
                offer is not None and not self._is_pile,  # what is sent at once is read at once
                since,
            )
        except BaseException:
            if self._hands and offer:
                self._hands.doubt(offer)
            raise
        (taken, *others), leased, made = rows, [], []
        for row in others:
            if row["event_id"]:
                leased.append(row)
            elif row["type"] == POLLED:
                self._on_polled(row["endpoint_id"])
            else:
                made.append((row["shard"], row["endpoint_id"]))
        if self._hands and offer:
            leased_unix_us: int = taken["leased_unix_us"]
            self._hands.adopt(offer, shard, leased, leased_unix_us, asked_at, others=len(made))
        if made:
            self._hand_on(made, False, self._by_our_clock(since))
        if taken["is_begun"]:
            self.wake_wide.set()
        events: int = taken["events"]
        self.events += events
        self.deliveries += taken["deliveries"]
        log.debug(LogEvent.FANOUT_DONE, shard=shard, events=events, endpoints=len(made))
        return events

    async def _offer(self) -> Offer | None:
        """Ask for room. A pile waits where there is none, since what is leased here is cheaper.

        But not for long: other endpoints than those that have taken it may have work.
        """
        if self._hands is None:
            return None
        offer = self._hands.offer()
        hold_until = min(self._hold_until, self._piled_at + PILE_SECONDS)
        while offer is None and time.monotonic() < hold_until:
            await asyncio.sleep(HOLD_STEP_SECONDS)
            offer = self._hands.offer()
        self._hold_until = time.monotonic() + HOLD_SECONDS
        return offer

    async def _say(self, *, asleep: bool) -> None:
        await self._database.value("engine_asleep", self._engine_id, asleep)
        self._asleep = asleep


def _later(bound: datetime, first: datetime) -> datetime:
    """Give the later one of a bound and of the moment that is LATE_SECONDS before the first."""
    late = timedelta(seconds=LATE_SECONDS)
    return first - late if first - bound > late else bound
