"""Wide: one event for very many endpoints, and what other events notice of it.

Once the endpoints are paused, so that only their deliveries are made; once they are sent to as
well. Meanwhile other events are emitted to one more endpoint.
"""

import asyncio
import math
import statistics
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
        seen = []
        for round_ in range(1, plan.rounds + 1):
            seen.append(await _fan_out(hall, state))
            told = ", ".join(f"{name} {value:.3g}" for name, value in seen[-1].items())
            hall.say(f"round {round_} of {plan.rounds}: {state}: {told}")
        rows.append(
            {"endpoints are": state}
            | {name: middle(it[name] for it in seen if name in it) for name in seen[0]}
        )
    note = (
        f"The others: {OTHERS_PER_SECOND} events/s, from commit to first byte, while the "
        f"deliveries are made and while the rest of them are sent. Middle of {plan.rounds}."
    )
    return Leg("wide", f"One event for {plan.wide_endpoints:,} endpoints", rows, [note])


async def _fan_out(hall: Hall, state: str) -> dict[str, float]:
    """Give how long it took until every delivery was made, and how long the others did."""
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
            began, ended = await _until_made(scratch)
            latencies = await others
            if state == "active":
                await all_arrived(hall.sink, received + count, child)
    figures = {"made in s": ended - began}
    for name, since, until in (("meanwhile", began, ended), ("later", ended, math.inf)):
        of_then = [it.seconds * 1000 for it in latencies if since <= it.emitted_at < until]
        if of_then:
            figures[f"others {name}, median ms"] = statistics.median(of_then)
            figures[f"others {name}, max ms"] = max(of_then)
    return figures


async def _until_made(scratch: Scratch) -> tuple[float, float]:
    """Emit, and give the moments of the commit and of the last delivery's making."""
    began = time.monotonic()
    await emit(scratch.connection, 1, 1, pattern="t.all")
    while await scratch.connection.fetchval(_LEFT):
        await asyncio.sleep(0.01)
    return began, time.monotonic()
