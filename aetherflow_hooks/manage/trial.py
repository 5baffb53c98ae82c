"""Trial: send something to an endpoint now, and show the request and the answer.

Nothing of it is stored, so it changes neither how the endpoint is doing nor any number.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.endpoints import open_endpoint
from aetherflow_hooks.manage.versions import made_version
from aetherflow_hooks.model import Answered, Endpoint, Event, Prevented, Tried
from aetherflow_hooks.rules.bodies import event_of
from aetherflow_hooks.rules.states import OUTCOME_WORDS, error_of
from aetherflow_hooks.rules.topics import CATALOGUE, is_type, patterns_of

DATA = '{"test":true}'
TYPE = "test"  # where the endpoint wants none of the catalogue

TryOut = Callable[[Endpoint, Event], Awaitable[Tried]]


async def try_endpoint(
    database: Database,
    endpoint_id: str,
    *,
    settings: Settings,
    try_out: TryOut,
    event_type: str | None = None,
    data: str = DATA,
) -> dict[str, Any]:
    """Send an event to an endpoint now, whatever its state; `try_out` is that of Post.

    Without `event_type` it is one that the endpoint wants. Nothing is retried, no limit is asked.

    Keys of what is given: endpoint_id, url, trigger ("test"), event_id, type, request (headers, a
    mapping; body, a text), outcome, status, error (None: it was taken), duration_ms, and response,
    the start of the answer's body in bytes. Of headers that the endpoint asked for, only the names
    are told: their values may be secrets.

    Raises:
        NotFound: there is no such endpoint.
        InputRefused: the type is none, the data no JSON object or too large, or cannot be made
            into the endpoint's version; a secret of the endpoint cannot be read, or this machine
            cannot send anything now.
    """
    endpoint = await open_endpoint(database, endpoint_id, settings)
    if not endpoint.url:
        raise InputRefused(
            f"{endpoint_id} is polled, and nothing is posted to it: emit an event that it wants"
        )
    if endpoint.unsignable:
        raise InputRefused(f"nothing can be sent to {endpoint_id}: {endpoint.unsignable}")
    (shown,) = await database.rows("list_endpoints", None, endpoint_id, None, None, None, 1)
    event_type = event_type or _wanted(shown["events"])
    _check(event_type, data, settings.emit.data_max_bytes)
    if endpoint.payload_version is not None:
        data = await made_version(database, event_type, data, endpoint.payload_version)
    event = _event(event_type, data)
    tried = await try_out(endpoint, event)
    ended = tried.ended
    if isinstance(ended, Prevented):
        raise InputRefused(f"nothing can be sent now: {ended.reason}")
    was_taken = isinstance(ended, Answered) and 200 <= ended.status < 300  # noqa: PLR2004
    lines = (line.split(": ", 1) for line in tried.headers.splitlines())
    return {
        "endpoint_id": endpoint_id,
        "url": endpoint.url,
        "trigger": "test",
        "event_id": event.id,
        "type": event.type,
        "request": {
            "headers": dict(lines) | dict.fromkeys(shown["headers"], "(not shown)"),
            "body": event.body.decode(),
        },
        "outcome": OUTCOME_WORDS[type(ended)],
        "status": ended.status if isinstance(ended, Answered) else None,
        "error": None if was_taken else error_of(ended),
        "duration_ms": round(tried.seconds * 1000),
        "response": ended.response if isinstance(ended, Answered) else b"",
    }


def _wanted(patterns: Sequence[str]) -> str:
    """Choose a type that an endpoint wants: of its own words, or else of the catalogue."""
    named = next((pattern for pattern in patterns if is_type(pattern)), None)
    known = (it for it in CATALOGUE if set(patterns_of(it)) & set(patterns))
    return named or next(known, TYPE)


def _check(event_type: str, data: str, data_max_bytes: int) -> None:
    if not is_type(event_type):
        raise InputRefused(f"{event_type!r} is not a type: 1 to 128 of A-Z a-z 0-9 _ . -")
    try:
        is_object = isinstance(orjson.loads(data), dict)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        is_object = False
    if not is_object or len(data.encode()) > data_max_bytes:
        raise InputRefused(f"the data is not a JSON object of at most {data_max_bytes:,} bytes")


def _event(event_type: str, data: str) -> Event:
    """Make an event with an id of the moment, as emit would."""
    now = time.time()
    event_id = f"evt_{int(now * 1_000_000):013x}{secrets.token_hex(6)[:11]}"
    return event_of(event_id, event_type, data, int(now))
