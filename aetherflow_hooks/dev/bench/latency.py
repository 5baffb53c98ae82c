"""Latency: from the commit of an event to the first byte at its receiver; and what idling costs.

The time begins when the producer asks for the commit, so its fsync is inside, and ends when the
first bytes of the request are read by the receiver, our own one, which notes that.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import NamedTuple

from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.counters import read
from aetherflow_hooks.dev.bench.figures import Leg, spread
from aetherflow_hooks.dev.bench.load import add_endpoints
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.process import Child
from aetherflow_hooks.dev.bench.receivers import OwnSink, own_sink
from aetherflow_hooks.dev.bench.server import Scratch
from aetherflow_hooks.dev.bench.sink import has_uvloop

WARM_SECONDS = 2.0
WARM_PER_SECOND = 500
ARRIVE_SECONDS_MAX = 60.0
ASLEEP_AFTER_SECONDS = 0.5  # an engine without events sleeps by then


class Latency(NamedTuple):
    """How long an event took from its commit to its receiver."""

    emitted_at: float  # seconds of CLOCK_MONOTONIC
    seconds: float


async def measure(hall: Hall) -> Leg:
    """Measure single events to an engine that sleeps, and a fixed rate."""
    plan = hall.plan
    leg = Leg("latency", "Commit to first byte at the receiver")
    async with (
        own_sink(notes=True) as sink,
        hall.server.database() as scratch,
        running(scratch, plan.endpoints, sink) as child,
    ):
        leg.notes.append(f"Receiver: {sink.kind}.")
        hall.say(f"{plan.single_events} single events to an engine that sleeps")
        single = seconds_of(await _single(scratch, sink, plan.single_events, plan.endpoints))
        leg.rows.append({"offered": "single events, asleep", "events": len(single)})
        leg.rows[-1] |= spread(single)
        leg.series["asleep"] = cumulated(single)

        hall.say(f"{plan.offered_per_second} events/s for {plan.offered_seconds:g} s")
        before = await read(scratch, child.pid)
        under_load = seconds_of(
            await offered(
                scratch,
                sink,
                per_second=plan.offered_per_second,
                seconds=plan.offered_seconds,
                types=plan.endpoints,
            )
        )
        cost = (await read(scratch, child.pid)).since(before)
        row = {"offered": f"{plan.offered_per_second:,}/s", "events": len(under_load)}
        leg.rows.append(row | spread(under_load))
        leg.series[f"{plan.offered_per_second:,}/s"] = cumulated(under_load)
        leg.notes.append(
            f"At {plan.offered_per_second:,}/s: {_percent(cost.cpu_seconds, cost.at)} of a core "
            f"for the engine, {_percent(cost.postgres_cpu_seconds, cost.at)} for Postgres with "
            f"its producers, {_per(cost.statements, len(under_load))} statements per delivery."
        )

        hall.say(f"{plan.quiet_seconds:g} s of nothing")
        await asyncio.sleep(WARM_SECONDS)
        before = await read(scratch, child.pid)
        await asyncio.sleep(plan.quiet_seconds)
        idle = (await read(scratch, child.pid)).since(before)
        leg.notes.append(
            f"Idle: {_percent(idle.cpu_seconds, idle.at)} of a core for the engine, "
            f"{_per(idle.statements, idle.at)} statements a second."
        )
    return leg


@asynccontextmanager
async def running(scratch: Scratch, endpoints: int, sink: OwnSink) -> AsyncIterator[Child]:
    """Run an engine for endpoints of one receiver, each of which has answered already."""
    await add_endpoints(scratch.connection, endpoints, sink.url)
    async with engine(scratch) as child:
        await warm(scratch, sink, endpoints)
        yield child


async def warm(scratch: Scratch, sink: OwnSink, types: int) -> None:
    """Let every endpoint answer once, and forget that."""
    await offered(
        scratch,
        sink,
        per_second=WARM_PER_SECOND,
        seconds=max(WARM_SECONDS, types / WARM_PER_SECOND),
        types=types,
    )


async def offered(
    scratch: Scratch, sink: OwnSink, *, per_second: int, seconds: float, types: int
) -> list[Latency]:
    """Offer a fixed rate; give the latency of each event, in the order of emitting.

    Raises:
        BenchFailed: not every event has arrived.
    """
    async with Child("producer") as producer:
        told = {"dsn": scratch.dsn, "per_second": per_second, "seconds": seconds, "types": types}
        await producer.ask(told | {"uvloop": has_uvloop()})
        await producer.say("go")
        emitted = await producer.hear(seconds + ARRIVE_SECONDS_MAX)
    return await _arrived(sink, emitted)


async def _single(scratch: Scratch, sink: OwnSink, events: int, types: int) -> list[Latency]:
    emitted = {}
    for number in range(events):
        await asyncio.sleep(ASLEEP_AFTER_SECONDS)
        asked_at = time.monotonic()
        event_id = await scratch.connection.fetchval(
            "select aetherflow.emit($1, '{}'::text) /* bench */", f"t.{number % types}"
        )
        emitted[event_id] = asked_at
    return await _arrived(sink, emitted)


async def _arrived(sink: OwnSink, emitted: Mapping[str, float]) -> list[Latency]:
    arrivals: dict[str, float] = {}
    give_up_at = time.monotonic() + ARRIVE_SECONDS_MAX
    while missing := emitted.keys() - arrivals.keys():
        for event_id, at in (await sink.notes()).items():
            arrivals.setdefault(event_id, at)
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"{len(missing)} of {len(emitted)} events have not arrived")
        await asyncio.sleep(0.05)
    return [
        Latency(asked_at, arrivals[event_id] - asked_at) for event_id, asked_at in emitted.items()
    ]


def seconds_of(latencies: Iterable[Latency]) -> list[float]:
    """Leave out when the events were emitted."""
    return [latency.seconds for latency in latencies]


def cumulated(seconds: list[float]) -> list[tuple[float, float]]:
    """Give points (latency in ms, share of events up to it in %), a hundred at the most."""
    ordered = sorted(seconds)
    step = max(1, len(ordered) // 100)
    points = [
        (ordered[place] * 1000, (place + 1) / len(ordered) * 100)
        for place in range(0, len(ordered), step)
    ]
    return [*points, (ordered[-1] * 1000, 100.0)]


def _percent(part: float | None, of: float) -> str:
    return "an unknown part" if part is None else f"{part / of:.1%}"


def _per(count: int | None, of: float) -> str:
    return "an unknown number of" if count is None else f"{count / of:.3g}"
