"""Pinned: does an old snapshot, which keeps vacuum from its work, slow down full load?"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.figures import Leg, middle
from aetherflow_hooks.dev.bench.load import FLOOD_SAMPLE_SECONDS, add_endpoints, flood
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.server import Scratch

FREE, PINNED = "vacuum works", "pinned"

_DEAD_ROWS = f"""
select coalesce(sum(n_dead_tup), 0)::bigint {OURS} from pg_stat_user_tables
where schemaname = 'aetherflow' and relname in ('outbox', 'deliveries')
"""


async def measure(hall: Hall) -> Leg:
    """Load an engine fully, first with vacuum at work, then without."""
    plan = hall.plan
    leg = Leg("pinned", f"Full load under a snapshot of {plan.load_minutes:g} minutes")
    for name in (FREE, PINNED):
        hall.say(f"{name}: {plan.load_minutes:g} minutes")
        rates: list[float] = []
        async with AsyncExitStack() as stack:
            scratch = await stack.enter_async_context(hall.server.database())
            await add_endpoints(scratch.connection, plan.endpoints, hall.sink.url)
            await stack.enter_async_context(engine(scratch))
            if name == PINNED:
                await stack.enter_async_context(_snapshot(scratch))
            await flood(
                scratch,
                hall.sink,
                types=plan.endpoints,
                seconds=max(plan.load_minutes * 60, 4 * FLOOD_SAMPLE_SECONDS),
                note=rates.append,
            )
            dead_rows = await scratch.connection.fetchval(_DEAD_ROWS)
        part = max(1, len(rates) // 10)
        first, last = middle(rates[:part]) or 0.0, middle(rates[-part:]) or 0.0
        leg.rows.append(
            {
                "engine": name,
                "first tenth, a second": first,
                "last tenth, a second": last,
                "ratio": last / first,
                "dead rows": dead_rows,
            }
        )
        leg.series[name] = [
            ((place + 1) * FLOOD_SAMPLE_SECONDS / 60, rate) for place, rate in enumerate(rates)
        ]
    return leg


@asynccontextmanager
async def _snapshot(scratch: Scratch) -> AsyncIterator[None]:
    connection = await scratch.connect()
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetchval(f"select count(*) from aetherflow.control {OURS}")
            yield
    finally:
        await connection.close(timeout=5)
