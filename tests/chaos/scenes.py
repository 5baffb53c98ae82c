"""Scenes: what each promise looks like at its full size. They take minutes, and tell figures."""

import asyncio
import itertools
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg

from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.bench import plot
from aetherflow_hooks.dev.bench.figures import Leg
from aetherflow_hooks.dev.receiver import Received, Receiver
from aetherflow_hooks.dev.script import plan
from aetherflow_hooks.manage.replays import NewReplay, count_replay, start_replay
from tests.chaos.cluster import Cluster
from tests.chaos.stage import Stage
from tests.conftest import settings_for

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
QUIET = {"LOG__LEVEL": "warning"}  # a line per attempt would be what is measured
USUAL = QUIET | {  # what an operator would have, where nothing has to be quick
    "POST__TIMEOUT_SECONDS": "10",
    "LEASE__MARGIN_SECONDS": "20",
    "ENGINE__SHARD_LEASE_SECONDS": "10",
    "ENGINE__RENEW_SECONDS": "2",
    "DATABASE__COMMAND_TIMEOUT_SECONDS": "10",
}


class Failed(AssertionError):
    """A promise did not hold."""


def must(is_so: bool, else_wrong: str) -> None:
    """Stop the scene unless it is so."""
    if not is_so:
        raise Failed(else_wrong)


async def produce(
    stage: Stage, per_second: int, *, event_type: str = "a.b", tick_seconds: float = 0.02
) -> set[str]:
    """Commit events at a rate until the stage stops; give the ids of those that are committed."""
    committed: set[str] = set()
    connection: asyncpg.Connection | None = None
    began, count = time.monotonic(), 0
    while not stage.stopping.is_set():
        wanted = int((time.monotonic() - began) * per_second) - count
        count += wanted  # those of an outage are not made up for
        try:
            if connection is None:
                connection = await asyncpg.connect(stage.dsn, timeout=1, command_timeout=5)
            ids = await connection.fetch(
                "select aetherflow.emit($1, '{}') as id from generate_series(1, $2)",
                event_type,
                wanted,
            )
            committed.update(row["id"] for row in ids)
        except LOST:
            if connection is not None:
                connection.terminate()
                connection = None
        await asyncio.sleep(tick_seconds)
    if connection is not None:
        await connection.close()
    return committed


def ids_of(received: list[Received]) -> list[str]:
    """Give the events' ids."""
    return [request.headers["webhook-id"] for request in received]


async def kills(cluster: Cluster, folder: Path) -> str:
    """Kill Postgres 20 times under 1,000 events a second."""
    stage = Stage("chaos_kills", cluster, folder, **QUIET)
    resumed = []
    async with stage.set_up():
        await stage.add(stage.receiver.url("/a"))
        stage.start_engine()
        stage.start_engine()
        producing = asyncio.create_task(produce(stage, 1000))
        supervising = asyncio.create_task(stage.supervise())
        await asyncio.sleep(2)
        for _ in range(20):
            await asyncio.sleep(random.uniform(0.5, 2.0))
            cluster.crash()
            await asyncio.sleep(random.uniform(0.0, 1.0))
            await cluster.revive()
            back_at, before = time.monotonic(), len(stage.receiver.received)
            while len(stage.receiver.received) == before:
                must(time.monotonic() < back_at + 20, "nothing is sent after Postgres is back")
                await asyncio.sleep(0.005)
            resumed.append(time.monotonic() - back_at)
        stage.stopping.set()
        committed = await producing
        await supervising
        await stage.until("select count(*) = 0 from aetherflow.outbox")
        await stage.until("select count(*) = 0 from aetherflow.deliveries")
        arrived = ids_of(stage.receiver.received)
        lost = committed.difference(arrived)
        must(not lost, f"{len(lost)} of {len(committed)} are lost")
        must(max(resumed) <= 2, f"resumed only after {max(resumed):.2f} s")
        return (
            f"{len(committed):,} events committed, none lost, "
            f"{len(arrived) - len(set(arrived)):,} requests doubled; after Postgres was back the "
            f"next came within {sorted(resumed)[10]:.2f} s, at the most {max(resumed):.2f} s"
        )


