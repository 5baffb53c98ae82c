"""Fanout: one delivery per event and matching endpoint, exactly once.

Takes    due rows of the outbox, of the shards that this engine holds.
Hands on which endpoints have new work.
Holds    a row leaves the outbox in the statement that makes its deliveries, or stays.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from aetherflow_hooks.config import FanoutSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.watch.log import LogEvent, log

FIRST_BATCH = 100  # events per statement, until it is known how long that takes
QUICK_SECONDS = 0.1
SLOW_SECONDS = 0.5

HandOn = Callable[[list[tuple[int, str]]], None]  # (shard, endpoint_id) of each new delivery's


class Fanout:
    """Looks for events: often while they come, seldom while none does.

    An engine that has seen none for a moment says in the database that it sleeps, so that `emit`
    notifies it; under load nobody sleeps, and commits do not queue for the notification.
    """

    def __init__(
        self,
        database: Database,
        settings: FanoutSettings,
        *,
        engine_id: str,
        shards: Callable[[], Collection[int]],
        hand_on: HandOn,
    ) -> None:
        """Work on what `shards` gives at each turn; call `hand_on` once per statement."""
        self._database = database
        self._settings = settings
        self._engine_id = engine_id
        self._shards = shards
        self._hand_on = hand_on
        self._batch = min(FIRST_BATCH, settings.batch_max)
        self._last_shard = -1
        self._active_at = time.monotonic()
        self._asleep = False
        self._pause_seconds = settings.poll_seconds
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Fan out one batch of each shard that has any; tell when to come again, in seconds."""
        events, next_due_seconds = await self._fan_out_due()
        now = time.monotonic()
        settings = self._settings
        if events:
            self._active_at = now
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

    async def _fan_out_due(self) -> tuple[int, float]:
        """Give the number of events taken, and the seconds until the next one is due."""
        taken, next_due_seconds = 0, float("inf")
        found = await self._database.rows("find_events", sorted(self._shards()))
        # Where the last turn broke off, this one goes on: no shard keeps the others waiting.
        for shard, due_in_seconds in sorted(found, key=lambda row: row[0] <= self._last_shard):
            if due_in_seconds > 0:
                next_due_seconds = min(next_due_seconds, due_in_seconds)
                continue
            self._last_shard = shard
            taken += await self._fan_out(shard)
        self._last_shard = -1
        return taken, next_due_seconds

    async def _fan_out(self, shard: int) -> int:
        """Fan out a batch of one shard; give the number of its events.

        How many deliveries an event makes is not known before, so the batch is what has lately
        proved quick: a statement that is too large would be cut off, and tried again for ever.
        """
        began = time.monotonic()
        try:
            rows = await self._database.rows(
                "fanout_events", shard, self._batch, self._settings.endpoints_max
            )
        except DatabaseUnavailable:
            self._batch = max(1, self._batch // 4)
            raise
        took_seconds = time.monotonic() - began
        events: int = rows[0]["events"]
        if took_seconds > SLOW_SECONDS:
            self._batch = max(1, self._batch // 2)
        elif took_seconds < QUICK_SECONDS and events == self._batch:
            self._batch = min(self._batch * 2, self._settings.batch_max)
        made = [(row["shard"], row["endpoint_id"]) for row in rows if row["endpoint_id"]]
        if made:
            self._hand_on(made)
        log.debug(LogEvent.FANOUT_DONE, shard=shard, events=events, endpoints=len(made))
        return events

    async def _say(self, *, asleep: bool) -> None:
        await self._database.value("engine_asleep", self._engine_id, asleep)
        self._asleep = asleep
