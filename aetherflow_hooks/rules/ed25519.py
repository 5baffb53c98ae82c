"""Ed25519: the signatures of endpoints that chose them (RFC 8032).

A module of its own, since to load what it needs takes longer than all else that a receiver loads.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)


def private_key(seed: bytes) -> Ed25519PrivateKey:
    """Make a key of the 32 bytes of its seed."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def is_signed(public_key: bytes, signature: bytes, content: bytes) -> bool:
    """Tell whether the other half of a public key, 32 bytes, has signed `content`."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, content)
    except InvalidSignature:
        return False
    return True
