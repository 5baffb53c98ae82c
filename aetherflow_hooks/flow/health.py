"""Health: endpoints that fail and do nothing else: they are told of, and in the end disabled.

Takes    whether each attempt delivered.
Hands on endpoints that were disabled.
Holds    since when an endpoint fails is kept in its row, so that no restart forgets it; an endpoint
         is judged when an attempt of it fails, never while there is nothing to send.
"""

import asyncio
import math
from collections import Counter
from collections.abc import Callable

from aetherflow_hooks.config import HealthSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.model import Endpoint
from aetherflow_hooks.rules.topics import ENDPOINT_DISABLED, ENDPOINT_FAILING, ENDPOINT_RECOVERED
from aetherflow_hooks.watch.log import LogEvent, log

FAILING_FROM = 3  # attempts in a row
TOGETHER_SECONDS = 1.0  # what has changed within is written together
IDLE_SECONDS = 600.0  # a bound; a failure wakes us


class Health:
    """Counts failures in a row, and writes down where they begin and end."""

    def __init__(
        self,
        database: Database,
        settings: HealthSettings,
        *,
        on_disabled: Callable[[str], None],
    ) -> None:
        """Call `on_disabled` with the id of each endpoint that was disabled."""
        self._database = database
        self._warn_after_seconds = settings.warn_after_seconds
        self._disable_after_seconds = settings.disable_after_seconds or math.inf
        self._on_disabled = on_disabled
        self._failures: Counter[str] = Counter()  # in a row, of those that fail
        self._failing: set[str] = set()  # to be written
        self._recovered: set[str] = set()  # likewise
        self._well: set[str] = set()  # of those that were failing when they were read
        self.wake = asyncio.Event()

    def saw(self, endpoint: Endpoint, *, is_delivered: bool) -> None:
        """Take what came of an attempt."""
        # What is known of an endpoint is as old as our copy of it, and is not read anew for this.
        was_failing = endpoint.is_failing and endpoint.id not in self._well
        if is_delivered:
            failures = self._failures.pop(endpoint.id, 0) if self._failures else 0
            if failures >= FAILING_FROM or was_failing:
                if endpoint.is_failing:
                    self._well.add(endpoint.id)
                self._failing.discard(endpoint.id)
                self._recovered.add(endpoint.id)
                self.wake.set()
            return
        self._failures[endpoint.id] += 1
        if self._failures[endpoint.id] >= FAILING_FROM or was_failing:
            self._recovered.discard(endpoint.id)
            self._failing.add(endpoint.id)
            self.wake.set()

    async def turn(self) -> float:
        """Write what has changed; give the seconds until the next look."""
        if not self._failing and not self._recovered:
            return IDLE_SECONDS
        recovered, failing = sorted(self._recovered), sorted(self._failing)
        if recovered:
            for row in await self._database.rows("note_recovered", recovered, ENDPOINT_RECOVERED):
                log.info(LogEvent.ENDPOINT_RECOVERED, endpoint=row["endpoint_id"])
            self._recovered.difference_update(recovered)
        if failing:
            told = await self._database.rows(
                "note_failing",
                failing,
                self._warn_after_seconds,
                self._disable_after_seconds,
                ENDPOINT_FAILING,
                ENDPOINT_DISABLED,
            )
            self._failing.difference_update(failing)
            for kind, endpoint_id in told:
                if kind == "disabled":
                    log.warning(LogEvent.ENDPOINT_DISABLED, endpoint=endpoint_id)
                    self._failures.pop(endpoint_id, None)
                    self._on_disabled(endpoint_id)
                else:
                    log.warning(LogEvent.ENDPOINT_FAILING, endpoint=endpoint_id)
        await asyncio.sleep(TOGETHER_SECONDS)
        return 0.0
