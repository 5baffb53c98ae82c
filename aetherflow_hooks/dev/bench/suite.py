"""Suite: the legs in their order; in each round every contender of a drain has its turn."""

import os
import platform
import tempfile
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aetherflow_hooks.config import Settings
from aetherflow_hooks.dev.bench import latency, peers, watched
from aetherflow_hooks.dev.bench.drain import drain_ours, drain_peer, run_bare
from aetherflow_hooks.dev.bench.figures import Leg, Turn, middle, ratios, summary
from aetherflow_hooks.dev.bench.heavy import (
    backlog,
    dashboard,
    dead,
    history,
    hostile,
    pinned,
    retention,
    soak,
    wide,
)
from aetherflow_hooks.dev.bench.plan import EVENTS_PER_SHAPE, Hall, Plan
from aetherflow_hooks.dev.bench.receivers import receiver
from aetherflow_hooks.dev.bench.server import Server

TOLD_VERSIONS = ("aetherflow-hooks", "aiohttp", "asyncpg", "uvloop", "pgqueuer", "procrastinate")


async def drain(hall: Hall) -> Leg:
    """Let our engine, the bare loop and the peers make the same POSTs, in turn.

    Every other round goes backwards: what comes later in a round may find another machine.
    """
    plan = hall.plan
    turns: list[Turn] = []
    for round_ in range(1, plan.rounds + 1):
        for name in _contenders(hall)[:: 1 if round_ % 2 else -1]:
            turn = await _drain(hall, name, round_)
            turns.append(turn)
            hall.say(f"round {round_} of {plan.rounds}: {name} {turn.per_second:,.0f}/s")
    notes = [
        (
            f"{plan.events:,} stored events to {plan.endpoints} endpoints, "
            f"{plan.concurrency} POSTs at once; ratios to the bare loop of the same round, "
            f"middle of {plan.rounds}. Receiver: {hall.sink.kind}."
        )
    ]
    for one, other in (("ours, https", "ours"), ("ours", peers.PGQUEUER)):
        if between := ratios(turns, one, other):
            notes.append(f"{one} beside {other}: {middle(between):.2f}, middle of the rounds.")
    notes += [f"{name} is not installed." for name in peers.NEEDS if not peers.is_installed(name)]
    return Leg("drain", "Drain of stored events", summary(turns, peers.BARE), notes)


async def shapes(hall: Hall) -> Leg:
    """Drain the same number of deliveries over few and many endpoints."""
    plan = hall.plan
    deliveries = plan.events // EVENTS_PER_SHAPE
    wide_fan_out = min(1_000, deliveries)
    shapes_: dict[str, dict[str, Any]] = {
        f"{plan.endpoints} endpoints": {"events": deliveries, "endpoints": plan.endpoints},
        "1 endpoint": {"events": deliveries, "endpoints": 1},
        f"{deliveries:,} endpoints": {"events": deliveries, "endpoints": deliveries},
        f"1 event for {wide_fan_out:,}": {
            "events": deliveries // wide_fan_out,
            "endpoints": wide_fan_out,
            "fan_out": wide_fan_out,
        },
    }
    turns = []
    for round_ in range(1, plan.rounds + 1):
        for name, shape in shapes_.items():
            async with hall.server.database() as scratch:
                turn = await drain_ours(scratch, hall.sink, contender=name, round_=round_, **shape)
            turns.append(turn)
            hall.say(f"round {round_} of {plan.rounds}: {name} {turn.per_second:,.0f}/s")
    note = f"{deliveries:,} deliveries each; ratios to the first line of the same round."
    return Leg("shapes", "Few endpoints and many", summary(turns, next(iter(shapes_))), [note])


LEGS: dict[str, Callable[[Hall], Awaitable[Leg]]] = {
    "drain": drain,
    "shapes": shapes,
    "latency": latency.measure,
    "wide": wide.measure,
    "backlog": backlog.measure,
    "dead": dead.measure,
    "hostile": hostile.measure,
    "history": history.measure,
    "dashboard": dashboard.measure,
    "retention": retention.measure,
    "watch": watched.measure,
    "pinned": pinned.measure,
    "soak": soak.measure,
}
SHORT = ("drain", "shapes", "latency")  # what is measured unless more is asked for


async def run(
    plan: Plan,
    legs: Iterable[str],
    *,
    settings: Settings,
    dsn: str | None,
    own_receiver: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Measure `legs`; give the machine, the plan and a `Leg` for each.

    Raises:
        BenchFailed: a turn cannot be measured.
        DatabaseUnavailable: Postgres cannot be reached.
    """
    settings = settings.model_copy(
        update={"pace": settings.pace.model_copy(update={"slots": plan.concurrency})}
    )
    with tempfile.TemporaryDirectory(prefix="aetherflow-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # under root Postgres runs as somebody else, who has to get in
        async with (
            Server(settings, folder, dsn) as server,
            receiver(folder, own=own_receiver) as sink,
        ):
            hall = Hall(plan, server, sink, folder, say)
            machine = await _machine(server, sink.kind)
            measured = []
            for leg in legs:
                say(f"{leg}:")
                measured.append(await LEGS[leg](hall))
    return {"machine": machine, "plan": asdict(plan), "legs": measured}


def _contenders(hall: Hall) -> list[str]:
    """Name them, ours beside what it is compared with."""
    names = [peers.BARE, "ours"]
    if hall.sink.https_url:
        names.append("ours, https")
    names += [name for name in peers.NEEDS if peers.is_installed(name)]
    return names


async def _drain(hall: Hall, name: str, round_: int) -> Turn:
    plan = hall.plan
    if name.startswith("ours"):
        async with hall.server.database() as scratch:
            return await drain_ours(
                scratch,
                hall.sink,
                contender=name,
                round_=round_,
                events=plan.events,
                endpoints=plan.endpoints,
                https=name.endswith("https"),
            )
    told = peers.told(name, jobs=plan.events, concurrency=plan.concurrency)
    if name in (peers.BARE, peers.BARE_UVLOOP):
        return await run_bare(hall.sink, name, told, round_=round_)
    return await drain_peer(hall.server, hall.sink, name, told, round_=round_)


async def _machine(server: Server, receiver_kind: str) -> dict[str, Any]:
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "receiver": receiver_kind,
        "postgres": await server.facts(),
        "versions": {name: found for name in TOLD_VERSIONS if (found := _version(name))},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
