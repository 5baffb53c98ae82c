"""Measures: durations, counted as Prometheus reads them."""

from bisect import bisect_left

# A bucket holds what takes no longer than its bound; the last one, without a bound, all that does.
BOUNDS_SECONDS = (
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0,
)  # fmt: skip


def bucket_of(seconds: float) -> int:
    """Give the bucket that a duration falls into.

    >>> [bucket_of(seconds) for seconds in (0.0, 0.005, 0.0051, 3601.0)]
    [0, 0, 1, 15]
    """
    return bisect_left(BOUNDS_SECONDS, seconds)


class Histogram:
    """Durations, counted by bucket and added up."""

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS_SECONDS) + 1)
        self.sum_seconds = 0.0


class Summary:
    """Durations, counted and added up."""

    __slots__ = ("count", "sum_seconds")

    def __init__(self, count: int = 0, sum_seconds: float = 0.0) -> None:
        self.count = count
        self.sum_seconds = sum_seconds

    def saw(self, seconds: float) -> None:
        """Count one."""
        self.count += 1
        self.sum_seconds += seconds
