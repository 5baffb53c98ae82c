"""Pages: some rows of many, and where to go on."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from aetherflow_hooks.errors import InputRefused

ROWS_DEFAULT = 50
ROWS_MAX = 1_000
EARLIEST = datetime(1970, 1, 2, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PLACE = re.compile(r"(?:att_)?([0-9a-f]{13})_([0-9a-f]{24})_([0-9a-f]{12})(?:_([0-9]{1,4}))?")


class Page(NamedTuple):
    """Some rows of many."""

    rows: list[dict[str, Any]]
    before: str | None  # where to go on; None: there is nothing more
    after: str | None = None  # where to go on the other way, to what is newer


class Place(NamedTuple):
    """A place in a list by time: behind what happened then, to that delivery."""

    at: datetime
    endpoint_id: str
    event_id: str
    attempt: int = 0

    def written(self) -> str:
        """Give it as it stands in the id of an attempt."""
        microseconds = (self.at - _EPOCH) // timedelta(microseconds=1)
        return f"{microseconds:013x}_{self.event_id[4:]}_{self.endpoint_id[3:]}"


NO_EVENT = "evt_" + "0" * 24  # in a list of something else


def last_at(at: datetime) -> Place:
    """Give the place behind everything that happened at a moment."""
    return Place(at, "ep_" + "f" * 12, "evt_" + "f" * 24, 9_999)


def first_at(at: datetime) -> Place:
    """Give the place before everything that happened at a moment."""
    return Place(at, "ep_" + "0" * 12, NO_EVENT, 0)


NEWEST = Place(LATEST, "~", "~")


def attempt_id(place: Place) -> str:
    """Name an attempt: when it began, its delivery, and its number.

    >>> attempt_id(Place(_EPOCH, "ep_7f3a9c21d04e", "evt_0642c8f1a2b3c4d5e6f70812", 1))
    'att_0000000000000_0642c8f1a2b3c4d5e6f70812_7f3a9c21d04e_1'
    """
    return f"att_{place.written()}_{place.attempt}"


def place_of(text: str) -> Place:
    """Read a place as a page told it.

    Raises:
        InputRefused: it is none.
    """
    found = _PLACE.fullmatch(text)
    if found is None:
        raise InputRefused(f"{text!r} is no place in a list: take one that a page has told")
    at = _EPOCH + timedelta(microseconds=int(found[1], 16))
    return Place(at, f"ep_{found[3]}", f"evt_{found[2]}", int(found[4] or 0))
