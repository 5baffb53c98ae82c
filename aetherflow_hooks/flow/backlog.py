"""Backlog: while too much of it waits, emit refuses more.

Takes    the setting `emit.backlog_max`.
Hands on to `emit` whether there is room, by a row that it reads anyway.
Holds    how much waits is looked at again and again, so the limit is exceeded by what is emitted in
         between; what operators are to be told is let in all the same.
"""

import asyncio

from aetherflow_hooks.config import EmitSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.watch.log import LogEvent, log

LOOK_SECONDS = 1.0
IDLE_SECONDS = 600.0  # a bound; nothing wakes us


class Backlog:
    """Compares what waits with what may."""

    def __init__(self, database: Database, settings: EmitSettings) -> None:
        """Look only where there is a limit."""
        self._database = database
        self._backlog_max = settings.backlog_max
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Look once; give the seconds until the next look."""
        for row in await self._database.rows("note_backlog", self._backlog_max):
            if row["is_full"]:
                log.warning(LogEvent.BACKLOG_FULL, backlog_max=self._backlog_max)
            else:
                log.info(LogEvent.BACKLOG_FREE, backlog_max=self._backlog_max)
        return LOOK_SECONDS if self._backlog_max else IDLE_SECONDS
