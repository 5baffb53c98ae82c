"""Events: emit one from outside an application's own transaction, and look at what was emitted."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX, Page
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.schemas import check_data
from aetherflow_hooks.rules.topics import is_pattern
from aetherflow_hooks.rules.words import channels_of_event
from aetherflow_hooks.watch.traces import current_traceparent

EVENT_ID = re.compile("evt_[0-9a-f]{24}")
MOMENT_CHARACTERS = 17  # of an id: all events of a microsecond begin alike
FIRST = "evt_g"  # sorts behind every id
LOOKED_MAX = 1_000  # events of a shard, or endpoints, where only some of them are told


async def emit_event(
    database: Database,
    event_type: str,
    data: str,
    *,
    tenant: str = "",
    idempotency_key: str | None = None,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    ordering_key: str | None = None,
    channels: Sequence[str] = (),
    validate: bool = False,
    traceparent: str | None = None,
) -> str:
    """Emit an event in a transaction of its own; give its id.

    With `validate` the data has to fit the JSON Schema that the type is registered with; one that
    is registered without takes anything. `traceparent` is its place in a trace, instead of the
    caller's own; one that is none is as if it were not there.

    Raises:
        InputRefused: type, data or an option breaks a rule; the message says which. With
            `validate`, the data does not fit, and the message says where, or the type is not
            registered.
    """
    on_channels = channels_of_event(channels)
    if validate:
        schema = await database.value("schema_of", event_type)
        check_data(event_type, schema, data)
    event_id: str = await database.value(
        "emit",
        event_type,
        data,
        tenant,
        idempotency_key,
        deliver_at,
        expires_at,
        ordering_key,
        on_channels,
        traceparent or current_traceparent(),
    )
    return event_id


async def list_events(
    database: Database,
    *,
    before: str | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str | None = None,
    pattern: str | None = None,
    channel: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List events, the newest first: those emitted from `since` on, and earlier than `until`.

    `pattern` chooses types as those of endpoints do, and `channel` what is on it. A page goes as
    far back as one look goes, so it may hold less than `rows_max`, or nothing, and yet have more
    behind it: ask again with its `before`, an event's id. What is committed meanwhile moves no row
    of the later pages.

    Raises:
        NotFound: `before` is no event's id.
        InputRefused: the pattern is none, or `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    if before is not None and not EVENT_ID.fullmatch(before):
        raise NotFound("event", before)
    if pattern is not None and not is_pattern(pattern):
        raise InputRefused(f"{pattern!r} chooses no events: write a type, or user.*")
    is_choosy = tenant is not None or channel is not None or pattern not in (None, "*")
    looked_max = LOOKED_MAX if is_choosy else rows_max
    *found, last = await database.rows(
        "list_events", before or FIRST, since, until, tenant, pattern, channel, rows_max, looked_max
    )
    rows = [{name: value for name, value in row.items() if name != "looked_to"} for row in found]
    end: str | None = last["looked_to"]
    if tenant is not None and end is not None and (not rows or rows[-1]["id"] != end):
        moment = end[:MOMENT_CHARACTERS]  # of somebody else's: no more than the time is told
        rows = [row for row in rows if not row["id"].startswith(moment)]  # these come again
        end = moment + "f" * (len(end) - MOMENT_CHARACTERS)
    return Page(rows, end)


async def show_event(
    database: Database, event_id: str, *, after: str | None = None
) -> dict[str, Any]:
    """Give an event with its `data`, a JSON text (None: `expunged_at`), and its `deliveries`.

    One with `cancelled_at` was to go to nobody, before it was fanned out.
    A delivery: id, endpoint_id, event_id, state, attempts, due_at, reason (of a dead one) and, of
    its last attempt, last_status, last_error, last_at. `is_fanned_out`: all of them are there. Of
    an event for very many endpoints some are told: ask again with `after`, an endpoint's id, until
    it is None.

    Raises:
        NotFound: there is none of this id, or it is not kept any more.
    """
    rows = await database.rows("show_event", event_id) if EVENT_ID.fullmatch(event_id) else ()
    if not rows:
        raise NotFound("event", event_id)
    *deliveries, last = await database.rows(
        "event_deliveries", event_id, None, after or "", LOOKED_MAX
    )
    return {
        **dict(rows[0]),
        "deliveries": [delivery_of(row) for row in deliveries],
        "after": last["looked_to"],
    }


async def cancel_event(database: Database, event_id: str) -> None:
    """Let an event go to nobody that is scheduled for later, or has not been fanned out yet.

    Raises:
        NotFound: no event of this id waits for that. What has become deliveries is cancelled one
            by one.
    """
    if not EVENT_ID.fullmatch(event_id):
        raise NotFound("waiting event", event_id)
    async with audited(database, "event.cancel", event_id) as bound:
        if not await bound.value("cancel_event", event_id):
            raise NotFound("waiting event", event_id)


async def expunge_event(database: Database, event_id: str) -> None:
    """Delete the data of an event and the answers to it. That it happened stays, and each attempt.

    What still waits of it is given up, and it cannot be sent again. A request that is under way
    goes on. Backups, and the log of Postgres for as long as that is kept, are not ours to clean.

    Raises:
        NotFound: there is none of this id, or it is not kept any more.
    """
    if not EVENT_ID.fullmatch(event_id):
        raise NotFound("event", event_id)
    async with audited(database, "event.expunge", event_id) as bound:
        if not await bound.value("expunge_event", event_id):
            raise NotFound("event", event_id)


def delivery_of(row: Row) -> dict[str, Any]:
    """Give a delivery as it is told, with its id."""
    told = {name: value for name, value in row.items() if name != "looked_to"}
    return {"id": delivery_id(row["event_id"], row["endpoint_id"]), **told}