async def limits(cluster: Cluster, folder: Path) -> str:
    """Hold a rate of 50 and one POST at a time, while three engines join and leave."""
    stage = Stage("chaos_limits", cluster, folder, **QUIET)
    async with stage.set_up():
        await stage.add(
            stage.receiver.url("/a", "200;wait=0.005"), rate_per_second=50, burst=5, max_in_flight=1
        )
        for _ in range(3):
            stage.start_engine()
        await stage.value(
            "select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 5000)"
        )
        for leaves_by in itertools.cycle((signal.SIGTERM, signal.SIGKILL)):
            await asyncio.sleep(10)
            if time.monotonic() > stage.receiver.at("/a")[0].began + 62:
                break
            leaving = stage.running()[0]
            stage.start_engine()
            if leaves_by == signal.SIGTERM:
                leaving.ask_to_stop()
            else:
                leaving.kill()
        times = [request.began for request in stage.receiver.at("/a")]
        # A burst of another engine's bucket would show in any window.
        worst = max(
            (j - i + 1) - (5 + 50 * (times[j] - times[i] + 0.02))
            for i in range(len(times))
            for j in range(i, min(i + 120, len(times)))
        )
        most = stage.receiver.open_most("/a")
        longest = max(b - a for a, b in itertools.pairwise(times))
        must(worst <= 1, f"{worst:.1f} more than burst + rate x t")
        must(most == 1, f"{most} at once")
        return (
            f"{len(times):,} requests in {times[-1] - times[0]:.0f} s by {len(stage.engines)} "
            f"engines: never more than burst + rate x t, {most} at once, the longest pause "
            f"{longest:.1f} s"
        )


async def order(cluster: Cluster, folder: Path) -> str:
    """Keep the order of 10,000 events, of which 5 % fail at first, over two kills of engines."""
    stage = Stage(
        "chaos_order", cluster, folder, **QUIET, RETRY__SCHEDULE_SECONDS="0.05, 0.1, 0.2, 1, 1"
    )
    dice = random.Random(5)
    async with stage.set_up():
        for path in ("/all", "/keys"):
            url = stage.receiver.url(path)
            await stage.add(url, ordering="skip", tenant=path[1:], max_in_flight=20)
        fail_some(stage.receiver, dice)
        stage.start_engine()
        stage.start_engine()
        await stage.value(
            "select count(aetherflow.emit('a.b', '{}', 'all')) from generate_series(1, 10000)"
        )
        await stage.value(
            "select count(aetherflow.emit('a.b', '{}', 'keys', ordering_key => 'k' || n % 20))"
            " from generate_series(1, 10000) n"
        )
        began = time.monotonic()
        for at in (3000, 7000):
            await stage.receiver.wait_for(at, "/all", timeout_seconds=300)
            stage.running()[0].kill()
            stage.start_engine()
        await stage.until("select count(*) = 0 from aetherflow.deliveries", seconds_max=300)
        took = time.monotonic() - began
        keys = {
            row["id"]: row["ordering_key"] or ""
            for row in await stage.rows("select id, ordering_key from aetherflow.events")
        }
        told = []
        for path in ("/all", "/keys"):
            requests = stage.receiver.at(path)
            by_key: dict[str, list[Received]] = defaultdict(list)
            for request in requests:
                by_key[keys[request.headers["webhook-id"]]].append(request)
            for key, of_key in by_key.items():
                runs = [event_id for event_id, _ in itertools.groupby(ids_of(of_key))]
                must(runs == sorted(set(runs)), f"{path} {key} is out of order")
            arrived = set(ids_of(requests))
            must(len(arrived) == 10_000, f"{len(arrived)} of 10,000 arrived at {path}")
            told.append(f"{len(by_key)} keys: {len(requests):,} requests")
        return f"{'; '.join(told)}; all in order, in {took:.0f} s, with two engines killed"


def fail_some(receiver: Receiver, dice: random.Random) -> None:
    """Answer 5 % of the requests with 500, whatever the URL says, which has no room for it."""
    _, (failure,) = plan("/?do=500")
    receiver._book.take_step = (  # type: ignore[method-assign]
        lambda path, steps: failure if path and dice.random() < 0.05 else steps[0]
    )


