"""Load: endpoints that want events, and events for them."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.receivers import Receiver
from aetherflow_hooks.dev.bench.server import Scratch

MAX_IN_FLIGHT = 64
BACKLOG_ENDPOINTS, BACKLOG_EVENTS = 1_000, 1_000  # made by one statement
FLOOD_EVENTS = 5_000
FLOOD_SAMPLE_SECONDS = 5.0
# With its envelope a body of 500 bytes.
DATA = (
    '{"workflow": {"id": "wf_abc123", "name": "Email Processor", "status": "completed"}, "run": '
    '{"id": "run_660fcb9c0dd7", "steps": 12, "duration_ms": 48213, "output": "' + "x" * 212 + '"}}'
)

# Ids, secrets and patterns as `endpoint add` would make them; by set, since some legs take 100,000.
_ENDPOINTS = f"""
with made as (
    select n, 'ep_' || left(md5($1 || n), 12) as id from generate_series(0, $2::int - 1) as n
), added as (
    insert into aetherflow.endpoints (id, shard, url, max_in_flight, state, retry_schedule_seconds)
    select id, aetherflow.shard_of(id), $3, $4, $6, $7 from made
), kept as (
    insert into aetherflow.secrets (endpoint_id, secret)
    select id, 'whsec_' || encode(sha256(id::bytea), 'base64') from made
)
insert into aetherflow.subscriptions (tenant, pattern, endpoint_id)
select '', replace($5, '#', n::text), id from made {OURS}
"""
_EMIT = f"""
select count(aetherflow.emit(replace($3, '#', (n % $2::int)::text), $4::text)) {OURS}
from generate_series(0, $1::int - 1) as n
"""


async def add_endpoints(
    connection: Any,
    count: int,
    url: str,
    *,
    pattern: str = "t.#",
    state: str = "active",
    retries: tuple[float, ...] | None = None,
) -> None:
    """Add endpoints of one URL; `#` in `pattern` is each one's number, from 0."""
    await connection.execute(
        _ENDPOINTS, pattern, count, url, MAX_IN_FLIGHT, pattern, state, retries
    )
    # An installation has had its endpoints for long: autovacuum has seen them.
    await connection.execute("analyze aetherflow.endpoints, aetherflow.subscriptions /* bench */")


async def emit(connection: Any, events: int, types: int, *, pattern: str = "t.#") -> None:
    """Emit events, of so many types in turn; in the transaction that is open, if one is."""
    await connection.fetchval(_EMIT, events, types, pattern, DATA)


# Events that nobody wanted, as far as fan-out knows: their deliveries are made by `_WAITING`.
_EVENTS = f"""
select aetherflow.emit('backlog', $2::text) {OURS} from generate_series(1, $1::int)
"""
_NO_OUTBOX = f"delete from aetherflow.outbox where type = 'backlog' {OURS}"
_WAITING = f"""
insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)
select e.shard, v.shard, e.id, v.id, v.emitted_at
from aetherflow.endpoints e, aetherflow.events v
where v.type = 'backlog' and v.id > $1 and e.id = any($2::text[])
order by e.shard, e.id, v.id {OURS}
"""


async def add_waiting(connection: Any, endpoint_ids: list[str], each: int) -> None:
    """Add deliveries that are due: `each` of as many events, for all of these endpoints."""
    async with connection.transaction():
        last = await connection.fetchval(
            f"select coalesce(max(id), '') from aetherflow.events where type = 'backlog' {OURS}"
        )
        await connection.execute(_EVENTS, each, DATA)
        await connection.execute(_NO_OUTBOX)
        await connection.execute(_WAITING, last, endpoint_ids)


async def settle(connection: Any) -> None:
    """Leave the deliveries that were added as they would be by the time that so many wait.

    Autovacuum has seen them, and what was written of them does not wait for the disk any more: else
    each commit of a turn would.
    """
    await connection.execute("vacuum analyze aetherflow.deliveries /* bench */")
    await connection.execute("checkpoint /* bench */")


async def add_backlog(connection: Any, each: int) -> None:
    """Add deliveries that are due: `each` for every endpoint of the usual pattern."""
    ids = await endpoint_ids(connection, "t.")
    # In parts, so that no statement sorts millions of rows.
    for start in range(0, len(ids), BACKLOG_ENDPOINTS):
        for done in range(0, each, BACKLOG_EVENTS):
            await add_waiting(
                connection, ids[start : start + BACKLOG_ENDPOINTS], min(BACKLOG_EVENTS, each - done)
            )
    await settle(connection)


async def endpoint_ids(connection: Any, pattern: str) -> list[str]:
    """List the endpoints whose pattern begins so."""
    rows = await connection.fetch(
        "select endpoint_id from aetherflow.subscriptions where starts_with(pattern, $1) "
        f"order by endpoint_id {OURS}",
        pattern,
    )
    return [row["endpoint_id"] for row in rows]


async def flood(
    scratch: Scratch, sink: Receiver, *, types: int, seconds: float, note: Callable[[float], None]
) -> None:
    """Keep an engine busy for long: emit whenever less than FLOOD_EVENTS are on their way.

    `note` is told the rate of each FLOOD_SAMPLE_SECONDS, in deliveries a second.
    """
    first = await sink.count()
    began = sampled_at = time.monotonic()
    emitted = sampled = 0
    while (now := time.monotonic()) < began + seconds:
        arrived = await sink.count() - first
        if now - sampled_at >= FLOOD_SAMPLE_SECONDS:
            note((arrived - sampled) / (now - sampled_at))
            sampled, sampled_at = arrived, now
        if emitted - arrived < FLOOD_EVENTS:
            await emit(scratch.connection, FLOOD_EVENTS, types)
            emitted += FLOOD_EVENTS
        else:
            await asyncio.sleep(0.05)
