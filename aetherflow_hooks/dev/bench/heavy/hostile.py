"""Hostile: do receivers that drip, flood, bomb and lie harm the others, or the engine's memory?

Two databases with the same good endpoints; in one of them there are hostile ones beside them, for
which much is due. In turn an engine works on each, and events are offered to the good ones.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from aetherflow_hooks.config import PaceSettings
from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.figures import Leg, middle, spread
from aetherflow_hooks.dev.bench.latency import offered, seconds_of, warm
from aetherflow_hooks.dev.bench.load import add_endpoints, add_waiting, endpoint_ids
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.process import Child, memory_bytes
from aetherflow_hooks.dev.bench.receivers import HOST, own_sink

SCRIPTS = {
    "drip": "drip;every=0.5",
    "drip-head": "drip-head;every=0.5",
    "deaf": "deaf",
    "hang": "hang",
    "hints": "endless-103",
    "extension": "endless-extension",
    "flood": "flood",
    "bomb": "bomb",
    "headers": "many-headers;count=10000",
    "garbage": "garbage",
    "short": "short",
    "twice": "twice",
}
KINDS = ("good ones alone", "beside the hostile")
SAMPLE_SECONDS = 0.25
# Half of them hold a slot until the deadline of 10 s. The others answer or break off at once, and
# are asked as often: what is measured is their answers, not ever more of them.
_ONE_A_DEADLINE = f"""
update aetherflow.endpoints set rate_per_second = 0.1 where id = any($1::text[]) {OURS}
"""


@dataclass(slots=True)
class Seen:
    """What was seen of an engine and its hostile receivers meanwhile."""

    memory_mib: float = 0.0
    at_once: int = 0


async def measure(hall: Hall) -> Leg:
    """Offer a fixed rate to the good endpoints, with and without hostile ones beside them."""
    plan = hall.plan
    turns: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(own_sink(notes=True))
        torment = await stack.enter_async_context(Child("torment"))
        port = (await torment.ask({"paths": [f"/{name}" for name in SCRIPTS]}))["port"]
        scratches = {}
        for kind in KINDS:
            scratch = await stack.enter_async_context(hall.server.database())
            scratches[kind] = replace(
                scratch, settings=scratch.settings.model_copy(update={"pace": PaceSettings()})
            )
            await add_endpoints(scratch.connection, plan.endpoints, sink.url)
        connection = scratches[KINDS[1]].connection
        for name, script in SCRIPTS.items():
            url = f"http://{HOST}:{port}/{name}?do={script}"
            await add_endpoints(connection, plan.hostile_each, url, pattern=f"hostile.{name}.#")
        hostile = await endpoint_ids(connection, "hostile.")
        await connection.execute(_ONE_A_DEADLINE, hostile)
        await add_waiting(connection, hostile, plan.hostile_rows)
        for round_ in range(1, plan.rounds + 1):
            for kind, scratch in scratches.items():
                async with engine(scratch) as child, _watched(child, torment) as seen:
                    await warm(scratch, sink, plan.endpoints)
                    latencies = await offered(
                        scratch,
                        sink,
                        per_second=plan.hostile_per_second,
                        seconds=plan.offered_seconds,
                        types=plan.endpoints,
                    )
                found = spread(seconds_of(latencies))
                found |= {"memory, MiB": seen.memory_mib, "hostile at once": seen.at_once}
                turns[kind].append(found)
                hall.say(f"round {round_} of {plan.rounds}: {kind}: p99 {found['p99_ms']:.1f} ms")
    rows = [
        {"engine": kind, **{name: middle(turn[name] for turn in found) for name in found[0]}}
        for kind, found in turns.items()
    ]
    pairs = list(zip(*turns.values(), strict=True))
    ratio = middle(hostile["p99_ms"] / alone["p99_ms"] for alone, hostile in pairs)
    more = middle(hostile["memory, MiB"] - alone["memory, MiB"] for alone, hostile in pairs)
    return Leg(
        "hostile",
        f"{len(hostile)} hostile endpoints beside {plan.endpoints}",
        rows,
        [
            (
                f"{plan.hostile_per_second:,} events/s to the good ones for "
                f"{plan.offered_seconds:g} s. p99 beside the hostile against p99 alone, middle of "
                f"{plan.rounds}: {ratio:.2f}; {more:.1f} MiB more."
            )
        ],
    )


@asynccontextmanager
async def _watched(engine_: Child, torment: Child) -> AsyncIterator[Seen]:
    """Look a few times a second at the memory of an engine and at what its receivers hold."""
    seen = Seen()

    async def watch() -> None:
        while True:
            seen.memory_mib = max(seen.memory_mib, (memory_bytes(engine_.pid) or 0) / 2**20)
            seen.at_once = max(seen.at_once, await torment.ask("open"))
            await asyncio.sleep(SAMPLE_SECONDS)

    task = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
