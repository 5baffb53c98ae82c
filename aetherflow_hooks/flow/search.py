"""Search: endpoints with work that pace has not been told of.

Takes    shards to look through: all of them after a start and once in a while, single ones after a
         change or another engine's work; and endpoints with new work that are not known yet.
Hands on endpoints that have work, and when it is due.
Holds    whatever waits in the database is found, whoever forgot to tell.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from itertools import islice

from aetherflow_hooks.config import PaceSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.model import Endpoint

PAGE_ENDPOINTS = 100  # few enough that no delivery waits long for us or for Postgres to read them
# So few that deliveries to others do not wait for it: where nothing hurries, between strangers, and
# while a page of endpoints waits to be served already; those may, for long, if they do not answer.
SMALL_PAGE_ENDPOINTS = 20
PAGE_SECONDS = 0.02
STRANGERS_SECONDS = 0.01
# Looking through all shards once in a while finds nothing, mostly. It takes a twentieth of the time
# at the most, a page at a time, so that others do not wait for it; and a hundredth where pages are
# full: thousands have work then that cannot be sent, and what is read drives out what is in use.
GENTLE_PAUSES = 19
FULL_PAGE_PAUSES = 99
# While an event for very many is fanned out, reading them would be a race for the same rows and
# keep others waiting; where such events never end, not for longer than this.
CROWD_SECONDS = 5.0
CROWD_STEP_SECONDS = 0.05


class Search:
    """Reads endpoints a page at a time, no faster than they can be served.

    A page is of one shard, as the statement that takes leases for many of them is.
    """

    def __init__(
        self,
        database: Database,
        settings: PaceSettings,
        *,
        shards: Callable[[], Collection[int]],
        load: Callable[[Iterable[str]], Awaitable[Mapping[str, Endpoint]]],
        known: Callable[[str], Endpoint | None],
        waiting: Callable[[], int],
        wide_since: Callable[[], float | None],
        hand_on: Callable[[Endpoint, float], None],
    ) -> None:
        """Look through what `shards` gives; call `hand_on` with the seconds until work is due.

        `load` reads endpoints and `known` tells how one was last seen; `waiting` says how many wait
        to be served, and `wide_since` since when events for very many are being fanned out.
        """
        self._database = database
        self._shards = shards
        self._load = load
        self._known = known
        self._waiting = waiting
        self._wide_since = wide_since
        self._hand_on = hand_on
        self._every_seconds = settings.discover_seconds
        self._all_at = time.monotonic()  # when all shards were last to be looked through
        self._read_at = 0.0
        self._page_at = time.monotonic()  # when a page was last read
        self._gentle_at = 0.0  # when to read on, where there is no hurry
        self._places: dict[int, str] = {}  # shards being looked through: behind which endpoint
        self._again: set[int] = set()  # those to begin with anew at their end
        self._gentle: set[int] = set()  # those that are looked through only once in a while
        self._strangers: set[str] = set()
        self._crowds: set[int] = set()  # shards with very many of them
        self.wake = asyncio.Event()

    def look(self, shards: Iterable[int]) -> None:
        """Look through shards, which may have work."""
        for shard in shards:
            self._gentle.discard(shard)
            if self._places.setdefault(shard, ""):
                self._again.add(shard)
        self.wake.set()

    def stranger(self, endpoint_id: str) -> None:
        """Get to know an endpoint, which has new work."""
        self._strangers.add(endpoint_id)
        self.wake.set()

    def crowd(self, shard: int) -> None:
        """Look through a shard when an event for very many, who are here, has reached them all."""
        self._crowds.add(shard)
        self.wake.set()

    async def turn(self) -> float:
        """Read one page; tell when to come again, in seconds."""
        now = time.monotonic()
        wide_since = self._wide_since()
        is_crowded = wide_since is not None and now < wide_since + CROWD_SECONDS
        if not is_crowded and now >= self._all_at + self._every_seconds:
            self._all_at = now
            for shard in set(self._shards()).difference(self._places):
                self._places[shard] = ""
                self._gentle.add(shard)
        if not is_crowded and self._crowds:
            self.look(self._crowds)
            self._crowds.clear()
        if not self._strangers and not self._places:
            until_all = max(0.0, self._all_at + self._every_seconds - now)
            return CROWD_STEP_SECONDS if is_crowded else until_all
        is_gentle = self._gentle.issuperset(self._places)
        # Strangers come first; but where more of them come all the time, pages have their turn.
        is_page_due = not is_gentle and now >= self._page_at + PAGE_SECONDS
        is_for_strangers = bool(self._strangers) and not is_page_due
        if now < (next_at := self._next_at(is_for_strangers, is_gentle)):
            return next_at - now
        self._read_at, is_full = now, False
        try:
            if is_for_strangers:
                await self._meet()
            else:
                self._page_at = now
                is_full = await self._read_page()
        except DatabaseUnavailable:
            self.look(self._shards())
            raise
        ended_at = time.monotonic()
        pauses = FULL_PAGE_PAUSES if is_full else GENTLE_PAUSES
        self._gentle_at = ended_at + pauses * (ended_at - now)
        return 0.0

    def _next_at(self, is_for_strangers: bool, is_gentle: bool) -> float:
        """Say when to read on, so that nobody is kept from being served by it."""
        next_at = self._gentle_at if is_gentle and not is_for_strangers else 0.0
        if self._waiting() >= PAGE_ENDPOINTS:
            pause_seconds = STRANGERS_SECONDS if is_for_strangers else PAGE_SECONDS
            next_at = max(next_at, self._read_at + pause_seconds)
        return next_at

    async def _meet(self) -> None:
        some = set(islice(self._strangers, PAGE_ENDPOINTS))
        for endpoint in (await self._load(some)).values():
            self._hand_on(endpoint, -math.inf)
        self._strangers -= some

    async def _read_page(self) -> bool:
        """Read on in the shard whose turn it is; tell whether the page is full."""
        shard = next(
            (it for it in self._places if it not in self._gentle), next(iter(self._places))
        )
        after = self._places[shard]
        if shard not in self._shards():
            del self._places[shard]
            self._again.discard(shard)
            self._gentle.discard(shard)
            return False
        is_awaited = shard not in self._gentle and not self._strangers
        is_large = is_awaited and self._waiting() < PAGE_ENDPOINTS
        page = PAGE_ENDPOINTS if is_large else SMALL_PAGE_ENDPOINTS
        rows = await self._database.rows("find_deliveries", shard, after, page)
        due = {row["endpoint_id"]: row for row in rows if row["due_in_seconds"] is not None}
        stale = [it for it, row in due.items() if not self._is_fresh(it, row["version"])]
        loaded = await self._load(stale) if stale else {}
        for endpoint_id, row in due.items():
            endpoint = loaded.get(endpoint_id) or self._known(endpoint_id)
            if endpoint is not None:
                self._hand_on(endpoint, row["due_in_seconds"])
        del self._places[shard]  # and to the end of the line
        is_full = len(rows) == page
        if is_full:
            self._places[shard] = max(row["endpoint_id"] for row in rows)
        elif shard in self._again:
            self._again.discard(shard)
            self._places[shard] = ""
        else:
            self._gentle.discard(shard)
        return is_full

    def _is_fresh(self, endpoint_id: str, version: int) -> bool:
        known = self._known(endpoint_id)
        return known is not None and known.version == version
