"""Sweep: what is past its time.

Takes    the clock of the database.
Hands on nothing.
Holds    no event is dropped that has not been fanned out, and no delivery outlives its event
         unsaid: it is given up first.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable, DatabaseUnfit
from aetherflow_hooks.rules.tallies import MINUTES_KEPT_HOURS
from aetherflow_hooks.watch.log import LogEvent, log

ENGINE_FORGOTTEN_SECONDS = 86_400.0
ANSWER_FORGOTTEN_SECONDS = 86_400.0  # to a request with an idempotency key


class Sweep:
    """Makes partitions ahead, drops old ones, and forgets what nobody can ask for any more."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        shards: Callable[[], Collection[int]],
        archive: Callable[[str], Awaitable[int | None]],
        first_after_seconds: float = 0.0,
    ) -> None:
        """Work on what `shards` gives at each turn; who holds shard 0 does what is of none.

        `archive` keeps the rows of a partition that is about to go, if anybody wants them. Nothing
        is looked for before `first_after_seconds`: who has just started has other work.
        """
        self._archive = archive
        self._first_at = time.monotonic() + first_after_seconds
        self._database = database
        self._settings = settings
        self._shards = shards
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Sweep once; tell when to come again, in seconds."""
        if (left := self._first_at - time.monotonic()) > 0:
            return left
        shards = sorted(self._shards())
        if 0 in shards:
            await self.prepare()  # first, since emit and record cannot do without
        removed = 0
        for shard in shards:
            removed += await self._sweep_shard(shard)
        if 0 in shards:
            await self._drop_old_partitions()
            await self._database.rows("purge_secrets")
            await self._database.rows("purge_engines", ENGINE_FORGOTTEN_SECONDS)
            await self._database.rows("purge_repeats", ANSWER_FORGOTTEN_SECONDS)
            await self._database.rows("purge_sessions")
        log.debug(LogEvent.SWEEP_DONE, rows=removed)
        return self._settings.sweep.every_seconds

    async def prepare(self) -> None:
        """Make sure that emit and record find their partitions, and emit its settings."""
        settings = self._settings
        await self._database.rows("make_partitions", settings.sweep.partitions_ahead_days)
        await self._database.rows(
            "apply_settings", settings.emit.data_max_bytes, settings.sweep.events_days
        )

    async def _sweep_shard(self, shard: int) -> int:
        """Remove what is past its time in one shard; give the number of rows."""
        sweep = self._settings.sweep
        removed = await self._repeat("purge_deleted", shard, sweep.batch_max)
        removed += await self._repeat("purge_dead", shard, sweep.events_days, sweep.batch_max)
        removed += await self._repeat("purge_keys", shard, sweep.events_days, sweep.batch_max)
        removed += await self._repeat("purge_tallies", shard, sweep.attempts_days, sweep.batch_max)
        # An hour more than can be asked for, so that nobody asks for what is just being merged.
        await self._repeat("merge_tallies", shard, MINUTES_KEPT_HOURS + 1, sweep.batch_max)
        return removed

    async def _repeat(self, statement: str, *values: object) -> int:
        """Run a statement that takes a batch until it finds less than one."""
        removed = 0
        while True:
            rows: int = await self._database.value(statement, *values)
            removed += rows
            if rows < self._settings.sweep.batch_max:
                return removed

    async def _drop_old_partitions(self) -> None:
        """Drop days whose every row is past its retention."""
        sweep = self._settings.sweep
        for row in await self._database.rows(
            "old_partitions", sweep.events_days, sweep.attempts_days
        ):
            if row["attached"] and row["parent"] == "events":
                if await self._database.value("outbox_holds", row["ends_at"]):
                    continue  # they are still to be fanned out; the day stays until they are
                await self._expire(row["ends_at"])
            if not await self._is_kept(row["name"]):
                continue
            if 0 not in self._shards():
                return  # to write it took long, and it is another engine's now
            try:
                dropped = await self._drop(**row)
            except DatabaseUnfit:  # the tables belong to somebody else
                dropped = await self._database.value("drop_partition", row["name"])
            if dropped:
                log.info(LogEvent.SWEEP_PARTITION, name=row["name"])

    async def _is_kept(self, name: str) -> bool:
        """Archive a partition; tell whether it may go."""
        began = time.monotonic()
        try:
            rows = await self._archive(name)
        except (OSError, DatabaseUnfit) as error:
            log.error(LogEvent.SWEEP_UNARCHIVED, name=name, error=str(error))
            return False
        if rows is not None:
            seconds = round(time.monotonic() - began, 3)
            log.info(LogEvent.SWEEP_ARCHIVED, name=name, rows=rows, took_seconds=seconds)
        return True

    async def _expire(self, moment: object) -> None:
        """Give up what is undelivered of a day that is about to go, in every shard."""
        for shard in range(await self._database.value("shards_count")):
            expired = await self._repeat(
                "expire_deliveries", shard, moment, self._settings.sweep.batch_max
            )
            if expired:
                log.warning(LogEvent.SWEEP_EXPIRED, shard=shard, deliveries=expired)

    async def _drop(self, name: str, *, attached: bool, **row: Any) -> bool:
        if attached and not await self._detach(name=name, **row):
            return False
        await self._database.execute_alone(f"drop table aetherflow.{name}")
        return True

    async def _detach(self, parent: str, name: str, *, detaching: bool, **_: object) -> bool:
        """Detach a partition without stopping anybody who emits; tell whether it is done.

        It waits for transactions that use the table; where it was cut short, the next sweep
        finishes it.
        """
        how = "finalize" if detaching else "concurrently"
        try:
            await self._database.execute_alone(
                f"alter table aetherflow.{parent} detach partition aetherflow.{name} {how}"
            )
        except DatabaseUnavailable as error:
            log.warning(LogEvent.SWEEP_POSTPONED, name=name, error=str(error))
            return False
        return True
