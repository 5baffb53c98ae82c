"""Lookout: whether due work is taken at all.

Takes    how much has been taken so far.
Hands on in words, what is due and is not taken.
Holds    as long as anything is taken, Postgres is not asked; what an endpoint's own limits or
         failures hold up is not called stuck.
"""

import asyncio
import time
from collections.abc import Callable, Collection

from aetherflow_hooks.db import Database
from aetherflow_hooks.watch.log import LogEvent, log

LOOKS_PER_TIME = 4  # in the time after which something is stuck
ENDPOINTS_MAX = 100  # of a shard
NAMED_MAX = 3  # endpoints, in words


class Lookout:
    """Looks for overdue work when nothing has been taken for long."""

    def __init__(
        self,
        database: Database,
        *,
        after_seconds: float,
        shards: Callable[[], Collection[int]],
        fanned_out: Callable[[], int],
        leased: Callable[[], int],
        is_held_up: Callable[[str], bool],
    ) -> None:
        """Ask how many events and deliveries were taken, and if an endpoint's are to wait."""
        self._database = database
        self._after_seconds = after_seconds
        self._shards = shards
        self._taken = fanned_out, leased
        self._is_held_up = is_held_up
        self._known = [-1, -1]
        self._changed_at = [time.monotonic()] * 2
        self.stuck: list[str] = []  # in words; mostly there is none
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Look once; give the seconds until the next look."""
        now = time.monotonic()
        for place, taken in enumerate(self._taken):
            if taken() != self._known[place]:
                self._known[place], self._changed_at[place] = taken(), now
        stands = [at <= now - self._after_seconds for at in self._changed_at]
        stuck: list[str] = []
        if any(stands):
            told = zip(self._taken, self._known, stands, await self._overdue(), strict=True)
            stuck = [
                words for taken, known, stood, words in told if stood and words and taken() == known
            ]
        if stuck and not self.stuck:
            log.error(LogEvent.ENGINE_STUCK, stuck=stuck)
        self.stuck = stuck
        return self._after_seconds / LOOKS_PER_TIME

    async def _overdue(self) -> tuple[str, str]:
        """Say which events, and which deliveries, have been due for long and could be taken."""
        rows = await self._database.rows(
            "find_overdue", sorted(self._shards()), self._after_seconds, ENDPOINTS_MAX
        )
        seconds_of = {row["endpoint_id"]: row["overdue_seconds"] for row in rows}
        events = deliveries = ""
        if None in seconds_of:
            seconds = seconds_of.pop(None)
            events = f"events have been due for {seconds:.0f} s, and none is fanned out"
        late = {it: seconds for it, seconds in seconds_of.items() if not self._is_held_up(it)}
        if late:
            named = ", ".join(sorted(late)[:NAMED_MAX])
            deliveries = (
                f"deliveries have been due for {max(late.values()):.0f} s, and none is taken: "
                f"of {len(late)} endpoints, such as {named}"
            )
        return events, deliveries
