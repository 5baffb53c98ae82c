"""Sealing: a secret is stored as a text that only a holder of the key can open.

AES-256-GCM (NIST SP 800-38D) with a random nonce of 96 bits. What the secret belongs to goes into
the seal, so that one endpoint's sealed secret cannot be put in the place of another's. Several keys
can open, and the first one seals: that is how a key is replaced.

    sealed:1:<id of the key>:<base64 of nonce and ciphertext>
"""

import base64
import binascii
import re
from collections.abc import Iterator, Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from aetherflow_hooks.errors import InputRefused, SecretUnreadable
from aetherflow_hooks.rules.signing import SEALED_PREFIX

PREFIX = f"{SEALED_PREFIX}1:"
KEY_BYTES = 32
NONCE_BYTES = 12

_LINE = re.compile(r"(?P<id>[a-z0-9_]{1,32})[ \t]+(?P<key>[A-Za-z0-9+/]+={0,2})", re.ASCII)


class Keyring:
    """The keys of an installation; without any, secrets stay as they are."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        """Take keys of KEY_BYTES by their ids; the first one seals."""
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self.first = next(iter(keys), None)

    def __contains__(self, key_id: str) -> bool:
        """Tell whether what this key has sealed can be opened."""
        return key_id in self._ciphers

    def __iter__(self) -> Iterator[str]:
        """Give the ids of the keys, the first one first."""
        return iter(self._ciphers)

    def seal(self, secret: str, owner: str, nonce: bytes) -> str:
        """Give a secret of `owner` (see `owner_of`) as it is to be stored.

        `nonce` is NONCE_BYTES of chance, never used twice.
        """
        if self.first is None:
            return secret
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}")
        box = nonce + self._ciphers[self.first].encrypt(nonce, secret.encode(), _bound_to(owner))
        return f"{PREFIX}{self.first}:{base64.b64encode(box).decode()}"

    def open(self, stored: str, owner: str) -> str:
        """Give back a secret of `owner`, from what is stored.

        Raises:
            SecretUnreadable: its key is not here, or it is not what was stored for this owner.
        """
        if not stored.startswith(SEALED_PREFIX):
            return stored
        if not stored.startswith(PREFIX):
            raise SecretUnreadable(owner, "it is sealed in a way that this program does not know")
        key_id, _, text = stored.removeprefix(PREFIX).partition(":")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecretUnreadable(owner, f"it is sealed with the key {key_id}, which is not here")
        try:
            box = base64.b64decode(text, validate=True)
            plain = cipher.decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], _bound_to(owner))
        except (InvalidTag, ValueError):
            raise SecretUnreadable(owner, "it is not what was sealed for this endpoint") from None
        return plain.decode()


def parse_keys(text: str) -> dict[str, bytes]:
    """Read keys: a line for each, its id and the base64 of KEY_BYTES; `#` begins a comment.

    Raises:
        InputRefused: a line is none. The message holds nothing of the line but its number.
    """
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.splitlines(), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        found = _LINE.fullmatch(content)
        try:
            key = base64.b64decode(found["key"], validate=True) if found else b""
        except binascii.Error:
            key = b""
        if found is None or len(key) != KEY_BYTES or found["id"] in keys:
            raise InputRefused(
                f"line {number} of the keys is not an id of its own and the base64 of "
                f"{KEY_BYTES} bytes, as `aetherflow-hooks keys new` prints it"
            )
        keys[found["id"]] = key
    return keys


def write_key(key_id: str, key: bytes) -> str:
    """Write a key as `parse_keys` reads it."""
    return f"{key_id} {base64.b64encode(key).decode()}"


CERTIFICATE = ":certificate"  # stands in a header's place, and is no name of one


def owner_of(endpoint_id: str, *, header: str | None = None) -> str:
    """Name what a secret belongs to: an endpoint, or a header or the CERTIFICATE of one."""
    return endpoint_id if header is None else f"{endpoint_id}/{header}"


def _bound_to(owner: str) -> bytes:
    return f"aetherflow:{owner}".encode()
