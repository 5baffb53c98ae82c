"""Numbers: how attempts went, by the minute and the hour, as engines have counted them."""

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any, Literal

from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.rules.tallies import (
    ALL,
    HOUR_SECONDS,
    KINDS,
    MINUTE_SECONDS,
    MINUTES_KEPT_HOURS,
    merged,
    percentiles,
    subject_of,
)

Step = Literal["minute", "hour"]

POINTS_MAX = 1_500
POINTS_DEFAULT: dict[Step, int] = {"minute": 60, "hour": 48}
STEP_SECONDS: dict[Step, int] = {"minute": MINUTE_SECONDS, "hour": HOUR_SECONDS}
PERCENTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}

_ENDPOINT_ID = re.compile("ep_[0-9a-f]{12}")
_KINDS_OF = itemgetter(*KINDS)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def endpoint_numbers(
    database: Database,
    *,
    endpoint_id: str | None = None,
    tenant: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    step: Step = "minute",
) -> list[dict[str, Any]]:
    """Give a point for each minute or hour from `since` on, up to `until`, the earliest first.

    Of an endpoint, of a tenant's endpoints, or of all. Without `until` it is up to now, and without
    `since` the last 60 minutes or 48 hours. A point: starts_at, and what `numbers_of` gives; an
    attempt belongs to the minute in which it began. Engines write about once a second, or within
    ten seconds where 10,000 endpoints are busy.

    Raises:
        NotFound: the endpoint's id is none.
        InputRefused: both an endpoint and a tenant are given, `until` is not behind `since`, there
            would be more than 1,500 points, or minutes are asked for that are older than 48 hours.
    """
    if endpoint_id is not None and tenant is not None:
        raise InputRefused("an endpoint is of one tenant: ask for the one or the other")
    if endpoint_id is not None and not _ENDPOINT_ID.fullmatch(endpoint_id):
        raise NotFound("endpoint", endpoint_id)
    subject = endpoint_id or (ALL if tenant is None else subject_of(tenant))
    now: datetime = await database.value("clock")
    length = timedelta(seconds=STEP_SECONDS[step])
    end = -((_EPOCH - (until or now)) // length)  # in steps since 1970, rounded up
    begin = (since - _EPOCH) // length if since else end - POINTS_DEFAULT[step]
    if begin >= end:
        raise InputRefused("the time ends before it begins")
    first = _EPOCH + begin * length
    if step == "minute" and first < now - timedelta(hours=MINUTES_KEPT_HOURS, minutes=1):
        raise InputRefused(
            f"minutes are kept for {MINUTES_KEPT_HOURS} hours: ask for what is older by the hour"
        )
    if end - begin > POINTS_MAX:
        raise InputRefused(
            f"that would be {end - begin:,} points, and {POINTS_MAX:,} are given at once"
        )
    rows: dict[int, list[Row]] = {}
    last = _EPOCH + end * length
    for row in await database.rows("read_tallies", [subject], first, last, step == "hour"):
        rows.setdefault((row["starts_at"] - first) // length, []).append(row)
    return [
        {"starts_at": first + place * length, **numbers_of(rows.get(place, ()))}
        for place in range(end - begin)
    ]


async def last_hour(
    database: Database, subjects: Collection[str], now: datetime
) -> dict[str, dict[str, Any]]:
    """Give the numbers of each subject for the last 60 minutes and the one that is not over."""
    since = _EPOCH + (now - _EPOCH) // timedelta(minutes=1) * timedelta(minutes=1)
    since -= timedelta(hours=1)
    until = now + timedelta(minutes=1)  # whatever clock it was counted by
    rows = await database.rows("sum_tallies", list(subjects), since, until)
    return {row["subject"]: numbers_of([row]) for row in rows}


def numbers_of(rows: Iterable[Row]) -> dict[str, Any]:
    """Give the numbers of rows that were counted.

    Keys: attempts, delivered, success_rate (0 to 1; None: no attempt), p50_ms, p95_ms, p99_ms; and
    how many failed how: answered_429, answered_4xx, answered_5xx, answered_other (a redirect,
    mostly), timed_out, not_reached, blocked. The percentiles are of those that were answered or
    timed out, right to a tenth; None: there were none. `late` are those whose lease was lost: they
    are not among the attempts, and change nothing.
    """
    rows = list(rows)
    sums = map(sum, zip(*map(_KINDS_OF, rows), strict=True)) if rows else [0] * len(KINDS)
    kinds = dict(zip(KINDS, sums, strict=True))
    histogram = merged((row["buckets"], row["counts"]) for row in rows)
    attempts = sum(kinds.values()) - kinds["late"]
    return {
        "attempts": attempts,
        "delivered": kinds["delivered"],
        "success_rate": kinds["delivered"] / attempts if attempts else None,
        **dict(zip(PERCENTILES, percentiles(histogram, [*PERCENTILES.values()]), strict=True)),
        **{kind: kinds[kind] for kind in KINDS if kind != "delivered"},
    }
