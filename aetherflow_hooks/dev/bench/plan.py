"""Plan: what is measured, and how much of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aetherflow_hooks.dev.bench.receivers import Receiver
from aetherflow_hooks.dev.bench.server import Server

EVENTS_PER_SHAPE = 5  # shapes beside the main one get a fifth of its events


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of everything."""

    rounds: int = 5
    events: int = 50_000  # of a drain
    endpoints: int = 100
    concurrency: int = 64  # POSTs at once, of every contender
    single_events: int = 100  # to an engine that sleeps
    offered_per_second: int = 1_000
    offered_seconds: float = 20.0
    quiet_seconds: float = 20.0
    backlog_rows: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000)
    backlog_endpoints: int = 100
    backlog_drained: int = 10_000
    dead_endpoints: int = 5_000
    dead_rows: int = 1_000_000
    dead_seconds: float = 60.0  # autovacuum comes once a minute: so to each kind in each round
    hostile_each: int = 11  # endpoints of each kind; half of the twelve hold their slots
    hostile_rows: int = 200  # due for each of them
    hostile_per_second: int = 250  # events to the others
    history_days: int = 30
    history_rows_per_day: int = 100_000
    dashboard_endpoints: int = 1_000
    dashboard_attempts: int = 10_000_000  # over the days of the history
    retention_rows: int = 10_000_000  # of the day that goes
    watched_rows: int = 20_000
    wide_endpoints: int = 100_000
    soak_rows: int = 10_000_000  # that wait meanwhile
    soak_endpoints: int = 10_000
    load_minutes: float = 10.0  # of the pinned and the soak legs


QUICK = Plan(
    rounds=1,
    events=2_000,
    endpoints=20,
    single_events=5,
    offered_per_second=200,
    offered_seconds=1.0,
    quiet_seconds=1.0,
    backlog_rows=(1_000, 5_000),
    backlog_endpoints=50,
    backlog_drained=1_000,
    dead_endpoints=100,
    dead_rows=2_000,
    dead_seconds=1.0,
    hostile_each=2,
    hostile_rows=20,
    hostile_per_second=100,
    history_days=3,
    history_rows_per_day=1_000,
    dashboard_endpoints=20,
    dashboard_attempts=5_000,
    retention_rows=5_000,
    watched_rows=200,
    wide_endpoints=2_000,
    soak_rows=5_000,
    soak_endpoints=50,
    load_minutes=0.1,
)


@dataclass(frozen=True, slots=True)
class Hall:
    """What every leg works with."""

    plan: Plan
    server: Server
    sink: Receiver
    folder: Path
    say: Callable[[str], None]  # progress, a line at a time


def replace_given(plan: Plan, given: Mapping[str, Any]) -> Plan:
    """Give a plan with some values replaced, where they are not None."""
    return replace(plan, **{name: value for name, value in given.items() if value is not None})
