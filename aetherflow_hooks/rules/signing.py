"""Signing: secrets and the two signatures of a request.

`X-AetherFlow-Signature` is AetherFlow's own: lower-case hex of HMAC-SHA256 over the raw body, its
key the UTF-8 bytes of the whole secret. `webhook-signature` follows Standard Webhooks 1.0
(https://www.standardwebhooks.com): base64 of HMAC-SHA256 over `id.timestamp.body`, its key what
stands in base64 behind `whsec_`.
"""

import base64
import binascii
import functools
import hashlib
import hmac
from collections.abc import Sequence
from typing import Any, NamedTuple

from aetherflow_hooks.errors import InputRefused

PREFIX = "whsec_"
SEALED_PREFIX = "sealed:"  # of a secret as it is stored: see `sealing`
KEY_BYTES = range(24, 64 + 1)  # what Standard Webhooks allows
OWN_CHARACTERS = range(16, 256 + 1)  # of a secret that the user brings
NEW_KEY_BYTES = 32
KEYS_REMEMBERED = 20_000


class Keys(NamedTuple):
    """The two keys that one secret stands for."""

    aetherflow: bytes
    standard: bytes


def new_secret(random_bytes: bytes) -> str:
    """Make a secret of `random_bytes` (24 to 64; NEW_KEY_BYTES is a good number)."""
    if len(random_bytes) not in KEY_BYTES:
        raise ValueError(f"a secret takes 24 to 64 random bytes, not {len(random_bytes)}")
    return PREFIX + base64.b64encode(random_bytes).decode()


def check_secret(secret: str) -> str:
    """Give back a secret that a user brings, or say what is wrong with it.

    Raises:
        InputRefused: it is not 16 to 256 printable characters, starts like a sealed one, or starts
            with `whsec_` without canonical base64 of 24 to 64 bytes behind it. The message does
            not hold the secret.
    """
    if len(secret) not in OWN_CHARACTERS or not secret.isprintable():
        raise InputRefused("a secret is 16 to 256 printable characters")
    if secret.startswith(SEALED_PREFIX):
        raise InputRefused(f"a secret does not start with {SEALED_PREFIX}: stored ones do")
    if secret.startswith(PREFIX):
        key = _decoded(secret)
        if key is None or len(key) not in KEY_BYTES:
            raise InputRefused(
                "a secret that starts with whsec_ goes on with base64 of 24 to 64 bytes"
            )
    try:
        secret.encode()
    except UnicodeEncodeError:
        raise InputRefused("a secret is text that UTF-8 can hold") from None
    return secret


def keys_of(secret: str) -> Keys:
    """Derive both keys. A secret that is not `whsec_` and base64 is its own key for both."""
    whole = secret.encode()
    decoded = _decoded(secret) if secret.startswith(PREFIX) else None
    return Keys(aetherflow=whole, standard=whole if decoded is None else decoded)


def aetherflow_signature(keys: Keys, body: bytes) -> str:
    """Sign the body alone: 64 lower-case hex digits."""
    digest: str = _mac(keys.aetherflow, body).hexdigest()
    return digest


def standard_signature(
    all_keys: Sequence[Keys], message_id: str, unix_seconds: int, body: bytes
) -> str:
    """Sign id, time and body with each key: `v1,<base64>` items, parted by a blank."""
    content = b"%b.%d.%b" % (message_id.encode(), unix_seconds, body)
    signatures = [
        binascii.b2a_base64(_mac(keys.standard, content).digest(), newline=False).decode()
        for keys in all_keys
    ]
    return f"v1,{' v1,'.join(signatures)}"


def _mac(key: bytes, content: bytes) -> Any:
    mac = _begun(key).copy()
    mac.update(content)
    return mac


@functools.lru_cache(KEYS_REMEMBERED)
def _begun(key: bytes) -> Any:
    """Begin with a key: half of the work on a short body, so it is done once.

    What comes out is OpenSSL's own object, where there is one inside: it has the same methods, and
    copying the wrapper costs more than the digest.
    """
    begun = hmac.new(key, digestmod=hashlib.sha256)
    return getattr(begun, "_hmac", None) or begun


def _decoded(secret: str) -> bytes | None:
    """Decode what follows the prefix; None unless it is base64 as an encoder writes it."""
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if base64.b64encode(key).decode() == text else None
