"""Signing: secrets and the two signatures of a request.

`X-AetherFlow-Signature` is AetherFlow's own: lower-case hex of HMAC-SHA256 over the raw body, its
key the UTF-8 bytes of the whole secret. `webhook-signature` follows Standard Webhooks 1.0
(https://www.standardwebhooks.com) and is made over `id.timestamp.body`. Which way is the secret's:

    whsec_ + base64 of 24 to 64 bytes          v1,  HMAC-SHA256 with these bytes
    whsk_  + base64 of a seed and public key   v1a, Ed25519 (RFC 8032), verified with `whpk_…`
    anything else                              v1,  HMAC-SHA256 with its UTF-8 bytes
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aetherflow_hooks.errors import InputRefused

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

PREFIX = "whsec_"
PRIVATE_PREFIX = "whsk_"
PUBLIC_PREFIX = "whpk_"
SEALED_PREFIX = "sealed:"  # of what is stored: nothing that a user gives begins so
KEY_BYTES = range(24, 64 + 1)  # what Standard Webhooks allows
OWN_CHARACTERS = range(16, 256 + 1)  # of a secret that the user brings
NEW_KEY_BYTES = 32
ED25519_BYTES = 32  # of a seed, and of a public key


@dataclass(frozen=True, slots=True)
class Keys:
    """The two keys that one secret stands for, each with the beginning of its work done.

    Beginning with a key is half of the work on a short body, so it is kept: here and not beside
    the key in some table, where it would outlive the endpoint.
    """

    aetherflow: bytes = field(repr=False)
    standard: "bytes | Ed25519PrivateKey" = field(repr=False)
    _own_mac: Any = field(init=False, repr=False, compare=False)
    _standard_mac: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        is_shared = isinstance(self.standard, bytes)
        object.__setattr__(self, "_own_mac", _begun(self.aetherflow))
        object.__setattr__(self, "_standard_mac", _begun(self.standard) if is_shared else None)

    def sign_body(self, body: bytes) -> str:
        """Give the 64 lower-case hex digits of `X-AetherFlow-Signature`."""
        mac = self._own_mac.copy()
        mac.update(body)
        digest: str = mac.hexdigest()
        return digest

    def sign(self, content: bytes) -> str:
        """Give one item of `webhook-signature`."""
        if not isinstance(self.standard, bytes):
            made = binascii.b2a_base64(self.standard.sign(content), newline=False)
            return f"v1a,{made.decode()}"
        mac = self._standard_mac.copy()
        mac.update(content)
        return f"v1,{binascii.b2a_base64(mac.digest(), newline=False).decode()}"


def new_secret(random_bytes: bytes, *, ed25519: bool = False) -> str:
    """Make a secret of `random_bytes`: 24 to 64, NEW_KEY_BYTES of them for Ed25519."""
    if ed25519:
        private = _key_of(random_bytes)
        both = random_bytes + private.public_key().public_bytes_raw()
        return PRIVATE_PREFIX + base64.b64encode(both).decode()
    if len(random_bytes) not in KEY_BYTES:
        raise ValueError(f"a secret takes 24 to 64 random bytes, not {len(random_bytes)}")
    return PREFIX + base64.b64encode(random_bytes).decode()


def public_key_of(secret: str) -> str | None:
    """Give the `whpk_…` that verifies what this secret signs; None: the secret itself does."""
    private = _private_key(secret)
    if private is None:
        return None
    return PUBLIC_PREFIX + base64.b64encode(private.public_key().public_bytes_raw()).decode()


def check_secret(secret: str) -> str:
    """Give back a secret that a user brings, or say what is wrong with it.

    Raises:
        InputRefused: it is not 16 to 256 printable characters, starts like a sealed one, or is not
            what its prefix promises. The message does not hold the secret.
    """
    if len(secret) not in OWN_CHARACTERS or not secret.isprintable():
        raise InputRefused("a secret is 16 to 256 printable characters")
    if secret.startswith(SEALED_PREFIX):
        raise InputRefused(f"a secret does not start with {SEALED_PREFIX}: stored ones do")
    if secret.startswith(PREFIX):
        key = _decoded(secret, PREFIX)
        if key is None or len(key) not in KEY_BYTES:
            raise InputRefused(
                "a secret that starts with whsec_ goes on with base64 of 24 to 64 bytes"
            )
    if secret.startswith(PRIVATE_PREFIX) and _private_key(secret) is None:
        raise InputRefused(
            "a secret that starts with whsk_ goes on with base64 of an Ed25519 seed and its "
            "public key, 64 bytes in all"
        )
    if secret.startswith(PUBLIC_PREFIX):
        raise InputRefused("whpk_ is a public key: it verifies, and cannot sign; give the whsk_")
    try:
        secret.encode()
    except UnicodeEncodeError:
        raise InputRefused("a secret is text that UTF-8 can hold") from None
    return secret


def keys_of(secret: str) -> Keys:
    """Derive both keys. A secret that is not what its prefix promises is its own key for both."""
    whole = secret.encode()
    standard = _private_key(secret) or _decoded(secret, PREFIX)
    return Keys(aetherflow=whole, standard=whole if standard is None else standard)


def aetherflow_signature(keys: Keys, body: bytes) -> str:
    """Sign the body alone: 64 lower-case hex digits."""
    return keys.sign_body(body)


def standard_signature(
    all_keys: Sequence[Keys], message_id: str, unix_seconds: int, body: bytes
) -> str:
    """Sign id, time and body with each key: `v1,<base64>` or `v1a,…` items, parted by a blank."""
    content = _signed(message_id, unix_seconds, body)
    return " ".join([keys.sign(content) for keys in all_keys])


def signed_lines(
    keys: Sequence[Keys],
    body: bytes,
    *,
    event_id: str,
    event_type: str,
    delivery: str,
    attempt: int,
    unix_seconds: int,
) -> str:
    """Write what names and signs a delivery as header lines, each with its CRLF.

    The first key makes `X-AetherFlow-Signature`. No value can hold the end of a line: types and
    ids are made of harmless letters.
    """
    return (
        f"X-AetherFlow-Signature: {keys[0].sign_body(body)}\r\n"
        f"X-AetherFlow-Event: {event_type}\r\n"
        f"X-AetherFlow-Delivery: {delivery}\r\n"
        f"X-AetherFlow-Attempt: {attempt}\r\n"
        f"webhook-id: {event_id}\r\n"
        f"webhook-timestamp: {unix_seconds}\r\n"
        f"webhook-signature: {standard_signature(keys, event_id, unix_seconds, body)}\r\n"
    )


def is_signed_by(
    public_key: str, signature: str, message_id: str, unix_seconds: int, body: bytes
) -> bool:
    """Tell whether one item of `webhook-signature` was made with the other half of a `whpk_…`."""
    version, _, text = signature.partition(",")
    key, given = _decoded(public_key, PUBLIC_PREFIX), _base64(text)
    if version != "v1a" or given is None or key is None or len(key) != ED25519_BYTES:
        return False
    from aetherflow_hooks.rules import ed25519  # noqa: PLC0415  see there

    return ed25519.is_signed(key, given, _signed(message_id, unix_seconds, body))


def _signed(message_id: str, unix_seconds: int, body: bytes) -> bytes:
    return b"%b.%d.%b" % (message_id.encode(), unix_seconds, body)


def _begun(key: Any) -> Any:
    """Begin an HMAC.

    What comes out is OpenSSL's own object, where there is one inside: it has the same methods, and
    copying the wrapper costs more than the digest.
    """
    begun = hmac.new(key, digestmod=hashlib.sha256)
    return getattr(begun, "_hmac", None) or begun


def _private_key(secret: str) -> "Ed25519PrivateKey | None":
    both = _decoded(secret, PRIVATE_PREFIX)
    if both is None or len(both) != 2 * ED25519_BYTES:
        return None
    private = _key_of(both[:ED25519_BYTES])
    public = private.public_key().public_bytes_raw()
    return private if public == both[ED25519_BYTES:] else None


def _key_of(seed: bytes) -> "Ed25519PrivateKey":
    from aetherflow_hooks.rules import ed25519  # noqa: PLC0415  see there

    return ed25519.private_key(seed)


def _decoded(text: str, prefix: str) -> bytes | None:
    """Decode what follows the prefix; None: it is not there, or not before base64."""
    return _base64(text.removeprefix(prefix)) if text.startswith(prefix) else None


def _base64(text: str) -> bytes | None:
    """Decode base64; None unless it is as an encoder writes it."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if base64.b64encode(decoded).decode() == text else None
