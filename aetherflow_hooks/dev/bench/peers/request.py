"""Request: what every peer sends, with the headers that our engine sends."""

import base64
import hmac
import time

from aetherflow_hooks.dev.bench.load import DATA

SECRET = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
KEY = base64.b64decode(SECRET.removeprefix(b"whsec_"))


def body_of(event_id: str) -> bytes:
    """Write the body of an event."""
    return (
        f'{{"event":"t.0","id":"{event_id}","timestamp":"2024-01-15T10:30:00Z","data":{DATA}}}'
    ).encode()


def headers_of(event_id: str, body: bytes) -> dict[str, str]:
    """Sign a request, in both ways."""
    seconds = str(int(time.time()))
    signed = b"%b.%b.%b" % (event_id.encode(), seconds.encode(), body)
    standard = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
    return {
        "Content-Type": "application/json",
        "User-Agent": "AetherFlow-Hooks/bench",
        "Accept-Encoding": "identity",
        "X-AetherFlow-Signature": hmac.digest(SECRET, body, "sha256").hex(),
        "X-AetherFlow-Event": "t.0",
        "X-AetherFlow-Delivery": event_id,
        "X-AetherFlow-Attempt": "1",
        "webhook-id": event_id,
        "webhook-timestamp": seconds,
        "webhook-signature": f"v1,{standard}",
    }


def event_id_of(number: int) -> str:
    """Name an event, in the length of a real id."""
    return f"evt_{number:024x}"
