"""Requests as the engine makes them, signed now."""

import time
from typing import Any

from aetherflow_hooks import testing

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def request(
    event_id: str,
    data: str = "{}",
    *,
    event_type: str = "a.b",
    secret: str = SECRET,
    body: bytes | None = None,
) -> tuple[bytes, dict[str, str]]:
    """Make a body, and the headers that are about it."""
    made: Any
    if body is None:
        made = testing.sign_for_test(event_type, data, secret=secret, event_id=event_id)
    else:
        made = testing._signed(
            body,
            event_id=event_id,
            event_type=event_type,
            secret=secret,
            attempt=1,
            unix_seconds=time.time(),
        )
    signed_body, headers = made
    return signed_body, headers
