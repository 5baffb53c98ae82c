"""Retry: what follows from the outcome of an attempt."""

import math
from collections.abc import Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import assert_never

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.model import (
    Answered,
    Blocked,
    DeadReason,
    Delivered,
    GiveUp,
    NotReached,
    Outcome,
    RetryIn,
    TimedOut,
    Verdict,
)

GONE = 410
TOO_MANY_REQUESTS = 429
UNAVAILABLE = 503
BLOCKED_RETRIES_MAX = 3  # a name may lead astray for a while, and not for a long schedule
DELIVERED = Delivered()

PRESETS: dict[str, tuple[float, ...] | None] = {
    "default": None,  # the setting, retry.schedule_seconds
    "standard": (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400),
    "none": (),
}
"""Retry schedules by name: the pause before each retry, in seconds. `standard` is the example of
Standard Webhooks, "Deliverability and reliability": 9 retries within 76 hours."""


def schedule_of(chosen: Sequence[float] | str | None) -> tuple[float, ...] | None:
    """Give the pauses of a retry schedule in seconds, from a list of them or a preset's name.

    None: as the setting says.

    Raises:
        InputRefused: there is no preset of this name.
    """
    if chosen is None:
        return None
    if not isinstance(chosen, str):
        return tuple(chosen)
    if chosen not in PRESETS:
        raise InputRefused(f"a retry schedule is one of {', '.join(PRESETS)}, or a list of seconds")
    return PRESETS[chosen]


def delivers(outcome: Outcome) -> bool:
    """Tell whether an outcome delivers: an answer of 200 to 299."""
    return isinstance(outcome, Answered) and 200 <= outcome.status < 300  # noqa: PLR2004


def judge(
    outcome: Outcome,
    *,
    attempt: int,
    schedule_seconds: Sequence[float],
    jitter: float,
    dice: float,
    retry_after_max_seconds: float,
) -> Verdict:
    """Decide what becomes of a delivery after its `attempt`-th POST (from 1).

    `schedule_seconds` holds the pause before each retry, so its length is the number of retries.
    `dice` in [0, 1) moves the pause within ± `jitter` (0.2: 20 %) of the scheduled one.
    What is blocked is tried again BLOCKED_RETRIES_MAX times at the most.
    A `Retry-After` on 429 or 503 lengthens the pause, never beyond `retry_after_max_seconds`
    unless the schedule itself says so, and never shortens it.
    """
    match outcome:
        case Answered() if delivers(outcome):
            return DELIVERED
        case Answered(status=status) if status == GONE:
            return GiveUp(DeadReason.GONE)
        case Answered() | TimedOut() | NotReached() | Blocked():
            retries = len(schedule_seconds)
            if isinstance(outcome, Blocked):
                retries = min(retries, BLOCKED_RETRIES_MAX)
            if attempt > retries:
                return GiveUp(DeadReason.EXHAUSTED)
            pause = schedule_seconds[attempt - 1] * (1 - jitter + 2 * jitter * dice)
            if isinstance(outcome, Answered) and outcome.retry_after_seconds is not None:
                pause = max(pause, min(outcome.retry_after_seconds, retry_after_max_seconds))
            return RetryIn(pause)
        case _:
            assert_never(outcome)


def retry_after_seconds(status: int, value: str | None, now_unix_seconds: float) -> float | None:
    """Read a `Retry-After` header (RFC 9110, 10.2.3): seconds, or an HTTP date.

    None where the header is absent or unreadable, or where the status is one that gives it no
    meaning for us. A date in the past is 0.
    """
    if value is None or status not in {TOO_MANY_REQUESTS, UNAVAILABLE}:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        # Of the three forms of an HTTP date one names no zone; all of them mean UTC.
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError, OSError):
        return None
    return max(0.0, moment - now_unix_seconds) if math.isfinite(moment) else None
