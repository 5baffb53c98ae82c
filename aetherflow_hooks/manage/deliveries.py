"""Deliveries: look at them, and decide over one by hand."""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.attempts import Chosen, list_attempts
from aetherflow_hooks.manage.audit import audited
from aetherflow_hooks.manage.events import delivery_of
from aetherflow_hooks.manage.pages import NEWEST, ROWS_DEFAULT, ROWS_MAX, Page, Place, place_of
from aetherflow_hooks.manage.versions import made_version
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.bodies import event_of
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.states import State

LOOKED_MAX = 10_000  # deliveries, where only some of them are told

NOT_SHOWN = "(not shown)"
NOT_KEPT = "(made for each attempt, and not kept)"
NOT_YET = "(when it is sent)"

_DELIVERY_ID = re.compile("dlv_([0-9a-f]{24})_([0-9a-f]{12})")
_ENDPOINT_ID = re.compile("ep_[0-9a-f]{12}")


async def list_deliveries(
    database: Database,
    *,
    state: State | None = None,
    endpoint_id: str | None = None,
    tenant: str | None = None,
    before: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> Page:
    """List deliveries: by default what is undelivered, by endpoint, the oldest events first.

    Those that are pending, leased or halted come in that order too; the dead and the delivered
    come with the last first. A delivery: id, endpoint_id, event_id, state, attempts, due_at, reason
    (of a dead one) and ended_at (of a dead or delivered one). A page goes as far as one look goes,
    so it may hold less than `rows_max`, or nothing, and yet have more behind it: ask again with
    its `before`.

    Raises:
        NotFound: the endpoint's id is not of the form that ids have.
        InputRefused: `before` is no place in this list, or `rows_max` is not 1 to 1,000.
    """
    in_range("the number of rows", rows_max, 1, ROWS_MAX)
    if endpoint_id is not None and not _ENDPOINT_ID.fullmatch(endpoint_id):
        raise NotFound("endpoint", endpoint_id)
    if state is State.DELIVERED:
        return await _list_delivered(database, endpoint_id, tenant, before, rows_max)
    filters = (endpoint_id, tenant, rows_max, max(LOOKED_MAX, rows_max))
    if state is State.DEAD:
        at = place_of(before) if before else NEWEST
        found = await database.rows("list_dead", *at[:3], *filters)
    else:
        behind = _parts(before) if before else ("", "")
        found = await database.rows("list_work", *behind, state, *filters)
    rows = [_told(row) for row in found if not row["is_place"]]
    is_more = len(rows) == rows_max or bool(found and found[-1]["is_place"])
    return Page(rows, _written(found[-1]) if is_more else None)


async def _list_delivered(
    database: Database,
    endpoint_id: str | None,
    tenant: str | None,
    before: str | None,
    rows_max: int,
) -> Page:
    """List what was delivered, each once: by the last attempt that did it."""
    chosen = Chosen(
        endpoint_id=endpoint_id, tenant=tenant, verdict=str(State.DELIVERED), only_last=True
    )
    page = await list_attempts(database, chosen, before=before, rows_max=rows_max)
    rows = [
        {
            "id": row["delivery_id"],
            "endpoint_id": row["endpoint_id"],
            "event_id": row["event_id"],
            "state": str(State.DELIVERED),
            "attempts": row["attempt"],
            "due_at": None,
            "reason": None,
            "ended_at": row["started_at"] + timedelta(milliseconds=row["duration_ms"]),
        }
        for row in page.rows
    ]
    return Page(rows, page.before)


def _told(row: Row) -> dict[str, Any]:
    """Give a row of what is undelivered or dead as every delivery is told."""
    is_dead = "died_at" in row
    return {
        "id": delivery_id(row["event_id"], row["endpoint_id"]),
        "endpoint_id": row["endpoint_id"],
        "event_id": row["event_id"],
        "state": str(State.DEAD) if is_dead else row["state"],
        "attempts": row["attempts"],
        "due_at": None if is_dead else row["due_at"],
        "reason": row["reason"] if is_dead else None,
        "ended_at": row["died_at"] if is_dead else None,
    }


def _written(row: Row) -> str:
    """Give the place behind a row: by time in a list by time, else the delivery."""
    if "died_at" in row:
        return Place(row["died_at"], row["endpoint_id"], row["event_id"]).written()
    return delivery_id(row["event_id"], row["endpoint_id"])


async def show_delivery(database: Database, text: str) -> dict[str, Any]:
    """Give a delivery with its event's `type` and `data`, its endpoint's `url`, and its attempts.

    Keys besides: tenant, as in `show_event`, and `request`: the body as it is sent, and the headers
    of the last attempt, but for values that are secret; None where there is nothing to send any
    more. The body is of the version that the endpoint asks for now; where that cannot be made, it
    says why. Of an attempt: attempt, trigger (manual, replay, or None: its schedule), started_at,
    duration_ms, outcome, verdict, status, error, and response, the start of a failing answer in
    bytes. Type and data are None where the event is not kept any
    more, data where it was expunged, and the URL where the endpoint was deleted.

    Raises:
        NotFound: there is none of this id.
    """
    endpoint_id, event_id = _parts(text)
    *found, _ = await database.rows("event_deliveries", event_id, endpoint_id, "", 1)
    if not found:
        raise NotFound("delivery", text)
    events = await database.rows("show_event", event_id)
    endpoints = await database.rows("list_endpoints", None, endpoint_id, None, None, None, 1)
    history = await database.rows("delivery_attempts", endpoint_id, event_id)
    has_data = bool(events) and events[0]["data"] is not None
    return {
        **delivery_of(found[0]),
        "tenant": (events or endpoints or [{"tenant": None}])[0]["tenant"],
        "url": endpoints[0]["url"] if endpoints else None,
        "type": events[0]["type"] if events else None,
        "data": events[0]["data"] if events else None,
        "request": await _request(database, text, events[0], endpoints, history)
        if has_data
        else None,
        "history": [dict(row) for row in history],
    }


async def _request(
    database: Database, text: str, event: Row, endpoints: Sequence[Row], history: Sequence[Row]
) -> dict[str, Any]:
    """Give what is sent of a delivery, with the headers of its last attempt, or of its first."""
    last = history[-1] if history else None
    version = endpoints[0]["payload_version"] if endpoints else None
    try:
        data = event["data"]
        if version is not None:
            data = await made_version(database, event["type"], data, version)
        emitted_at = int(event["emitted_at"].timestamp())
        body = event_of(event["id"], event["type"], data, emitted_at).body.decode()
    except InputRefused as error:
        body = f"({error})"
    headers = {
        "Content-Type": "application/json",
        "X-AetherFlow-Signature": NOT_KEPT,
        "X-AetherFlow-Event": event["type"],
        "X-AetherFlow-Delivery": text,
        "X-AetherFlow-Attempt": str(last["attempt"] if last else 1),
        "webhook-id": event["id"],
        "webhook-timestamp": str(int(last["started_at"].timestamp())) if last else NOT_YET,
        "webhook-signature": NOT_KEPT,
    }
    own = endpoints[0]["headers"] if endpoints else []
    return {"headers": headers | dict.fromkeys(own, NOT_SHOWN), "body": body}


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
    async with audited(database, "delivery.retry", text) as bound:
        told = await bound.value("retry_delivery", endpoint_id, event_id)
        if told is None:
            raise NotFound("delivery", text)
        if told != "due":
            raise InputRefused(f"{text} is not sent again: {told}")
        await bound.value("wake", endpoint_id)


async def cancel_delivery(database: Database, text: str) -> None:
    """Give up a delivery that waits or has halted; what its endpoint's order held up goes on.

    Raises:
        NotFound: no delivery of this id waits. One that is being sent does not.
    """
    endpoint_id, event_id = _parts(text)
    async with audited(database, "delivery.cancel", text) as bound:
        if await bound.value("cancel_delivery", endpoint_id, event_id) is None:
            raise NotFound("waiting delivery", text)
        await bound.value("wake", endpoint_id)


def _parts(text: str) -> tuple[str, str]:
    """Give the endpoint's id and the event's."""
    found = _DELIVERY_ID.fullmatch(text)
    if found is None:
        raise NotFound("delivery", text)
    return f"ep_{found[2]}", f"evt_{found[1]}"
