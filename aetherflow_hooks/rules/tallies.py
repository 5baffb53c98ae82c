"""Tallies: how attempts are counted, and what percentiles their counts give.

Durations are counted in buckets, each as wide as an error of a tenth allows. The bounds are stored
with every tally, by their places, so they stay as they are.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import assert_never

from aetherflow_hooks.model import Answered, Blocked, NotReached, Outcome, TimedOut

MINUTE_SECONDS, HOUR_SECONDS = 60, 3600
MINUTES_KEPT_HOURS = 48  # for so long single minutes can be asked for, and hours ever after

# What an attempt is counted as, in the order of their columns.
KINDS = (
    "delivered",
    "answered_429",
    "answered_4xx",
    "answered_5xx",
    "answered_other",
    "timed_out",
    "not_reached",
    "blocked",
    "late",
)
DELIVERED, ANSWERED_429, ANSWERED_4XX, ANSWERED_5XX, ANSWERED_OTHER = range(5)
TIMED_OUT, NOT_REACHED, BLOCKED, LATE = range(5, 9)
# Nobody has answered these, or it was us who were late: how long they took says nothing of the
# endpoint.
UNTIMED = frozenset({NOT_REACHED, BLOCKED, LATE})

ALL = "all"  # the subject of what is counted of all endpoints together

ERROR_MAX = 0.1  # by which a percentile may be wrong, as a part of itself
DURATION_MS_MAX = 300_000  # up to here; whatever takes longer is counted as that


def _lows() -> tuple[int, ...]:
    """Give the least duration of each bucket.

    The middle of one whose ends are as 5 to 6 is an eleventh from either.
    """
    lows = [0, 1]
    while lows[-1] <= DURATION_MS_MAX:
        lows.append(lows[-1] * 6 // 5 + 1)
    return tuple(lows)


LOWS = _lows()  # whole milliseconds
MIDDLES = tuple(
    round(2 * low * high / (low + high), 2) if low else 0.0
    for low, high in zip(LOWS, [*(it - 1 for it in LOWS[1:]), LOWS[-1]], strict=True)
)


def subject_of(tenant: str) -> str:
    """Give the subject of what is counted of a tenant's endpoints together."""
    return f"tenant:{tenant}"


def bucket_of(duration_ms: int) -> int:
    """Give the bucket that a duration falls into.

    >>> [bucket_of(ms) for ms in (0, 1, 5, 6, 7)]
    [0, 1, 5, 5, 6]
    """
    return bisect_right(LOWS, duration_ms) - 1


def kind_of(outcome: Outcome) -> int:
    """Say as what a failed attempt is counted: its place among KINDS."""
    match outcome:
        case Answered(status=status):
            if status == 429:  # noqa: PLR2004  too many requests
                return ANSWERED_429
            return {4: ANSWERED_4XX, 5: ANSWERED_5XX}.get(status // 100, ANSWERED_OTHER)
        case TimedOut():
            return TIMED_OUT
        case NotReached():
            return NOT_REACHED
        case Blocked():
            return BLOCKED
        case never:
            assert_never(never)


def merged(histograms: Iterable[tuple[Iterable[int], Iterable[int]]]) -> dict[int, int]:
    """Add histograms up, each given as its buckets and their counts.

    >>> merged([([3, 9], [1, 2]), ([9], [5])])
    {3: 1, 9: 7}
    """
    total: dict[int, int] = {}
    for buckets, counts in histograms:
        if not total:
            total = dict(zip(buckets, counts, strict=True))
            continue
        for bucket, count in zip(buckets, counts, strict=True):
            total[bucket] = total.get(bucket, 0) + count
    return total


def percentiles(histogram: Mapping[int, int], shares: Sequence[float]) -> list[float | None]:
    """Give the durations in milliseconds that these shares of all do not exceed, rising as they do.

    Each is within ERROR_MAX of the exact one, the least duration that at least that share does not
    exceed. None: there is none.

    >>> percentiles({bucket_of(40): 99, bucket_of(900): 1}, [0.5, 1.0])
    [42.21, 836.56]
    """
    found: list[float | None] = []
    total = sum(histogram.values())
    if not total:
        return [None] * len(shares)
    ranks = [max(1, math.ceil(share * total)) for share in shares]
    counted = 0
    for bucket in sorted(histogram):
        counted += histogram[bucket]
        while len(found) < len(ranks) and ranks[len(found)] <= counted:
            found.append(MIDDLES[bucket])
    return found
