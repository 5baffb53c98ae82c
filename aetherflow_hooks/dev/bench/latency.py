"""Latency: from the commit of an event to the first byte at its receiver; and what idling costs.

The time begins when the producer asks for the commit, so its fsync is inside, and ends when the
first bytes of the request are read by the receiver, our own one, which notes that.

To an engine that sleeps, single events go in turn with those of `peers.notified`: a machine that
has idled finds its caches cold, by how much depends on its neighbours, and both wait for that.
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
from aetherflow_hooks.dev.bench.peers import notified
from aetherflow_hooks.dev.bench.peers.request import body_of, event_id_of
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.process import Child
from aetherflow_hooks.dev.bench.receivers import OwnSink, own_sink
from aetherflow_hooks.dev.bench.server import Scratch
from aetherflow_hooks.dev.bench.sink import has_uvloop

WARM_SECONDS = 2.0
WARM_PER_SECOND = 500
ARRIVE_SECONDS_MAX = 60.0
WARM_EVENTS = 2  # of each, before single ones count
ASLEEP_AFTER_SECONDS = 0.5  # an engine without events sleeps by then

LEAST = "a row, NOTIFY, a POST"


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
        single, least = map(seconds_of, await _single(hall, scratch, sink))
        for offered_, seconds in (("single events, asleep", single), (LEAST, least)):
            leg.rows.append({"offered": offered_, "events": len(seconds)} | spread(seconds))
        leg.series |= {"asleep": cumulated(single), LEAST: cumulated(least)}
        beside = leg.rows[-2]["p50_ms"] / leg.rows[-1]["p50_ms"]
        leg.notes.append(
            f"{LEAST}: stored and notified of in one commit, read and sent by who listens, "
            f"nothing recorded; in turn with ours. p50 of ours beside it: {beside:.2f}."
        )

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


async def _single(
    hall: Hall, scratch: Scratch, sink: OwnSink
) -> tuple[list[Latency], list[Latency]]:
    """Emit events one at a time, and store as many for `peers.notified`; give theirs as well."""
    ours, theirs = {}, {}
    async with Child("peers.notified") as peer:
        await peer.ask({"dsn": scratch.dsn, "url": sink.url, "uvloop": has_uvloop()})
        for number in range(-WARM_EVENTS, hall.plan.single_events):
            await asyncio.sleep(ASLEEP_AFTER_SECONDS)
            asked_at = time.monotonic()
            event_id = await scratch.connection.fetchval(
                "select aetherflow.emit($1, '{}'::text) /* bench */",
                f"t.{number % hall.plan.endpoints}",
            )
            ours[event_id] = asked_at
            await asyncio.sleep(ASLEEP_AFTER_SECONDS)
            event_id = event_id_of(number + WARM_EVENTS)
            theirs[event_id] = time.monotonic()
            await scratch.connection.execute(notified.STORE, event_id, body_of(event_id).decode())
            peer.check()
        arrived = await _arrived(sink, ours | theirs)
    return arrived[WARM_EVENTS : len(ours)], arrived[len(ours) + WARM_EVENTS :]


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
