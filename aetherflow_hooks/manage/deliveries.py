"""Deliveries: look at them, and decide over one by hand."""

import re
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.events import EVENT_ID, delivery_of
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.states import State

_DELIVERY_ID = re.compile("dlv_([0-9a-f]{24})_([0-9a-f]{12})")
_ID = {"endpoint": re.compile("ep_[0-9a-f]{12}"), "event": EVENT_ID}


async def list_deliveries(
    database: Database,
    *,
    state: State | None = None,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> list[dict[str, Any]]:
    """List deliveries of any state, those of the newest events first.

    Raises:
        NotFound: an id is not of the form that ids have.
    """
    for kind, text in (("endpoint", endpoint_id), ("event", event_id)):
        if text is not None and not _ID[kind].fullmatch(text):
            raise NotFound(kind, text)
    rows = await database.rows(
        "list_deliveries", state, endpoint_id, event_id, min(rows_max, ROWS_MAX)
    )
    return [{"id": delivery_id(row["event_id"], row["endpoint_id"]), **dict(row)} for row in rows]


async def show_delivery(database: Database, text: str) -> dict[str, Any]:
    """Give a delivery with its event's `type` and `data`, its endpoint's `url`, and its attempts.

    Keys besides: as in `show_event`. Of an attempt: attempt, trigger (manual, or None: its
    schedule), started_at, duration_ms, outcome,
    verdict, status, error, and response, the start of a failing answer in bytes. Type and data are
    None where the event is not kept any more, and the URL where the endpoint was deleted.

    Raises:
        NotFound: there is none of this id.
    """
    endpoint_id, event_id = _parts(text)
    *found, _ = await database.rows("event_deliveries", event_id, endpoint_id, "", 1)
    if not found:
        raise NotFound("delivery", text)
    events = await database.rows("show_event", event_id)
    endpoints = await database.rows("list_endpoints", None, endpoint_id)
    return {
        **delivery_of(found[0]),
        "url": endpoints[0]["url"] if endpoints else None,
        "type": events[0]["type"] if events else None,
        "data": events[0]["data"] if events else None,
        "history": [
            dict(row) for row in await database.rows("delivery_attempts", endpoint_id, event_id)
        ],
    }


async def retry_delivery(database: Database, text: str) -> None:
    """Send a delivery as soon as its turn comes, once more where it was delivered.

    Of one that does not wait, or has halted, the attempts are counted anew. The attempt is on
    record as `manual`; those that may follow it are of the schedule.

    Raises:
        NotFound: there is no delivery of this id.
        InputRefused: its endpoint is disabled, its event is not kept any more, it is being sent, or
            this was asked before and is about to be done.
    """
    endpoint_id, event_id = _parts(text)
    told = await database.value("retry_delivery", endpoint_id, event_id)
    if told is None:
        raise NotFound("delivery", text)
    if told != "due":
        raise InputRefused(f"{text} is not sent again: {told}")
    await database.value("wake", endpoint_id)


async def cancel_delivery(database: Database, text: str) -> None:
    """Give up a delivery that waits or has halted; what its endpoint's order held up goes on.

    Raises:
        NotFound: no delivery of this id waits. One that is being sent does not.
    """
    endpoint_id, event_id = _parts(text)
    if await database.value("cancel_delivery", endpoint_id, event_id) is None:
        raise NotFound("waiting delivery", text)
    await database.value("wake", endpoint_id)


def _parts(text: str) -> tuple[str, str]:
    """Give the endpoint's id and the event's."""
    found = _DELIVERY_ID.fullmatch(text)
    if found is None:
        raise NotFound("delivery", text)
    return f"ep_{found[2]}", f"evt_{found[1]}"
