"""Counters: what a turn cost, as the difference of two readings.

The bench's own statements say so in a comment, and are not counted.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aetherflow_hooks.dev.bench.process import children_of, cpu_seconds
from aetherflow_hooks.dev.bench.server import APPLICATION_NAME, Scratch

OURS = "/* bench */"
SAMPLE_SECONDS = 0.25

_STATEMENTS = f"""
select coalesce(sum(s.calls), 0)::bigint {OURS}
from pg_stat_statements s join pg_database d on d.oid = s.dbid
where d.datname = current_database() and s.query not like '%{OURS}%'
"""
_WAL = f"select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint {OURS}"
_CONNECTIONS = f"""
select count(*) {OURS} from pg_stat_activity
where datname = current_database() and backend_type = 'client backend' and application_name <> $1
"""


@dataclass(frozen=True, slots=True)
class Reading:
    """What had been used by a moment, or between two of them; None is not known."""

    at: float
    statements: int | None
    wal_bytes: int
    cpu_seconds: float | None  # of the contender
    postgres_cpu_seconds: float | None

    def since(self, before: "Reading") -> "Reading":
        """Give what was used between `before` and this."""
        return Reading(
            self.at - before.at,
            _difference(self.statements, before.statements),
            self.wal_bytes - before.wal_bytes,
            _difference(self.cpu_seconds, before.cpu_seconds),
            _difference(self.postgres_cpu_seconds, before.postgres_cpu_seconds),
        )


def _difference(after: Any, before: Any) -> Any:
    return None if after is None or before is None else after - before


async def read(scratch: Scratch, pid: int) -> Reading:
    """Read every counter, `pid` being the contender's process."""
    connection = scratch.connection
    at = time.monotonic()
    own, postgres = cpu_seconds(pid), _postgres_cpu_seconds(scratch.postmaster)
    statements = await connection.fetchval(_STATEMENTS) if scratch.has_statements else None
    return Reading(at, statements, await connection.fetchval(_WAL), own, postgres)


def _postgres_cpu_seconds(postmaster: int | None) -> float | None:
    """Add up the server and its processes, those that have ended too."""
    if postmaster is None:
        return None
    used = cpu_seconds(postmaster, with_reaped=True)
    if used is None:
        return None
    return used + sum(cpu_seconds(child) or 0.0 for child in children_of(postmaster))


@dataclass(slots=True)
class Peak:
    """The most connections that were seen at once."""

    connections: int = 0


@asynccontextmanager
async def watched(scratch: Scratch) -> AsyncIterator[Peak]:
    """Count the contender's connections a few times a second."""
    peak = Peak()
    connection = await scratch.connect()

    async def watch() -> None:
        while True:
            seen = await connection.fetchval(_CONNECTIONS, APPLICATION_NAME)
            peak.connections = max(peak.connections, seen)
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield peak
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await connection.close(timeout=5)
