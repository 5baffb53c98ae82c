"""Replays: send many events again, or send old ones to an endpoint that was not there before."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.endpoints import ID_BYTES, RATE_MAX, show_endpoint
from aetherflow_hooks.manage.pages import EARLIEST, LATEST, ROWS_DEFAULT, ROWS_MAX, Page
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.topics import is_pattern

LOOKED_MAX = 200_000  # dead deliveries, or events, when counting
READ_MAX = 20_000  # events, where a filter has to read the data of each
HINT = "replay"

_REPLAY_ID = re.compile("rpl_[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class NewReplay:
    """What is to be sent again. None leaves a filter out.

    With `only_failed` it is what was given up, of one endpoint or of many. Without, it is whatever
    one endpoint wants by now, delivered or not, from before it was there too.
    """

    endpoint_id: str | None = None
    tenant: str | None = None
    pattern: str | None = None  # of the events' types, as those of endpoints
    since: datetime | None = None  # when they were emitted: then or later
    until: datetime | None = None  # earlier than that; None: now
    only_failed: bool = False
    rate_per_second: float | None = None  # None: as fast as can be, within the endpoint's limits


async def count_replay(database: Database, new: NewReplay) -> dict[str, Any]:
    """Tell what a replay would make now: `deliveries`, at how many `endpoints`. Sends nothing.

    What waits already is not made again, and neither is what has expired or is of an endpoint that
    is disabled. `is_whole` is False where only the first 200,000 dead deliveries, or events, were
    looked at, or the first 20,000 where the endpoint has a filter: there may be more.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: a value breaks a rule, or the endpoint is disabled.
    """
    endpoint = await _check(database, new)
    reads = not new.only_failed and endpoint is not None and endpoint["filter"] is not None
    (row,) = await database.rows("count_replay", *_filters(new), READ_MAX if reads else LOOKED_MAX)
    return dict(row)


async def start_replay(database: Database, new: NewReplay) -> dict[str, Any]:
    """Ask for a replay; give it as `show_replay` does. Engines begin with it at once.

    It goes on over restarts and crashes until it is done, and makes nothing twice. Attempts that
    come of it are on record as `replay`; those that may follow them are of the schedule.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: a value breaks a rule, or the endpoint is disabled.
    """
    await _check(database, new)
    replay_id = f"rpl_{secrets.token_hex(ID_BYTES)}"
    async with audited(database, "replay.start", replay_id, look=show_replay) as bound:
        await bound.value("add_replay", replay_id, *_filters(new), new.rate_per_second)
        await bound.value("wake", HINT)
    return await show_replay(database, replay_id)


async def list_replays(
    database: Database,
    *,
    tenant: str | None = None,
    before: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List replays, the newest first; go on behind the replay `before`.

    Raises:
        InputRefused: `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    rows = await database.rows("list_replays", None, tenant, before, rows_max)
    return Page([dict(row) for row in rows], rows[-1]["id"] if len(rows) == rows_max else None)


async def show_replay(database: Database, replay_id: str) -> dict[str, Any]:
    """Give a replay: what was asked for, its `state`, and how many deliveries it has `made`.

    Raises:
        NotFound: there is none of this id.
    """
    if not _REPLAY_ID.fullmatch(replay_id):
        raise NotFound("replay", replay_id)
    rows = await database.rows("list_replays", replay_id, None, None, 1)
    if not rows:
        raise NotFound("replay", replay_id)
    return dict(rows[0])


async def cancel_replay(database: Database, replay_id: str) -> None:
    """Make no more of a replay. What it has made goes out; cancel those one by one.

    Raises:
        NotFound: no replay of this id is running.
    """
    async with audited(database, "replay.cancel", replay_id, look=show_replay) as bound:
        if await bound.value("cancel_replay", replay_id) is None:
            raise NotFound("running replay", replay_id)


async def _check(database: Database, new: NewReplay) -> dict[str, Any] | None:
    """Make sure that a replay can be; give its endpoint, if it is one's."""
    if new.pattern is not None and not is_pattern(new.pattern):
        raise InputRefused(f"{new.pattern!r} chooses no events: write a type, or user.*")
    if new.rate_per_second is not None:
        in_range("the rate", new.rate_per_second, 0.001, RATE_MAX)
    if new.since is not None and new.until is not None and new.since >= new.until:
        raise InputRefused("there is nothing between since and until: since comes first")
    if new.endpoint_id is None:
        if not new.only_failed:
            raise InputRefused(
                "say which endpoint, or that only what has failed is sent again: to send everything"
                " to everybody once more is seldom meant"
            )
        return None
    endpoint = await show_endpoint(database, new.endpoint_id)
    if new.tenant not in (None, endpoint["tenant"]):
        raise NotFound("endpoint", new.endpoint_id)
    if endpoint["state"] not in ("active", "paused"):
        raise InputRefused(f"nothing is sent to {new.endpoint_id}: it is {endpoint['state']}")
    return endpoint


def _filters(new: NewReplay) -> tuple[object, ...]:
    return (
        new.tenant,
        new.endpoint_id,
        new.pattern,
        max(new.since or EARLIEST, EARLIEST),
        min(new.until or LATEST, LATEST),
        new.only_failed,
    )
