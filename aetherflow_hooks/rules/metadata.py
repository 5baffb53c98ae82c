"""Metadata: what applications keep on endpoints for use of their own."""

import json
import math
from collections.abc import Mapping

from aetherflow_hooks.errors import InputRefused

BYTES_MAX = 4_096
KEY_CHARACTERS_MAX = 128

Metadata = Mapping[str, str | int | float]


def write_metadata(metadata: Metadata) -> str:
    """Give metadata as it is stored: a JSON object in the order of its keys.

    Raises:
        InputRefused: it is not an object of strings and numbers, or too large.
    """
    if not isinstance(metadata, Mapping):
        raise InputRefused('metadata is an object, such as {"plan": "gold", "seats": 12}')
    for key, value in metadata.items():
        if not isinstance(key, str) or not 1 <= len(key) <= KEY_CHARACTERS_MAX:
            raise InputRefused(
                f"{str(key)[:200]!r} is no key of metadata: 1 to {KEY_CHARACTERS_MAX} characters"
            )
        if not (isinstance(value, str) or _is_number(value)):
            raise InputRefused(
                f"metadata holds strings and numbers of 64 bits at most, and {key!r} is neither"
            )
    text = json.dumps(dict(metadata), ensure_ascii=False, separators=(",", ":"))
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InputRefused("metadata holds half of a surrogate pair, which is no text") from None
    if size > BYTES_MAX:
        raise InputRefused(f"metadata is {size:,} bytes, and at most {BYTES_MAX:,}")
    return text


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64


def read_metadata(text: str) -> dict[str, str | int | float]:
    """Give metadata in the order in which it was given."""
    read: dict[str, str | int | float] = json.loads(text)
    return read
