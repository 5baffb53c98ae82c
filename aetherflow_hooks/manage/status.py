"""Status: what waits now and how the last hour went, for each endpoint and for all of them."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.manage.numbers import endpoint_numbers, last_hour
from aetherflow_hooks.manage.pages import ROWS_MAX
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.tallies import ALL, subject_of

PAGE_ROWS = 100
COUNTED_MAX = 1_000  # deliveries of one endpoint
COUNTED_MOST = 100_000  # in one answer
TENANT_COUNTED_MAX = 20_000  # of a tenant, whose rows lie apart
LOOKED_MAX = 5_000  # endpoints with work, for the oldest of it: they take 60 ms
NEEDY_MAX = 20  # endpoints that are named since somebody should look at them
BEHIND_SECONDS = 300.0
HOUR_KEYS = ("attempts", "success_rate", "p50_ms", "p95_ms", "p99_ms")


async def endpoint_status(
    database: Database,
    *,
    tenant: str | None = None,
    endpoint_id: str | None = None,
    after: str | None = None,
    rows_max: int = PAGE_ROWS,
    counted_max: int | None = None,
) -> list[dict[str, Any]]:
    """Give a row per endpoint, a page in the order in which they were added.

    Keys: id, tenant, url, state, waiting, in_flight, is_exact (else there are at least so many,
    since no more than `counted_max` were counted: by default 1,000, or less where the page is of
    more than 100 rows), oldest_seconds (for how long the first of what waits has been due; None:
    nothing waits), and of the last hour attempts, success_rate (0 to 1), p50_ms, p95_ms, p99_ms
    (None: no attempt). A full page may have more behind it: ask again with its last id as `after`.

    Raises:
        InputRefused: `rows_max` is not 1 to 1,000, or that many times `counted_max` are more than
            is counted in one answer.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    most = COUNTED_MOST // rows_max
    counted_max = min(COUNTED_MAX, most) if counted_max is None else counted_max
    in_range("what is counted for each", counted_max, 1, most)
    found = await database.rows(
        "endpoint_status", tenant, endpoint_id, after, rows_max, counted_max
    )
    if not found:
        return []
    now: datetime = await database.value("clock")
    hours = await last_hour(database, [row["id"] for row in found], now)
    return [{**dict(row), **{key: hours[row["id"]][key] for key in HOUR_KEYS}} for row in found]


async def overview(
    database: Database,
    *,
    tenant: str | None = None,
    behind_seconds: float = BEHIND_SECONDS,
    needy_max: int = NEEDY_MAX,
) -> dict[str, Any]:
    """Tell how all endpoints are doing, or those of a tenant.

    Keys: waiting, in_flight (as engines have said within 2 s; of a tenant, what is on lease),
    is_exact (else at least so much waits, and for so long, since no more than a bound was looked
    at), oldest_seconds (for how long the first of what waits for active endpoints has been due),
    endpoints (their number by state), last_minute and last_hour (as `endpoint_numbers` gives: the
    last whole minute, and the last 60 with the one that is not over), and needy: endpoints that
    somebody should look at, at most `needy_max`, each with id, tenant, url, state, why, since,
    reason and oldest_seconds. Why: failing, nothing has been delivered since; behind, what waits
    has been due for longer than `behind_seconds`; disabled, by an engine, for that reason.
    """
    now: datetime = await database.value("clock")
    subject = ALL if tenant is None else subject_of(tenant)
    (waiting,), surveyed, hours, (minute, *_) = await asyncio.gather(
        database.rows(
            "count_waiting", tenant, COUNTED_MOST if tenant is None else TENANT_COUNTED_MAX
        ),
        database.rows("survey_endpoints", tenant, behind_seconds, needy_max, LOOKED_MAX),
        last_hour(database, [subject], now),
        endpoint_numbers(database, tenant=tenant, since=now - timedelta(minutes=1)),
    )
    states = {row["state"]: row for row in surveyed if row["kind"] == "state"}
    told = ("id", "tenant", "url", "state", "why", "since", "reason", "oldest_seconds")
    return {
        **dict(waiting),
        "is_exact": waiting["is_exact"] and all(row["is_exact"] for row in states.values()),
        "oldest_seconds": states["active"]["oldest_seconds"] if "active" in states else None,
        "endpoints": {state: row["endpoints"] for state, row in sorted(states.items())},
        "last_minute": minute,
        "last_hour": hours[subject],
        "needy": [{key: row[key] for key in told} for row in surveyed if row["kind"] == "endpoint"],
    }