async def outage(cluster: Cluster, folder: Path) -> str:
    """Let 100,000 events wait for one endpoint, and see others while it recovers.

    Beside what they see when nothing else is sent, and when as much is sent in the same rhythm, as
    it happens.
    """
    stage = Stage("chaos_outage", cluster, folder, **USUAL)
    async with stage.set_up():
        back = await stage.add(
            stage.receiver.url("/back"),
            events=["a.b"],
            rate_per_second=500,
            burst=10,
            max_in_flight=10,
        )
        await stage.add(stage.receiver.url("/other"), events=["other"])
        await stage.add(stage.receiver.url("/live"), events=["live"])
        await stage.set_state(back["id"], "paused")
        stage.start_engine()
        for _ in range(10):
            await stage.value(
                "select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 10000)"
            )
        await stage.until("select count(*) = 0 from aetherflow.outbox", seconds_max=120)
        await stage.rows("vacuum analyze")
        late: dict[str, list[float]] = {"idle": [], "live": [], "recovering": []}
        for _ in range(3):
            late["idle"] += await lateness(stage, 10)
            stage.stopping.clear()
            producing = asyncio.create_task(
                produce(stage, 500, event_type="live", tick_seconds=0.01)
            )
            late["live"] += await lateness(stage, 15)
            stage.stopping.set()
            await producing
            await stage.set_state(back["id"], "active")
            first = len(stage.receiver.at("/back"))
            late["recovering"] += await lateness(stage, 15)
            must(len(stage.receiver.at("/back")) > first + 3000, "it does not recover")
            await stage.set_state(back["id"], "paused")
            await asyncio.sleep(2)
        requests = stage.receiver.at("/back")
        times = [request.began for request in requests]
        worst = max(  # the receiver is itself late at times, since all else here shares its loop
            (j - i + 1) - (10 + 500 * (times[j] - times[i] + 0.05))
            for i in range(0, len(times), 7)
            for j in range(i, min(i + 1000, len(times)), 5)
        )
        must(worst <= 1, f"{worst:.1f} more than burst + rate x t")
        ids = ids_of(requests)
        apart = max(abs(place - rank) for place, rank in enumerate(ranks(ids)))
        told = ", ".join(
            f"{name} {percentile(values, 0.5) * 1000:.1f} / {percentile(values, 0.99) * 1000:.1f}"
            for name, values in late.items()
        )
        return (
            f"{len(ids):,} of 100,000 sent at 500/s, never more; no event more than {apart} places "
            f"from its own; another endpoint's latency in ms, p50 / p99: {told}"
        )


async def lateness(stage: Stage, seconds: float) -> list[float]:
    """Emit 50 events a second for another endpoint; give how late each arrives, in seconds."""
    sent: dict[str, float] = {}
    connection = await asyncpg.connect(stage.dsn)
    first = len(stage.receiver.at("/other"))
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        event_id = await connection.fetchval("select aetherflow.emit('other', '{}')")
        sent[event_id] = time.monotonic()
        await asyncio.sleep(0.02)
    await connection.close()
    await asyncio.sleep(1)
    arrived = stage.receiver.at("/other")[first:]
    must(len(arrived) >= len(sent), "others do not get theirs")
    return [max(0.0, it.began - sent[it.headers["webhook-id"]]) for it in arrived]


def percentile(values: list[float], part: float) -> float:
    """Give the value below which so much of them lies."""
    return sorted(values)[min(int(len(values) * part), len(values) - 1)]


def ranks(ids: list[str]) -> list[int]:
    """Give the place that each would have in order."""
    places = {event_id: place for place, event_id in enumerate(sorted(ids))}
    return [places[event_id] for event_id in ids]


