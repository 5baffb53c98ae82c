"""Vitals: how much there is in the database, and how Postgres gets on with it."""

import asyncio
from typing import NamedTuple

from aetherflow_hooks.db import Database
from aetherflow_hooks.manage.status import BEHIND_SECONDS, LOOKED_MAX

COUNTED_MAX = 100_000  # rows of a table, one by one; more are estimated


class TableVitals(NamedTuple):
    """What Postgres says of a table, with all its partitions."""

    rows: int  # estimated
    dead_rows: int  # that vacuum is to remove
    disk_bytes: int  # with its indexes


class Vitals(NamedTuple):
    """What holds for the whole database, whoever asks."""

    tables: dict[str, TableVitals]
    outbox_events: int
    outbox_oldest_due_seconds: float  # 0: none waits, or none is due
    deliveries_waiting: int
    deliveries_oldest_due_seconds: float  # of active endpoints
    deliveries_dead: int
    endpoints: dict[str, int]  # by state
    endpoints_failing: int  # active ones that get nothing but failures
    engines: int  # that live
    backlog_full: bool
    oldest_transaction_seconds: float  # of those that keep vacuum from its work; 0: there is none
    partitions_ahead_days: int


async def vitals(
    database: Database, seen_seconds: float, *, counted_max: int = COUNTED_MAX
) -> Vitals:
    """Look at everything once; engines that have been seen within so many seconds live.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
    """
    rows, surveyed = await asyncio.gather(
        database.rows("vitals", counted_max, seen_seconds),
        database.rows("survey_endpoints", None, BEHIND_SECONDS, 0, LOOKED_MAX),
    )
    oldest = {row["state"]: row["oldest_seconds"] for row in surveyed}
    found = {(row["measure"], row["name"]): row["value"] or 0.0 for row in rows}
    names = [name for measure, name in found if measure == "table_rows"]
    return Vitals(
        tables={
            name: TableVitals(
                int(found["table_rows", name]),
                int(found["table_dead_rows", name]),
                int(found["table_bytes", name]),
            )
            for name in names
        },
        outbox_events=int(found["rows", "outbox"]),
        outbox_oldest_due_seconds=found["outbox_oldest_due_seconds", ""],
        deliveries_waiting=int(found["rows", "deliveries"]),
        deliveries_oldest_due_seconds=oldest.get("active") or 0.0,
        deliveries_dead=int(found["rows", "dead"]),
        endpoints={row["state"]: row["endpoints"] for row in surveyed},
        endpoints_failing=int(found["endpoints_failing", ""]),
        engines=int(found["engines", ""]),
        backlog_full=bool(found["backlog_full", ""]),
        oldest_transaction_seconds=found["oldest_transaction_seconds", ""],
        partitions_ahead_days=int(found["partitions_ahead_days", ""]),
    )
