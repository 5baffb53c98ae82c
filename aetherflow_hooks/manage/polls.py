"""Polls: deliveries for endpoints that ask for them, since nobody can post to where they are.

What a poll is given is on lease as for a POST, under a token of its own. The cursor that is told
with it names exactly that, so whoever gives it back acknowledges what they were given and nothing
else, however late an earlier event may be committed.
"""

import asyncio
import base64
import re
import secrets
import struct
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import InputRefused, NotNow
from aetherflow_hooks.manage.endpoints import open_endpoint
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX
from aetherflow_hooks.model import (
    Answered,
    Attempt,
    Delivered,
    Delivery,
    Endpoint,
    EndpointState,
    Outcome,
    RetryIn,
    TimedOut,
    Verdict,
    delivery_id,
    unix_us_of,
)
from aetherflow_hooks.rules.bodies import event_of
from aetherflow_hooks.rules.ranges import in_range
from aetherflow_hooks.rules.signing import Keys, keys_of, signed_lines

LEASE_SECONDS_DEFAULT = 60
LEASE_SECONDS = (10, 3_600)
BYTES_MAX = 4 * 1024 * 1024  # of the data in one answer, but for one event that has more
# What is given and not acknowledged stands before what is not given, and is walked past each time.
AHEAD_MAX = 10_000
# Very many may be due at one moment, and those that are acknowledged stand anywhere among them.
LOOKED_MAX = 1_000_000
SIGNED_AT_ONCE = 50
LEASE_BITS = 12  # the last of a token, which say for how many seconds it is: see give_deliveries

HELD = "the database was restored: nothing is given before `aetherflow-hooks restore accept`"

OnRecorded = Callable[[Sequence[Attempt]], None]

