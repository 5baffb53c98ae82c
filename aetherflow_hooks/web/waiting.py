"""Waiting: who polls and finds nothing waits here until there is something.

Takes    what fan-out has made at this engine, at once; and a look once a second while somebody
         waits, for what other engines have made, and for leases that have ended.
Hands on that there may be something, to one of those who wait for it; who goes tells the next.
Holds    nobody waits on a connection to Postgres, and only so many wait.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import HooksError
from aetherflow_hooks.manage.polls import which_wait

LOOK_SECONDS = 1.0
WAITING_MAX = 1_000
WAITING_OF_ONE_MAX = 50


class Place:
    """Somebody who waits for work of one endpoint."""

    def __init__(self, who: str, endpoint_id: str) -> None:
        """Wait for nothing yet."""
        self.who = who
        self.endpoint_id = endpoint_id
        self.is_over = False  # the server stops
        self._wake = asyncio.Event()

    def call(self) -> None:
        """Say that there may be something."""
        self._wake.set()

    def end(self) -> None:
        """Let nothing more come."""
        self.is_over = True
        self._wake.set()

    async def wait(self, seconds_max: float) -> None:
        """Wait until there may be something, or nothing more will come, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds_max):
                await self._wake.wait()
        self._wake.clear()


class Waiting:
    """Those who wait, by endpoint."""

    def __init__(self, database: Database) -> None:
        """Look into a database for as long as somebody waits."""
        self._database = database
        self._places: dict[str, deque[Place]] = {}
        self._looking: asyncio.Task[None] | None = None
        self._is_over = False

    @asynccontextmanager
    async def place(self, who: str, endpoint_id: str) -> AsyncIterator[Place | None]:
        """Give a place to wait for work of an endpoint; None: too many wait."""
        everybody = [it for places in self._places.values() for it in places]
        theirs = sum(it.who == who for it in everybody)
        if theirs >= WAITING_OF_ONE_MAX or len(everybody) >= WAITING_MAX:
            yield None
            return
        place = Place(who, endpoint_id)
        place.is_over = self._is_over
        self._places.setdefault(endpoint_id, deque()).append(place)
        if self._looking is None and not self._is_over:
            self._looking = asyncio.create_task(self._look(), name="aetherflow_hooks waiting")
        try:
            yield place
        finally:
            self._places[endpoint_id].remove(place)
            if not self._places[endpoint_id]:
                del self._places[endpoint_id]
            # It may have been called and not have taken it, or not all of it.
            self.arrived(endpoint_id)

    def arrived(self, endpoint_id: str) -> None:
        """Wake one of those who wait for an endpoint, each in turn: one is given what there is."""
        if places := self._places.get(endpoint_id):
            places[0].call()
            places.rotate(-1)

    async def stop(self) -> None:
        """Send everybody home."""
        self._is_over = True
        for places in self._places.values():
            for place in places:
                place.end()
        looking, self._looking = self._looking, None
        if looking is not None:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)

    async def _look(self) -> None:
        """Look once a second, until nobody waits any more."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._places:
                self._looking = None
                return
            with suppress(HooksError):  # whoever waits asks once more at the end, and is told
                for endpoint_id in await which_wait(self._database, sorted(self._places)):
                    self.arrived(endpoint_id)
