"""Requests as the engine makes them, signed now."""

import time

from aetherflow_hooks.rules.signing import keys_of, signed_lines

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
    if body is None:
        body = (
            f'{{"event":"{event_type}","id":"{event_id}","timestamp":"2024-01-15T10:30:00Z",'
            f'"data":{data}}}'
        ).encode()
    lines = signed_lines(
        [keys_of(secret)],
        body,
        event_id=event_id,
        event_type=event_type,
        delivery="dlv_1",
        attempt=1,
        unix_seconds=int(time.time()),
    )
    headers = dict(line.split(": ", 1) for line in lines.splitlines())
    return body, {**headers, "Content-Type": "application/json"}