_CURSOR = re.compile("cur_([A-Za-z0-9_-]{54})")
_PACKED = struct.Struct(">6sQQQQH")
_MICROSECONDS_MAX = 2**52  # the year 2112
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class Cursor(NamedTuple):
    """What one poll was given."""

    endpoint_id: str
    token: int  # of the leases
    given_at: datetime  # by the database's clock
    first_due_at: datetime
    last_due_at: datetime
    given: int

    def written(self) -> str:
        """Give it as it is told.

        >>> Cursor("ep_7f3a9c21d04e", 7, _EPOCH, _EPOCH, _EPOCH, 3).written()
        'cur_fzqcIdBOAAAAAAAAAAcAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAw'
        """
        moments = (self.given_at, self.first_due_at, self.last_due_at)
        packed = _PACKED.pack(
            bytes.fromhex(self.endpoint_id[3:]),
            self.token,
            *((moment - _EPOCH) // _MICROSECOND for moment in moments),
            self.given,
        )
        return f"cur_{base64.urlsafe_b64encode(packed).decode().rstrip('=')}"


class Polled(NamedTuple):
    """What a poll was given."""

    items: list[dict[str, Any]]  # id, event_id, type, attempt, headers, body
    cursor: str | None  # acknowledges them; None: there are none
    is_more: bool  # there may be more that can be given now


def polled(shown: dict[str, Any]) -> dict[str, Any]:
    """Give an endpoint that was shown, if it is polled.

    Raises:
        InputRefused: it is not.
    """
    if not shown["polled"]:
        raise InputRefused(f"{shown['id']} is not polled: events are posted to it")
    return shown


def read_cursor(text: str, endpoint_id: str) -> Cursor:
    """Read a cursor of an endpoint.

    Raises:
        InputRefused: it is none, or another endpoint's.
    """
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InputRefused("the cursor is none: give back what an answer has told, as it is")
    of, token, *moments, given = _PACKED.unpack(base64.urlsafe_b64decode(found[1] + "=="))
    if f"ep_{of.hex()}" != endpoint_id:
        raise InputRefused(f"the cursor is of another endpoint than {endpoint_id}")
    if token >= 2**63 or max(moments) >= _MICROSECONDS_MAX or not 1 <= given <= ROWS_MAX:
        raise InputRefused("the cursor is none: give back what an answer has told, as it is")
    at, first, last = (_EPOCH + moment * _MICROSECOND for moment in moments)
    return Cursor(endpoint_id, token, at, first, last, given)


async def acknowledge(
    database: Database, shown: Mapping[str, Any], text: str, *, on_recorded: OnRecorded
) -> int:
    """Write as delivered what a cursor names; tell how many that were.

    `shown` is the endpoint; `on_recorded` gets the attempts, to count them. Once more changes
    nothing, and is as good for a day. A lease that has ended is good for as long as nobody else was
    given the delivery, and nobody has asked for it to be retried.

    Raises:
        InputRefused: the cursor is none, or another endpoint's.
        NotNow: some of it was given again, or given up, in the meantime; the rest is written.
    """
    cursor = read_cursor(text, shown["id"])
    async with database.transaction(planned_as_flow=True) as bound:
        rows = await bound.rows("acknowledge_given", *cursor, LOOKED_MAX)
    done = Answered(200, None, b"")
    on_recorded(
        [_attempt(shown, row["shard"], row, row["started_at"], done, Delivered()) for row in rows]
    )
    if len(rows) < cursor.given:
        before = await database.value("count_acknowledged", shown["id"], cursor.given_at)
        # those of just now are among them, unless it was long ago
        lost = cursor.given - max(before, len(rows))
        if lost > 0:
            raise NotNow(
                f"{lost} of {cursor.given} deliveries were given again or given up, since their "
                "lease had ended; the others are acknowledged. Poll without this cursor, and ask "
                "for less at once or for longer leases"
            )
    return len(rows)


async def give(
    database: Database,
    shown: Mapping[str, Any],
    *,
    settings: Settings,
    user_agent: str,
    deliveries_max: int = ROWS_DEFAULT,
    lease_seconds: int = LEASE_SECONDS_DEFAULT,
    on_recorded: OnRecorded,
) -> Polled:
    """Give what waits for an endpoint that is polled, the oldest first, for `lease_seconds`.

    `shown` is the endpoint. Each delivery comes with the headers that a POST would have now and the
    text of its body; all together have at most 4 MiB of data, but for one that alone has more. What
    is not acknowledged by then is given again, with the attempt counted up, until it is or has
    expired; that it was not is on record as an attempt, which `on_recorded` gets to count it. While
    an endpoint is paused it is given nothing.

    Raises:
        InputRefused: `deliveries_max` is not 1 to 1,000, or `lease_seconds` not 10 to 3,600.
        NotNow: the endpoint is disabled, or nothing can be signed for it.
    """
    in_range("the number of deliveries", deliveries_max, 1, ROWS_MAX)
    in_range("the lease", lease_seconds, *LEASE_SECONDS)
    if shown["state"] == EndpointState.DISABLED:
        raise NotNow(f"{shown['id']} is disabled: it is given nothing until it is enabled")
    endpoint = await open_endpoint(database, shown["id"], settings)
    if endpoint.unsignable:
        raise NotNow(f"nothing can be signed for {endpoint.id}: {endpoint.unsignable}")
    keys = [keys_of(secret.value) for secret in endpoint.secrets]
    token = secrets.randbits(63 - LEASE_BITS) << LEASE_BITS | lease_seconds
    limits = (deliveries_max, lease_seconds, token, BYTES_MAX, AHEAD_MAX)
    async with database.transaction(planned_as_flow=True) as bound:
        rows = await bound.rows("give_deliveries", shown["id"], *limits)
    on_recorded(
        [
            _attempt(shown, endpoint.shard, row, row["at"], _missed(row), RetryIn(0.0))
            for row in rows
            if row["kind"] == "missed"
        ]
    )
    given = [row for row in rows if row["kind"] == "given"]
    given.sort(key=lambda row: (row["due_at"], row["event_id"]))
    looked = rows[0]["looked"]
    items = []
    for place, row in enumerate(given, 1):
        items.append(_item(endpoint, row, keys, user_agent))
        if place % SIGNED_AT_ONCE == 0:
            await asyncio.sleep(0)  # others get their turn
    return Polled(
        items,
        _cursor(shown["id"], token, given).written() if given else None,
        looked == deliveries_max or len(given) < looked,
    )


async def which_wait(database: Database, endpoint_ids: list[str]) -> list[str]:
    """Tell which of these endpoints, which are polled, have something to be given."""
    async with database.transaction(planned_as_flow=True) as bound:
        rows = await bound.rows("find_polled", endpoint_ids, AHEAD_MAX)
    return [row["endpoint_id"] for row in rows]


def _item(endpoint: Endpoint, row: Row, keys: list[Keys], user_agent: str) -> dict[str, Any]:
    event = event_of(row["event_id"], row["type"], row["data"], row["emitted_unix_seconds"])
    name = delivery_id(event.id, endpoint.id)
    lines = signed_lines(
        keys,
        event.body,
        event_id=event.id,
        event_type=event.type,
        delivery=name,
        attempt=row["attempt"],
        unix_seconds=int(time.time()),
    )
    headers = dict(line.split(": ", 1) for line in lines.splitlines())
    return {
        "id": name,
        "event_id": event.id,
        "type": event.type,
        "attempt": row["attempt"],
        "headers": {"Content-Type": "application/json", "User-Agent": user_agent, **headers},
        "body": event.body.decode(),
    }


def _cursor(endpoint_id: str, token: int, given: list[Row]) -> Cursor:
    first, last = given[0], given[-1]
    return Cursor(endpoint_id, token, first["at"], first["due_at"], last["due_at"], len(given))


def _missed(row: Row) -> TimedOut:
    return TimedOut(row["duration_ms"] / 1000)


def _attempt(
    shown: Mapping[str, Any],
    shard: int,
    row: Row,
    started_at: datetime,
    outcome: Outcome,
    verdict: Verdict,
) -> Attempt:
    """Make an attempt that is on record already, to be counted."""
    endpoint_id = shown["id"]
    started_us = unix_us_of(started_at)
    delivery = Delivery(
        shard, endpoint_id, row["event_id"], 0, row["attempt"], 0, started_us, 0.0, False
    )
    return Attempt(delivery, outcome, verdict, started_us, row["duration_ms"], "", shown["tenant"])
