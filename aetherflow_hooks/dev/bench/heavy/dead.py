"""Dead: do endpoints that never answer slow down the others?

Two databases with the same endpoints, half of them dead: half of those refuse connections, the
others take the request and stay silent. In one of the databases much is due for the dead. In turn
an engine works on each, and events are offered to the living.

A disk that stalls at times delays every hundredth event by more than what is compared here. Then
the embedded server belongs into memory, which TMPDIR=/dev/shm does.
"""

from contextlib import AsyncExitStack

from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.figures import Leg, middle, spread
from aetherflow_hooks.dev.bench.latency import offered, seconds_of, warm
from aetherflow_hooks.dev.bench.load import add_endpoints, add_waiting, endpoint_ids, settle
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.receivers import HOST, OwnSink, closed_port, own_sink
from aetherflow_hooks.dev.bench.server import Scratch

# They have been dead for a while, or else nothing would be waiting for them.
_DIED = f"""
insert into aetherflow.attempts
    (shard, attempt, endpoint_id, event_id, started_at, duration_ms, outcome, verdict)
select e.shard, 1, e.id, 'evt_0', now() - interval '10 minutes', 10000, 'timed_out', 'retry'
from aetherflow.endpoints e join aetherflow.subscriptions s on s.endpoint_id = e.id
where starts_with(s.pattern, 'dead.') {OURS}
"""
KINDS = ("nothing due for the dead", "with the dead")


async def measure(hall: Hall) -> Leg:
    """Offer a fixed rate to the living, with and without work for the dead."""
    plan = hall.plan
    seen: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    async with AsyncExitStack() as stack:
        sink = await stack.enter_async_context(own_sink(notes=True))
        silent = await stack.enter_async_context(own_sink(hang=True))
        scratches = {}
        for kind in KINDS:
            scratch = await stack.enter_async_context(hall.server.database())
            await _prepare(hall, scratch, sink, silent)
            scratches[kind] = scratch
        hall.say(f"filling {plan.dead_rows:,} rows")
        dead = await endpoint_ids(scratches[KINDS[1]].connection, "dead.")
        for start in range(0, len(dead), 1_000):
            await add_waiting(
                scratches[KINDS[1]].connection,
                dead[start : start + 1_000],
                plan.dead_rows // len(dead),
            )
        await settle(scratches[KINDS[1]].connection)
        for round_ in range(1, plan.rounds + 1):
            # Who comes second might find the machine different.
            for kind in KINDS if round_ % 2 else reversed(KINDS):
                scratch = scratches[kind]
                # One that begins by itself would fall into a turn of either kind.
                await scratch.connection.execute("checkpoint /* bench */")
                async with engine(scratch):
                    await warm(scratch, sink, plan.dead_endpoints)
                    latencies = await offered(
                        scratch,
                        sink,
                        per_second=plan.offered_per_second,
                        seconds=plan.dead_seconds,
                        types=plan.dead_endpoints,
                    )
                found = spread(seconds_of(latencies))
                seen[kind].append(found)
                hall.say(f"round {round_} of {plan.rounds}: {kind}: p99 {found['p99_ms']:.1f} ms")
        left = await scratches[KINDS[1]].connection.fetchval(
            "select count(*) from aetherflow.deliveries /* bench */"
        )
    rows = [
        {"engine": kind, **{name: middle(it[name] for it in found) for name in found[0]}}
        for kind, found in seen.items()
    ]
    ratio = middle(
        with_dead["p99_ms"] / without["p99_ms"]
        for without, with_dead in zip(seen[KINDS[0]], seen[KINDS[1]], strict=True)
    )
    return Leg(
        "dead",
        f"{plan.dead_endpoints:,} dead endpoints among {2 * plan.dead_endpoints:,}",
        rows,
        [
            (
                f"{plan.offered_per_second:,} events/s to the living for {plan.dead_seconds:g} "
                f"s; {plan.dead_rows:,} rows due for the dead, {left:,} of them at the end. "
                f"p99 with them against p99 without, middle of {plan.rounds}: {ratio:.2f}."
            )
        ],
    )


async def _prepare(hall: Hall, scratch: Scratch, sink: OwnSink, silent: OwnSink) -> None:
    dead = hall.plan.dead_endpoints
    refusing = f"http://{HOST}:{closed_port()}/"
    connection = scratch.connection
    await add_endpoints(connection, dead, sink.url)
    await add_endpoints(connection, dead // 2, refusing, pattern="dead.refuses.#")
    await add_endpoints(connection, dead - dead // 2, silent.url, pattern="dead.silent.#")
    await connection.execute(_DIED)
