"""Backlog: does it cost more to work where millions wait?

One database per size, filled once; in each round an engine is started on each of them in turn and
stopped when so many requests have come, which are then filled up again. The time runs from the
first request to the last of them.
"""

import asyncio
import statistics
import time
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from aetherflow_hooks.db.connections import FLOW_OPTIONS
from aetherflow_hooks.db.statements import statements
from aetherflow_hooks.dev.bench.drain import POLL_SECONDS, all_arrived
from aetherflow_hooks.dev.bench.figures import Leg, middle
from aetherflow_hooks.dev.bench.load import add_backlog, add_endpoints
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.process import memory_bytes
from aetherflow_hooks.dev.bench.server import WITHOUT_LIMITS, Scratch
from aetherflow_hooks.rules.lane import EVER_SECONDS

CLAIM_ROWS = 500
CLAIMED_EACH = 50  # of an endpoint
CLAIMS = 21
TOKEN = 1
TIMEOUT_SECONDS, MARGIN_SECONDS = 10.0, 20.0


async def measure(hall: Hall) -> Leg:
    """Drain a part of each size."""
    plan = hall.plan
    rates: dict[int, list[float]] = {rows: [] for rows in plan.backlog_rows}
    claims: dict[int, list[float]] = {rows: [] for rows in plan.backlog_rows}
    memory: dict[int, float] = dict.fromkeys(plan.backlog_rows, 0.0)
    async with AsyncExitStack() as stack:
        scratches = {}
        for rows in plan.backlog_rows:
            hall.say(f"filling {rows:,} rows")
            scratch = await stack.enter_async_context(hall.server.database())
            await add_endpoints(scratch.connection, plan.backlog_endpoints, hall.sink.url)
            await add_backlog(scratch.connection, rows // plan.backlog_endpoints)
            scratches[rows] = scratch
        for round_ in range(1, plan.rounds + 1):
            for rows, scratch in scratches.items():
                claims[rows].append(await _claim(scratch))
                rate, most = await _drain(hall, scratch)
                rates[rows].append(rate)
                memory[rows] = max(memory[rows], most)
                await add_backlog(
                    scratch.connection, plan.backlog_drained // plan.backlog_endpoints + 1
                )
                hall.say(
                    f"round {round_} of {plan.rounds}: {rows:,} waiting: {rate:,.0f}/s, "
                    f"a claim {claims[rows][-1]:.1f} ms"
                )
    least = min(plan.backlog_rows)
    lines = [
        {
            "waiting": rows,
            "per_second": middle(rates[rows]),
            "ratio": middle(a / b for a, b in zip(rates[rows], rates[least], strict=True)),
            f"claim of {CLAIM_ROWS} ms": middle(claims[rows]),
            "claim ratio": middle(a / b for a, b in zip(claims[rows], claims[least], strict=True)),
            "memory_max_mib": memory[rows] or None,
        }
        for rows in plan.backlog_rows
    ]
    return Leg(
        "backlog",
        "Work where many wait",
        lines,
        [
            (
                f"{plan.backlog_endpoints:,} endpoints; {plan.backlog_drained:,} drained in "
                f"each round; ratios to the smallest of the same round, middle of {plan.rounds}."
            )
        ],
        {"ours": [(rows, middle(rates[rows]) or 0.0) for rows in plan.backlog_rows]},
    )


async def _drain(hall: Hall, scratch: Scratch) -> tuple[float, float]:
    """Give deliveries a second, and the engine's most memory in MiB."""
    before = await hall.sink.count()
    async with engine(scratch, settle=False) as child:
        while await hall.sink.count() == before:
            child.check()
            await asyncio.sleep(POLL_SECONDS / 4)
        first, began = await hall.sink.count(), time.monotonic()
        last = before + hall.plan.backlog_drained
        await all_arrived(hall.sink, last, child)
        arrived = await hall.sink.count()
        seconds = time.monotonic() - began
        most = memory_bytes(child.pid, peak=True) or 0
    return (arrived - first) / seconds, most / 2**20


async def _claim(scratch: Scratch) -> float:
    """Give the ms that it takes to lease CLAIM_ROWS as the engine does, taken back each time.

    They are the same endpoints' in every database, and as many of each: the waiting of the
    smallest are spread over all shards, so no single one has so many.
    """
    connection: Any = await asyncpg.connect(
        scratch.dsn, server_settings=FLOW_OPTIONS, **WITHOUT_LIMITS
    )
    try:
        fullest = await connection.fetch(
            "select shard, array_agg(id) as ids from aetherflow.endpoints "
            "group by shard order by count(*) desc, shard /* bench */"
        )
        statement = await connection.prepare(
            statements(scratch.settings.database.schema_name)["lease_deliveries"]
        )
        took = []
        for _ in range(CLAIMS):
            transaction = connection.transaction()
            await transaction.start()
            claimed = 0
            began = time.perf_counter()
            for shard, ids in fullest:
                rooms = [CLAIMED_EACH] * len(ids)
                sinces = [EVER_SECONDS] * len(ids)
                rows = await statement.fetch(
                    shard, ids, rooms, sinces, TIMEOUT_SECONDS, MARGIN_SECONDS, TOKEN
                )
                claimed += len(rows)
                if claimed >= CLAIM_ROWS:
                    break
            took.append((time.perf_counter() - began) * 1000 * CLAIM_ROWS / claimed)
            await transaction.rollback()
    finally:
        await connection.close(timeout=5)
    return statistics.median(took)
