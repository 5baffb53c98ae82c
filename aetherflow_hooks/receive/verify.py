"""Verify: is this request from AetherFlow, whole, and of now?"""

import hmac
import re
import time
from collections.abc import Mapping

from aetherflow_hooks.errors import BadSignature
from aetherflow_hooks.rules.signing import (
    PUBLIC_PREFIX,
    Keys,
    aetherflow_signature,
    is_signed_by,
    keys_of,
    standard_signature,
)

TOLERANCE_SECONDS = 300  # of Standard Webhooks, in both directions
SIGNATURES_MAX = 20  # more than any sender makes; each could cost an Ed25519

_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str,
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now_unix_seconds: float | None = None,
) -> str:
    """Make sure that a request was signed with `secret` not long ago; give its event id.

    `body` is the raw body, before any parsing. Header names may be in any case. For an endpoint
    that signs with Ed25519, `secret` is its public key, `whpk_…`. It is the Standard Webhooks
    signature that is checked, which covers the time and holds for the old secret too while a new
    one is being introduced. Use the id to recognise an event that has come before.

    Raises:
        BadSignature: for whatever is wrong, however strange.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise BadSignature("webhook-id or webhook-timestamp is missing or malformed")
    now = time.time() if now_unix_seconds is None else now_unix_seconds
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise BadSignature("webhook-timestamp is too far from now")
    items = given.get("webhook-signature", "").split(" ")[:SIGNATURES_MAX]
    if secret.startswith(PUBLIC_PREFIX):
        fits = any(is_signed_by(secret, item, message_id, int(timestamp), body) for item in items)
    else:
        expected = standard_signature([_keys_of(secret)], message_id, int(timestamp), body)
        fits = any(_same(expected, item) for item in items)
    if not fits:
        raise BadSignature("webhook-signature does not fit the body, its id, time and the secret")
    return message_id


def verify_body(body: bytes, signature: str, secret: str) -> None:
    """Make sure that `signature`, the header X-AetherFlow-Signature, fits the raw body.

    It tells nothing of the time, so somebody who has recorded a request can send it again; prefer
    `verify`.

    Raises:
        BadSignature: it does not fit.
    """
    if not _same(aetherflow_signature(_keys_of(secret), body), signature):
        raise BadSignature("X-AetherFlow-Signature does not fit the body and the secret")


def _keys_of(secret: str) -> Keys:
    try:
        return keys_of(secret)
    except UnicodeEncodeError:
        raise BadSignature("the secret is no text that UTF-8 can hold: nothing fits it") from None


def _same(expected: str, given: str) -> bool:
    """Compare in constant time; text that is not ASCII fits nothing."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
