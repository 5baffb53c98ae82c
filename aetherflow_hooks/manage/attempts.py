"""Attempts: look through the history, from any moment and both ways."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.pages import (
    EARLIEST,
    LATEST,
    NEWEST,
    ROWS_DEFAULT,
    ROWS_MAX,
    Page,
    Place,
    attempt_id,
    first_at,
    last_at,
    place_of,
)
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.topics import is_pattern

LOOKED_MAX = 5_000  # attempts, where only some of them are told
LATEST_LOOKED_MAX = 20_000  # those that began last, for those that ended last: some milliseconds
TEXT_MAX = 200  # characters of an error to look for
STATUS = "^[1-9](?:[0-9]{2}|xx)$"

_LEFT_OUT = ("is_place",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which attempts are meant. None leaves a filter out."""

    since: datetime | None = None  # when they began: then or later
    until: datetime | None = None  # earlier than that
    endpoint_id: str | None = None
    tenant: str | None = None
    pattern: str | None = None  # of the events' types, as those of endpoints
    only_failed: bool = False
    verdict: str | None = None  # delivered, retry, dead, halted or late
    status: str | None = None  # of the answer: 503, or 5xx
    error: str | None = None  # a part of it, whatever its case
    only_last: bool = False  # of several of one delivery with the same verdict the last


async def list_attempts(
    database: Database,
    chosen: Chosen | None = None,
    *,
    before: str | None = None,
    after: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List attempts, the newest first: those behind `before`, or the next ones above `after`.

    An attempt: id, delivery_id, endpoint_id, event_id, attempt, trigger, started_at, duration_ms,
    outcome, verdict, status, error, tenant, type; the last two None where the endpoint or the event
    is not kept any more. A page goes as far as one look goes, so it may hold less than `rows_max`,
    or nothing, and yet have more behind it: ask again with its `before`, or on the way up with its
    `after`. What is recorded meanwhile neither moves nor doubles a row.

    Raises:
        InputRefused: a filter or a place is none, or `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    chosen = chosen or Chosen()
    filters = _filters(chosen)
    is_choosy = chosen != Chosen(
        since=chosen.since, until=chosen.until, endpoint_id=chosen.endpoint_id
    )
    looked_max = max(LOOKED_MAX, rows_max) if is_choosy else rows_max
    is_up = after is not None
    place = place_of(after) if after is not None else place_of(before) if before else NEWEST
    values = (*place, *filters, rows_max, looked_max)
    if is_up:
        found = await database.rows("list_attempts_after", *values)
    else:
        found = await database.rows("list_attempts", *values)
    rows = [_told(row) for row in found if not row["is_place"]]
    end = attempt_id(_place(found[-1])) if found else None  # where the look has ended
    if chosen.tenant is not None and found and found[-1]["is_place"]:
        at = found[-1]["started_at"]  # of somebody else's: no more than the time is told
        rows = [row for row in rows if row["started_at"] != at]  # these come again behind it
        end = attempt_id((last_at if not is_up else first_at)(at))
    is_more = len(rows) == rows_max or bool(found and found[-1]["is_place"])
    if not is_up:
        return Page(rows, end if is_more else None, rows[0]["id"] if rows else before)
    rows.reverse()
    return Page(rows, rows[-1]["id"] if rows else after, end if is_more else None)


async def latest_attempts(
    database: Database, seconds: float, rows_max: int
) -> list[dict[str, Any]]:
    """Give the attempts that ended last, the last one first, of those of the last `seconds`."""
    rows = await database.rows("latest_attempts", seconds, LATEST_LOOKED_MAX, rows_max)
    return [_told(row) for row in rows]


def _filters(chosen: Chosen) -> Sequence[object]:
    if chosen.pattern is not None and not is_pattern(chosen.pattern):
        raise InputRefused(f"{chosen.pattern!r} chooses no events: write a type, or user.*")
    if chosen.error is not None and not 1 <= len(chosen.error) <= TEXT_MAX:
        raise InputRefused(f"a part of an error is 1 to {TEXT_MAX} characters")
    low, high = _statuses(chosen.status)
    return (
        max(chosen.since or EARLIEST, EARLIEST),
        min(chosen.until or LATEST, LATEST),
        chosen.endpoint_id,
        chosen.tenant,
        chosen.pattern,
        chosen.only_failed,
        chosen.verdict,
        low,
        high,
        chosen.error,
        chosen.only_last,
    )


def _statuses(text: str | None) -> tuple[int | None, int | None]:
    """Read a status, or a class of them."""
    if text is None:
        return None, None
    if not re.fullmatch(STATUS, text):
        raise InputRefused(f"{text!r} is no status: write 503, or 5xx")
    return int(text.replace("x", "0")), int(text.replace("x", "9"))


def _place(row: Row) -> Place:
    return Place(row["started_at"], row["endpoint_id"], row["event_id"], row["attempt"])


def _told(row: Row) -> dict[str, Any]:
    told = {name: value for name, value in row.items() if name not in _LEFT_OUT}
    return {
        "id": attempt_id(_place(row)),
        "delivery_id": delivery_id(row["event_id"], row["endpoint_id"]),
        **told,
    }
