"""Horizon: since when something may appear that could not be seen before.

A transaction is given its number before an event of its own is given its moment. So what a look
does not see, since its transaction was under way or had not begun, bears a moment from after the
numbers of that snapshot: all below its `xmin` have ended, and none from its `xmax` on had been
given out.
"""

from datetime import datetime, timedelta
from typing import NamedTuple

LOOKS_MAX = 1_000  # remembered, while a transaction goes on for long
SPACING_FIRST = timedelta(milliseconds=20)  # between them; doubled whenever there are too many


class _Look(NamedTuple):
    at: datetime  # not after its snapshot
    xmax: int


class Horizon:
    """Takes what looks tell of their snapshots; all moments are by the clock of the database."""

    def __init__(self) -> None:
        self._looks: list[_Look] = []  # the oldest first; no transaction of before it goes on
        self._spacing = SPACING_FIRST

    def saw(self, at: datetime, xmin: int, xmax: int) -> datetime | None:
        """Take a look's snapshot; tell since when it is that whatever it did not see has appeared.

        None: that is not known, since a transaction goes on from before the first look.
        """
        looks = self._looks
        if len(looks) > 1 and at - looks[-2].at < self._spacing:
            looks.pop()
        looks.append(_Look(at, xmax))
        ended = 0
        while ended + 1 < len(looks) and looks[ended + 1].xmax <= xmin:
            ended += 1
        del looks[:ended]
        if len(looks) == 1:
            self._spacing = SPACING_FIRST
        elif len(looks) > LOOKS_MAX:
            del looks[1:-1:2]
            self._spacing *= 2
        return looks[0].at if looks[0].xmax <= xmin else None
