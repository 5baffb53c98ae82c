"""Signatures: is this request from AetherFlow, whole, and of now?"""

import functools
import hmac
import re
import time
from collections.abc import Mapping, Sequence

from aetherflow_hooks.errors import BadSignature
from aetherflow_hooks.rules.signing import (
    PREFIX,
    PRIVATE_PREFIX,
    PUBLIC_PREFIX,
    Keys,
    aetherflow_signature,
    is_signed_by,
    keys_of,
    standard_signature,
)

TOLERANCE_SECONDS = 300  # of Standard Webhooks, in both directions
SECRETS_REMEMBERED = 100  # with the work that is the same for each request
SIGNATURES_MAX = 20  # more than any sender makes; each could cost an Ed25519

_keys_of = functools.lru_cache(SECRETS_REMEMBERED)(keys_of)

_NOTHING = ("", PREFIX, PRIVATE_PREFIX, PUBLIC_PREFIX)
_TIMESTAMP = re.compile(r"0|[1-9][0-9]{0,14}", re.ASCII)
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)


def verify(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now_unix_seconds: float | None = None,
) -> str:
    """Make sure that a request was signed with `secret` not long ago; give its event id.

    `body` is the raw body, before any parsing. Header names may be in any case. For an endpoint
    that signs with Ed25519, `secret` is its public key, `whpk_…`; several secrets are those of
    several endpoints at one URL, or the old one and the new, and any of them will do. It is the
    Standard Webhooks signature that is checked, which covers the time and holds for the old secret
    too while a new one is being introduced. Use the id to recognise an event that has come before.

    Raises:
        BadSignature: for whatever is wrong, however strange.
    """
    raw = _raw(body)
    given = lower_names(headers)
    message_id, timestamp = given.get("webhook-id", ""), given.get("webhook-timestamp", "")
    if not _ID.fullmatch(message_id) or not _TIMESTAMP.fullmatch(timestamp):
        raise BadSignature("webhook-id or webhook-timestamp is missing or malformed")
    now = time.time() if now_unix_seconds is None else now_unix_seconds
    if abs(now - int(timestamp)) > tolerance_seconds:
        raise BadSignature("webhook-timestamp is too far from now")
    items = given.get("webhook-signature", "").split(" ")[:SIGNATURES_MAX]
    signed = (message_id, int(timestamp), raw)
    if not any(_fits(one, items, *signed) for one in _secrets(secret)):
        raise BadSignature("webhook-signature does not fit the body, its id, time and the secret")
    return message_id


def verify_body(body: bytes, signature: str, secret: str | Sequence[str]) -> None:
    """Make sure that `signature`, the header X-AetherFlow-Signature, fits the raw body.

    It tells nothing of the time, so somebody who has recorded a request can send it again; prefer
    `verify`. Of several secrets any will do.

    Raises:
        BadSignature: it does not fit.
    """
    raw = _raw(body)
    given = signature if isinstance(signature, str) else ""
    # With a public key, which everybody may know, nothing of this kind is signed.
    shared = [one for one in _secrets(secret) if not one.startswith(PUBLIC_PREFIX)]
    if not any(_same(aetherflow_signature(_keys(one), raw), given) for one in shared):
        raise BadSignature("X-AetherFlow-Signature does not fit the body and the secret")


def _fits(secret: str, items: list[str], message_id: str, unix_seconds: int, body: bytes) -> bool:
    if secret.startswith(PUBLIC_PREFIX):
        return any(is_signed_by(secret, item, message_id, unix_seconds, body) for item in items)
    expected = standard_signature([_keys(secret)], message_id, unix_seconds, body)
    return any(_same(expected, item) for item in items)


def _raw(body: bytes) -> bytes:
    if not isinstance(body, bytes | bytearray | memoryview):
        raise BadSignature("the body is not bytes: give it raw, as it came and before any parsing")
    return bytes(body)


def lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the headers by their names in lower case; what is no text is not there."""
    return {
        name.lower(): value
        for name, value in headers.items()
        if isinstance(name, str) and isinstance(value, str)
    }


def _secrets(secret: str | Sequence[str]) -> Sequence[str]:
    """Give the secrets.

    Where somebody forgot to set one, or lost all but its prefix, everybody could sign.
    """
    several = [secret] if isinstance(secret, str) else list(secret or ())
    for one in several:
        if not isinstance(one, str) or one.strip() in _NOTHING:
            raise BadSignature("a secret is missing here, or cut off: nothing fits it")
    if not several:
        raise BadSignature("there is no secret here: nothing fits it")
    return several


def _keys(secret: str) -> Keys:
    try:
        return _keys_of(secret)
    except UnicodeEncodeError:
        raise BadSignature("the secret is no text that UTF-8 can hold: nothing fits it") from None


def _same(expected: str, given: str) -> bool:
    """Compare in constant time; text that is not ASCII fits nothing."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
