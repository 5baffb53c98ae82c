"""Soak: full load for long while millions wait; memory, connections and tables must not grow.

As many events are emitted as are delivered, so that every stage is at work and as many wait at the
end as at the beginning.
"""

from aetherflow_hooks.dev.bench.counters import OURS, watched
from aetherflow_hooks.dev.bench.figures import Leg
from aetherflow_hooks.dev.bench.load import (
    FLOOD_SAMPLE_SECONDS,
    add_backlog,
    add_endpoints,
    flood,
)
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.process import memory_bytes

_HOT_BYTES = f"""
select sum(pg_total_relation_size(c.oid))::bigint {OURS} from pg_class c
where c.oid in ('aetherflow.outbox'::regclass, 'aetherflow.deliveries'::regclass)
"""


async def measure(hall: Hall) -> Leg:
    """Load an engine fully, and look at what it has."""
    plan = hall.plan
    rates: list[tuple[float, float]] = []
    memory: list[tuple[float, float]] = []
    sizes: list[tuple[float, float]] = []
    async with hall.server.database() as scratch:
        await add_endpoints(scratch.connection, plan.soak_endpoints, hall.sink.url)
        hall.say(f"filling {plan.soak_rows:,} rows")
        await add_backlog(scratch.connection, plan.soak_rows // plan.soak_endpoints)
        hall.say(f"{plan.load_minutes:g} minutes of full load")
        async with engine(scratch) as child, watched(scratch) as peak:

            def note(rate: float) -> None:
                minutes = (len(rates) + 1) * FLOOD_SAMPLE_SECONDS / 60
                rates.append((minutes, rate))
                memory.append((minutes, (memory_bytes(child.pid) or 0) / 2**20))

            samples = max(2, round(plan.load_minutes * 60 / FLOOD_SAMPLE_SECONDS / 4))
            for _ in range(4):
                await flood(
                    scratch,
                    hall.sink,
                    types=plan.soak_endpoints,
                    seconds=samples * FLOOD_SAMPLE_SECONDS + 0.5,
                    note=note,
                )
                size = await scratch.connection.fetchval(_HOT_BYTES)
                sizes.append((rates[-1][0], size / 2**20))
    quarter = max(1, len(rates) // 4)
    rows = []
    for place in range(4):
        part = slice(place * quarter, (place + 1) * quarter)
        rows.append(
            {
                "until minute": rates[part][-1][0],
                "per_second": sum(rate for _, rate in rates[part]) / quarter,
                "memory, MiB": max(size for _, size in memory[part]),
                "outbox and deliveries, MiB": sizes[place][1],
            }
        )
    return Leg(
        "soak",
        f"Full load for {plan.load_minutes:g} minutes",
        rows,
        [
            (
                f"{plan.soak_rows:,} wait, for {plan.soak_endpoints:,} endpoints. "
                f"At most {peak.connections} connections."
            )
        ],
        {"a second": rates, "memory, MiB": memory, "hot tables, MiB": sizes},
    )
