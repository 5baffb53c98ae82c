"""Traceparent: the place of something in a trace, as W3C Trace Context writes it."""

import re
from typing import NamedTuple

_WRITTEN = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)


class Place(NamedTuple):
    """A span of a trace, made here or elsewhere."""

    trace_id: int
    span_id: int
    flags: int  # 1: it is sampled


def read_traceparent(text: str) -> Place | None:
    """Read a place; None: it is none.

    >>> read_traceparent("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").span_id
    13235353014750950193
    """
    found = _WRITTEN.fullmatch(text)
    return found and Place(int(found[1], 16), int(found[2], 16), int(found[3], 16))


def write_traceparent(place: Place) -> str:
    """Write a place.

    >>> write_traceparent(Place(1, 2, 1))
    '00-00000000000000000000000000000001-0000000000000002-01'
    """
    return f"00-{place.trace_id:032x}-{place.span_id:016x}-{place.flags:02x}"
