"""Shards: which part of the work is this engine's.

Every engine on a database says every few seconds that it lives, and takes its fair share of the
shards for a limited time. An endpoint belongs to one shard, so its limits are kept exactly by the
one engine that holds it; should two engines ever believe that they hold the same shard, the
leases of single deliveries still keep them apart.
"""

import time
from collections.abc import Callable, Collection
from math import ceil

from aetherflow_hooks.config import EngineSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.watch.log import LogEvent, log

SAFETY_SECONDS = 1.0  # we stop to believe in a lease so long before the database does
LEAVING_SECONDS = 0.1  # how often a shard that is being left is looked at


class Shards:
    """The shards that this engine holds."""

    def __init__(
        self,
        database: Database,
        settings: EngineSettings,
        *,
        engine_id: str,
        host: str,
        on_taken: Callable[[Collection[int]], None],
        on_lost: Callable[[Collection[int]], None],
        is_quiet: Callable[[int], bool],
        in_flight: Callable[[], int],
    ) -> None:
        """Call `on_taken` with shards that are new, `on_lost` with those that are no longer ours.

        A shard that is left to another engine is lost at once, and handed over as soon as
        `is_quiet` says that nothing of it is under way here. `in_flight` gives the number of POSTs
        under way, which is told to whoever looks on.
        """
        self._database = database
        self._settings = settings
        self._engine_id = engine_id
        self._host = host
        self._on_taken = on_taken
        self._on_lost = on_lost
        self._is_quiet = is_quiet
        self._in_flight = in_flight
        self._until: dict[int, float] = {}  # by shard, monotonic seconds
        self._leaving: set[int] = set()  # still ours for the database, no longer for us
        self._count = 0
        self._engines = 0

    def held(self) -> Collection[int]:
        """Give the shards that are ours now."""
        now = time.monotonic()
        return [shard for shard, until in self._until.items() if until > now]

    def holds(self, shard: int, now: float) -> bool:
        """Tell whether a shard is ours at `now` (monotonic seconds)."""
        return self._until.get(shard, 0.0) > now

    async def turn(self) -> float:
        """Say that we live, keep what we hold, and take or leave shards to hold a fair share."""
        settings = self._settings
        if not self._count:
            self._count = await self._database.value("shards_count")
        engines = await self._database.value(
            "engine_seen",
            self._engine_id,
            self._host,
            settings.shard_lease_seconds,
            self._in_flight(),
        )
        before = set(self.held())
        renewed = await self._ask("shards_renew", settings.shard_lease_seconds)
        self._leaving &= renewed.keys()
        self._until = {shard: renewed[shard] for shard in renewed.keys() - self._leaving}
        # Rounded up, so that the shares of all engines cover all shards.
        share = ceil(self._count / engines)
        for shard in sorted(self._leaving)[: max(0, share - len(self._until))]:
            self._leaving.remove(shard)  # an engine has gone: we keep it after all
            self._until[shard] = renewed[shard]
        for shard in sorted(self._until)[share:]:
            del self._until[shard]
            self._leaving.add(shard)
        await self._hand_over()
        missing = share - len(self._until)
        if missing > 0 and not self._leaving:
            self._until |= await self._ask("shards_take", settings.shard_lease_seconds, missing)
        self._tell(before, engines)
        return LEAVING_SECONDS if self._leaving else settings.renew_seconds

    async def sign_off(self) -> None:
        """Leave for good; nothing may be under way any more."""
        self._until.clear()
        await self._database.rows("shards_leave", self._engine_id, list(range(self._count)))
        await self._database.rows("engine_gone", self._engine_id)

    async def _ask(self, statement: str, *values: object) -> dict[int, float]:
        """Give the shards that a statement makes ours, with the moment until when at the least."""
        until = time.monotonic() + self._settings.shard_lease_seconds - SAFETY_SECONDS
        rows = await self._database.rows(statement, self._engine_id, *values)
        return {row["shard"]: until for row in rows}

    async def _hand_over(self) -> None:
        quiet = [shard for shard in self._leaving if self._is_quiet(shard)]
        if quiet:
            await self._database.rows("shards_leave", self._engine_id, quiet)
            self._leaving.difference_update(quiet)

    def _tell(self, before: set[int], engines: int) -> None:
        now = set(self._until)
        if now != before or engines != self._engines:
            log.info(LogEvent.ENGINE_SHARDS, held=len(now), of=self._count, engines=engines)
        self._engines = engines
        if before - now:
            self._on_lost(before - now)
        if now - before:
            self._on_taken(now - before)
