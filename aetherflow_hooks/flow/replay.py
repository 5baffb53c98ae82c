"""Replay: many deliveries made again, a part at a time.

Takes    rows of `replays`, which say what is asked for and how far that has come.
Hands on endpoints that have new work.
Holds    a part is made and its end written down in one statement, so whoever goes on after a crash
         makes nothing twice; and no more is made per second than was asked for.
"""

import asyncio
import time
from collections.abc import Callable

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.watch.log import LogEvent, log

LOOKED_MAX = 500  # dead deliveries, or events of each shard; fewer where a filter reads much data
MADE_MAX = 500
SLOW_SECONDS = 1.0
IDLE_SECONDS = 5.0  # a hint may get lost


class Replay:
    """Works on whatever replay is due; engines take turns at the same one."""

    def __init__(self, database: Database, *, hand_on: Callable[[int, str], None]) -> None:
        """Call `hand_on` with the shard and id of an endpoint that has new work."""
        self._database = database
        self._hand_on = hand_on
        self._looked_max = LOOKED_MAX
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Make one part; tell when to come again, in seconds."""
        began = time.monotonic()
        try:
            (row,) = await self._database.rows("replay_step", self._looked_max, MADE_MAX)
        except DatabaseUnavailable:
            self._looked_max = max(1, self._looked_max // 4)
            raise
        took_seconds = time.monotonic() - began
        if took_seconds > SLOW_SECONDS:
            self._looked_max = max(1, self._looked_max // 2)
        else:
            self._looked_max = min(self._looked_max * 2, LOOKED_MAX)
        if row["made"]:
            self._hand_on(row["shard"], row["endpoint_id"])
        if row["is_done"]:
            log.info(LogEvent.REPLAY_DONE, replay=row["id"])
        due_in_seconds: float | None = row["due_in_seconds"]
        if due_in_seconds is None or (row["id"] is None and due_in_seconds <= 0):
            return IDLE_SECONDS  # there is none, or another engine is at it
        # half the time is left to others
        return min(max(due_in_seconds, took_seconds), IDLE_SECONDS)
