"""Shards: which part of the work is this engine's.

Every engine on a database says every few seconds that it lives, and takes its fair share of the
shards for a limited time. An endpoint belongs to one shard, so its limits are kept exactly by the
one engine that holds it; should two engines ever believe that they hold the same shard, the
leases of single deliveries still keep them apart.
"""

import time
from collections.abc import Awaitable, Callable, Collection
from math import ceil

from aetherflow_hooks.config import EngineSettings
from aetherflow_hooks.db import Database
from aetherflow_hooks.watch.log import LogEvent, log

SAFETY_SECONDS = 1.0  # we stop to believe in a lease so long before the database does


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
        on_leaving: Callable[[Collection[int]], Awaitable[None]],
    ) -> None:
        """Call `on_taken` with new shards; await `on_leaving` before handing some back."""
        self._database = database
        self._settings = settings
        self._engine_id = engine_id
        self._host = host
        self._on_taken = on_taken
        self._on_leaving = on_leaving
        self._until: dict[int, float] = {}  # by shard, monotonic seconds
        self._count = 0
        self._engines = 1

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
            "engine_seen", self._engine_id, self._host, settings.shard_lease_seconds
        )
        before = set(self._until)
        await self._note("shards_renew", self._engine_id, settings.shard_lease_seconds, renew=True)
        # The first in number of several takes the larger part, so that the shares cover them all.
        share = ceil(self._count / engines)
        if len(self._until) < share:
            await self._note(
                "shards_take",
                self._engine_id,
                settings.shard_lease_seconds,
                share - len(self._until),
                renew=False,
            )
        elif len(self._until) > share:
            await self.leave(sorted(self._until)[share:])
        if set(self._until) != before or engines != self._engines:
            self._engines = engines
            log.info(LogEvent.ENGINE_SHARDS, held=len(self._until), of=self._count, engines=engines)
        taken = set(self._until) - before
        if taken:
            self._on_taken(taken)
        return settings.renew_seconds

    async def leave(self, shards: Collection[int]) -> None:
        """Hand shards back, after everything that is under way for them has ended."""
        leaving = {shard: self._until.pop(shard) for shard in shards if shard in self._until}
        if leaving:
            await self._on_leaving(leaving)
            await self._database.rows("shards_leave", self._engine_id, list(leaving))

    async def sign_off(self) -> None:
        """Leave for good."""
        await self._database.rows("shards_leave", self._engine_id, list(self._until))
        self._until.clear()
        await self._database.rows("engine_gone", self._engine_id)

    async def _note(self, statement: str, *values: object, renew: bool) -> None:
        """Keep what a statement says is ours, from the moment before it was asked."""
        until = time.monotonic() + self._settings.shard_lease_seconds - SAFETY_SECONDS
        rows = await self._database.rows(statement, *values)
        if renew:
            self._until.clear()
        self._until.update({row["shard"]: until for row in rows})
