"""Wide: one event for very many endpoints, and what other events notice of it.

Once the endpoints are paused, so that only their deliveries are made; once they are sent to as
well. Meanwhile other events are emitted to one more endpoint.
"""

import asyncio
import time

from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.drain import all_arrived
from aetherflow_hooks.dev.bench.figures import Leg, middle
from aetherflow_hooks.dev.bench.latency import offered, warm
from aetherflow_hooks.dev.bench.load import add_endpoints, emit
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.receivers import own_sink
from aetherflow_hooks.dev.bench.server import Scratch

OTHERS_PER_SECOND = 50
OTHERS_SECONDS = 6.0
HEAD_START_SECONDS = 1.5  # of the others

_LEFT = f"select exists (select from aetherflow.outbox where type = 't.all') {OURS}"


async def measure(hall: Hall) -> Leg:
    """Fan one event out."""
    plan = hall.plan
    rows = []
    for state in ("paused", "active"):
        took, worst, usual = [], [], []
        for round_ in range(1, plan.rounds + 1):
            seconds, others = await _fan_out(hall, state)
            took.append(seconds)
            worst.append(max(others) * 1000)
            usual.append((middle(others) or 0.0) * 1000)
            hall.say(
                f"round {round_} of {plan.rounds}: {state}: {seconds:.2f} s, "
                f"others {worst[-1]:.0f} ms at the most"
            )
        rows.append(
            {
                "endpoints are": state,
                "seconds until all deliveries are made": middle(took),
                "other events, median ms": middle(usual),
                "other events, max ms": middle(worst),
            }
        )
    note = (
        f"The others: {OTHERS_PER_SECOND} events/s, from commit to first byte. "
        f"Middle of {plan.rounds}."
    )
    return Leg("wide", f"One event for {plan.wide_endpoints:,} endpoints", rows, [note])


async def _fan_out(hall: Hall, state: str) -> tuple[float, list[float]]:
    """Give the seconds from commit until every delivery is made, and the others' latencies."""
    count = hall.plan.wide_endpoints
    async with own_sink(notes=True) as sink, hall.server.database() as scratch:
        await add_endpoints(scratch.connection, count, hall.sink.url, pattern="t.all", state=state)
        await add_endpoints(scratch.connection, 1, sink.url, pattern="t.0")
        received = await hall.sink.count()
        async with engine(scratch) as child:
            await warm(scratch, sink, 1)
            others = asyncio.create_task(
                offered(
                    scratch, sink, per_second=OTHERS_PER_SECOND, seconds=OTHERS_SECONDS, types=1
                )
            )
            await asyncio.sleep(HEAD_START_SECONDS)
            seconds = await _until_made(scratch)
            latencies = await others
            if state == "active":
                await all_arrived(hall.sink, received + count, child)
    return seconds, latencies


async def _until_made(scratch: Scratch) -> float:
    began = time.monotonic()
    await emit(scratch.connection, 1, 1, pattern="t.all")
    while await scratch.connection.fetchval(_LEFT):
        await asyncio.sleep(0.01)
    return time.monotonic() - began
