"""Bench: how fast, how soon and at what cost, beside what else does the same job.

    plan      what is measured, and how much of it
    suite     in which order; every contender has its turn in each round
    server    a Postgres, and a database of our own in it for each turn
    counters  what a turn cost: statements, WAL, CPU, connections, memory
    process   the other processes: each contender is one, so that its cost is its own
    receivers nginx or our own `sink`, never the bottleneck
    ours      the engine under test, as `aetherflow-hooks run` starts it
    load      endpoints, events and rows to work on
    drain     stored events until the last result is stored
    latency   commit to the first byte at the receiver, and what idling costs
    peers/    the others: a loop that stores nothing, PgQueuer, Procrastinate
    heavy/    backlogs, dead endpoints, history, old snapshots: what takes long
    figures   middles, spreads and quantiles
    report    tables; `plot` draws

Nothing here is imported by the engine.
"""

from aetherflow_hooks.errors import HooksError


class BenchFailed(HooksError):
    """A turn that cannot be measured: the message says which, and what was found."""
