"""Drain: work that is stored and committed, until the last result is stored.

Nobody's start counts. Our engine runs already and has nothing to do: all events are emitted in one
transaction, and its COMMIT is the start gun, from which fan-out, leases, POSTs and results are all
inside the time. The other contenders have connected and say that they are ready; their jobs are
stored and committed, and a word on stdin is the gun. The end is the moment at which the database
shows nothing undone, looked for every few ms once the receiver has had all requests. Then the
stored results are counted: a turn that lost or failed any is an error and no figure.
"""

import asyncio
import time
from typing import Any

from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.counters import OURS, Reading, read, watched
from aetherflow_hooks.dev.bench.figures import Turn
from aetherflow_hooks.dev.bench.load import add_endpoints, emit
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.process import Child, memory_bytes
from aetherflow_hooks.dev.bench.receivers import Receiver
from aetherflow_hooks.dev.bench.server import Scratch, Server

STALLED_SECONDS = 60.0  # longer than any pause that a healthy contender makes
POLL_SECONDS = 0.02  # of the receiver, which costs it next to nothing
POLL_END_SECONDS = 0.003  # of the database, when only the last results are missing

LEFT = f"""
select exists (select from aetherflow.outbox) or exists (select from aetherflow.deliveries) {OURS}
"""
STORED = f"""
select count(*) {OURS} from aetherflow.attempts where verdict = 'delivered' and started_at >= $1
"""


async def drain_ours(
    scratch: Scratch,
    sink: Receiver,
    *,
    contender: str = "ours",
    round_: int = 1,
    events: int,
    endpoints: int,
    fan_out: int = 1,
    https: bool = False,
    are_there: bool = False,
) -> Turn:
    """Drain `events`, each wanted by `fan_out` endpoints: by one of all, or else by every one.

    They are added, unless they `are_there` from an earlier turn.

    Raises:
        BenchFailed: not every delivery was stored as delivered.
    """
    url = sink.https_url if https else sink.url
    assert url is not None
    pattern = "t.#" if fan_out == 1 else "t.all"
    types = endpoints if fan_out == 1 else 1
    if not are_there:
        await add_endpoints(scratch.connection, endpoints, url, pattern=pattern)
    first_at = await scratch.connection.fetchval(f"select now() {OURS}")
    async with engine(scratch, certificate=sink.certificate if https else None) as child:
        producer = await scratch.connect()
        try:
            gun = producer.transaction()
            await gun.start()
            await emit(producer, events, types, pattern=pattern)
            received = await sink.count()
            async with watched(scratch) as peak:
                before = await read(scratch, child.pid)
                began = time.monotonic()
                await gun.commit()
                deliveries = events * fan_out
                await all_arrived(sink, received + deliveries, child)
                ended = await nothing_left(scratch.connection, LEFT, child)
            cost = (await read(scratch, child.pid)).since(before)
        finally:
            await producer.close(timeout=5)
        stored = await scratch.connection.fetchval(STORED, first_at)
        if stored != deliveries:
            raise BenchFailed(
                f"{contender}: {stored} of {deliveries} deliveries are stored as delivered: "
                f"{child.complaint()}"
            )
        return _turn(contender, round_, deliveries, ended - began, cost, peak.connections, child)


async def drain_peer(
    server: Server, sink: Receiver, contender: str, told: dict[str, Any], *, round_: int
) -> Turn:
    """Drain the jobs that a peer has stored; `told` is what its process is told.

    Raises:
        BenchFailed: not every job was stored as done.
    """
    async with server.database(migrated=False) as scratch, Child(told["module"]) as child:
        ready = await child.ask(told | {"dsn": scratch.dsn, "url": sink.url})
        jobs = told["jobs"]
        received = await sink.count()
        async with watched(scratch) as peak:
            before = await read(scratch, child.pid)
            began = time.monotonic()
            await child.say("go")
            await all_arrived(sink, received + jobs, child)
            ended = await nothing_left(scratch.connection, f"{ready['left']} {OURS}", child)
        cost = (await read(scratch, child.pid)).since(before)
        stored = await scratch.connection.fetchval(f"{ready['stored']} {OURS}")
        if stored != jobs:
            raise BenchFailed(f"{contender}: {stored} of {jobs} jobs are stored as done")
        return _turn(contender, round_, jobs, ended - began, cost, peak.connections, child)


async def run_bare(sink: Receiver, contender: str, told: dict[str, Any], *, round_: int) -> Turn:
    """Let the bare loop make its POSTs; it tells its time itself, as there is nothing to poll."""
    async with Child(told["module"]) as child:
        await child.ask(told | {"url": sink.url})
        done = await child.ask("go")
        return Turn(
            contender=contender,
            round=round_,
            deliveries=told["jobs"],
            seconds=done["seconds"],
            cpu_seconds=done["cpu_seconds"],
            memory_max_bytes=memory_bytes(child.pid, peak=True),
        )


async def all_arrived(sink: Receiver, count: int, child: Child) -> None:
    """Wait until the receiver has had so many requests.

    Raises:
        BenchFailed: the contender ended, or nothing has come for long.
    """
    most, moved_at = -1, time.monotonic()
    while (now_there := await sink.count()) < count:
        child.check()
        if now_there > most:
            most, moved_at = now_there, time.monotonic()
        elif time.monotonic() - moved_at > STALLED_SECONDS:
            raise BenchFailed(
                f"{child.name}: {count - now_there} requests do not come: {child.complaint()}"
            )
        await asyncio.sleep(POLL_SECONDS)


async def nothing_left(connection: Any, left: str, child: Child) -> float:
    """Wait until the query `left` gives nothing true; give the moment.

    Raises:
        BenchFailed: the contender ended, or something stays for long.
    """
    give_up_at = time.monotonic() + STALLED_SECONDS
    while await connection.fetchval(left):
        child.check()
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"{child.name}: results are not stored: {child.complaint()}")
        await asyncio.sleep(POLL_END_SECONDS)
    return time.monotonic()


def _turn(
    contender: str,
    round_: int,
    deliveries: int,
    seconds: float,
    cost: Reading,
    connections: int,
    child: Child,
) -> Turn:
    return Turn(
        contender=contender,
        round=round_,
        deliveries=deliveries,
        seconds=seconds,
        cpu_seconds=cost.cpu_seconds,
        postgres_cpu_seconds=cost.postgres_cpu_seconds,
        statements=cost.statements,
        wal_bytes=cost.wal_bytes,
        connections_max=connections,
        memory_max_bytes=memory_bytes(child.pid, peak=True),
    )