async def replay(cluster: Cluster, folder: Path) -> str:
    """Send 100,000 dead deliveries again at 2,000/s, and kill the engine in the middle."""
    stage = Stage("chaos_replay", cluster, folder, **USUAL)
    async with stage.set_up():
        endpoint = await stage.add(stage.receiver.url("/a"))
        await stage.set_state(endpoint["id"], "paused")
        stage.start_engine()
        for _ in range(10):
            await stage.value(
                "select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 10000)"
            )
        await stage.until("select count(*) = 0 from aetherflow.outbox", seconds_max=120)
        await stage.rows(
            "with gone as (delete from aetherflow.deliveries returning *) insert into"
            " aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)"
            " select shard, endpoint_id, event_id, event_shard, 4, 'exhausted' from gone"
        )
        await stage.rows("vacuum analyze")
        await stage.set_state(endpoint["id"], "active")
        asked = NewReplay(only_failed=True, rate_per_second=2000)
        async with Database(settings_for(stage.dsn).database) as database:
            began = time.monotonic()
            counted = await count_replay(database, asked)
            took = time.monotonic() - began
            must(counted["deliveries"] == 100_000, f"the dry run tells {counted}")
            must(not stage.receiver.received, "the dry run sends")
            made = await start_replay(database, asked)
        await stage.receiver.wait_for(50_000, timeout_seconds=120)
        stage.engines[0].kill()
        killed_at = time.monotonic()
        under_way = await stage.value(
            "select count(*) from aetherflow.deliveries where lease_token <> 0"
        )
        stage.start_engine()
        await stage.until(
            "select state = 'done' from aetherflow.replays where id = $1",
            made["id"],
            seconds_max=120,
        )
        await stage.until("select count(*) = 0 from aetherflow.deliveries", seconds_max=120)
        requests = stage.receiver.received
        arrived = ids_of(requests)
        doubled = len(arrived) - len(set(arrived))
        must(len(set(arrived)) == 100_000, f"{len(set(arrived)):,} arrived")
        must(doubled <= under_way, f"{doubled} doubled, {under_way} were under way at the kill")
        seconds = Counter(
            int(it.began - requests[0].began) for it in requests if it.began < killed_at
        )
        must(max(seconds.values()) <= 2000 * 1.3, f"{max(seconds.values())} in a second")
        middle = sorted(seconds.values())[len(seconds) // 2]
        return (
            f"counted in {took:.1f} s; each of 100,000 sent, {doubled} of {under_way} that were "
            f"under way at the kill twice; in a second {middle:,}, "
            f"at the most {max(seconds.values()):,}"
        )


async def soak(
    cluster: Cluster, folder: Path, minutes: float = 30, plots: Path | None = None
) -> str:
    """Send 500 events a second for half an hour with a fault every 20 seconds; see what grows.

    With `plots`, a folder, it is drawn there.
    """
    stage = Stage("chaos_soak", cluster, folder, **QUIET, SWEEP__EVERY_SECONDS="5")
    dice = random.Random(6)
    samples: list[dict[str, float]] = []
    async with stage.set_up():
        await stage.add(stage.receiver.url("/good"), events=["a.b"])
        bad = stage.receiver.url("/bad", "500;wait=0.05")
        await stage.add(bad, events=["bad"], retry_schedule_seconds=[1])
        steady = stage.start_engine()
        stage.start_engine()
        producing = asyncio.create_task(produce(stage, 500))
        failing = asyncio.create_task(produce(stage, 2, event_type="bad", tick_seconds=1))
        supervising = asyncio.create_task(stage.supervise())
        began = time.monotonic()
        while (now := time.monotonic() - began) < minutes * 60:
            await asyncio.sleep(10)
            with suppress(*LOST):
                samples.append({"seconds": now} | await sample(stage, steady.pid))
                if len(samples) % 6 == 1:
                    print(
                        "  ".join(f"{name} {it:,.0f}" for name, it in samples[-1].items()),
                        flush=True,
                    )
            if len(samples) % 2:
                fault = dice.choice(["cut", "kill", "stall", "hold"])
                with suppress(*LOST):
                    if fault == "cut":
                        await stage.value(
                            "select count(pg_terminate_backend(pid)) from pg_stat_activity where"
                            " datname = current_database() and pid <> pg_backend_pid()"
                        )
                    elif fault == "kill":
                        stage.running()[-1].kill()
                        stage.start_engine()
                    elif fault == "stall":
                        await cluster.freeze(1.0)
                    else:
                        await stage.rows("select pg_sleep(3)")
            arrived = stage.receiver.received
            if len(arrived) > 200_000:
                del arrived[:100_000]
                stage.receiver._book.by_path.clear()
        stage.stopping.set()
        committed = await producing | await failing
        await supervising
        waiting = await stage.value("select count(*) from aetherflow.deliveries")
        if plots is not None:
            draw_soak(samples, plots)
        first, last = samples[len(samples) // 10], samples[-1]
        growth = ", ".join(
            f"{name} {first[name]:,.0f} to {last[name]:,.0f} (at the most "
            f"{max(it[name] for it in samples):,.0f})"
            for name in first
            if name != "seconds"
        )
        return f"{len(committed):,} events, {waiting:,} wait in the end; {growth}"


def draw_soak(samples: list[dict[str, float]], folder: Path) -> None:
    """Draw how the memory and the open files of an engine went, and the size of both tables."""
    figures = {
        "RSS, MiB": ["RSS MiB"],
        "open files": ["files"],
        "tables, MiB": ["deliveries MiB", "outbox MiB"],
    }
    leg = Leg("faults", "500 events/s with a fault every 20 s")
    for label, names in figures.items():
        leg.series[label] = [
            (it["seconds"] / 60, sum(it[name] for name in names)) for it in samples
        ]
    plot.draw([leg], folder)


async def sample(stage: Stage, pid: int) -> dict[str, float]:
    """Measure an engine and the tables."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss = int(status.partition("VmRSS:")[2].split()[0]) / 1024
    sizes = await stage.rows(
        "select c.relname, pg_total_relation_size(c.oid) / 1048576.0 as mib from pg_class c"
        " where c.relnamespace = 'aetherflow'::regnamespace and c.relname in"
        " ('outbox', 'deliveries')"
    )
    connections = await stage.value(
        "select count(*) from pg_stat_activity where application_name like 'aetherflow%'"
    )
    return {
        "RSS MiB": rss,
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "connections": connections,
        **{f"{row['relname']} MiB": float(row["mib"]) for row in sizes},
        "waiting": await stage.value("select count(*) from aetherflow.deliveries"),
    }


Scene = Callable[[Cluster, Path], Coroutine[Any, Any, str]]
SCENES: dict[str, Scene] = {
    "kills": kills,
    "limits": limits,
    "order": order,
    "outage": outage,
    "replay": replay,
    "soak": soak,
}
