"""Bucket: tokens for a rate with bursts."""

from dataclasses import dataclass

LATE_SECONDS = 0.02  # a timer may be so late without costing a rate what it missed


@dataclass(slots=True)
class Bucket:
    """Holds up to `burst` tokens and fills at a rate; whoever sends takes one."""

    tokens: float = 1.0
    at: float = 0.0  # when it was last filled, in the seconds of whatever clock is asked

    def fill(self, now: float, rate_per_second: float, burst: int) -> float:
        """Bring the tokens up to `now` and give their number."""
        most = burst + rate_per_second * LATE_SECONDS
        self.tokens = min(most, self.tokens + (now - self.at) * rate_per_second)
        self.at = now
        return self.tokens
