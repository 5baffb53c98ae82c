"""Lane: one endpoint as pace sees it, and what it may do now."""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from aetherflow_hooks.model import Answered, Delivery, Endpoint, Event, Outcome
from aetherflow_hooks.rules.bucket import Bucket

NO_LIMIT = 1 << 30
FIRST_WINDOW = 4  # POSTs under way to an endpoint that has just begun to answer
FAILING_FROM = 3  # failures in a row
BURDENED_FROM = 10  # answers in a row that say that it is not able to
PAUSE_SECONDS = 1.0  # the first one of an endpoint that fails; each is twice the one before
PAUSE_DOUBLINGS_MAX = 6  # so a minute at the most
QUICK_SECONDS = 1.0  # an endpoint that answers within this is leased for ahead of its sending
AHEAD_SECONDS = 0.5  # leases that are taken ahead could be sent within this
RATE_AHEAD_SECONDS = 0.5  # a limited endpoint has leases for what it may get within this
RATE_STEP_SECONDS = 0.01  # what a rate lets go within this may start together: less work for each
LATE_SECONDS = 1.0  # something may be committed so long after the moment that it bears
EVER_SECONDS = 1e11  # back to before the year 1: whatever a hand may have written is found
SMOOTHING = 0.2  # of the newest duration in an endpoint's average


def ahead(under_way: int, average_seconds: float) -> int:
    """Say how many leases could be sent within AHEAD_SECONDS, with so many POSTs under way.

    None where they take long, or where it is not known how long they take.
    """
    if not 0 < average_seconds < QUICK_SECONDS:
        return 0
    return int(under_way * AHEAD_SECONDS / average_seconds)


class Standing(Enum):
    """What an endpoint has shown of itself."""

    NEW = "new"  # it has not answered yet
    PROVEN = "proven"  # it answers
    FAILING = "failing"  # it does not answer, or not any more


class Reply(Enum):
    """What an outcome says of the endpoint's health."""

    WELL = "well"  # it answers, if only that it does not want this
    BURDENED = "burdened"  # it answers that there is too much, or that it has failed: 429, 5xx
    SILENT = "silent"  # no answer, or none in time


def reply_of(outcome: Outcome) -> Reply:
    """Tell what an outcome says of the endpoint's health."""
    if not isinstance(outcome, Answered):
        return Reply.SILENT
    is_burdened = outcome.status == 429 or outcome.status >= 500  # noqa: PLR2004  RFC 6585, RFC 9110
    return Reply.BURDENED if is_burdened else Reply.WELL


class Alarm(Protocol):
    """A call that the event loop will make; a loop's handle need not know when."""

    def cancel(self) -> None:
        """Do not make it."""


@dataclass(slots=True, eq=False)
class Lane:
    """What is known of an endpoint with work, and what is under way for it."""

    endpoint: Endpoint
    bucket: Bucket
    # On lease, not sent yet. A list, since it is short: an empty deque has 600 bytes.
    waiting: list[tuple[Delivery, Event]] = field(default_factory=list)
    in_flight: int = 0
    is_due: bool = False  # the database has work that was not asked for yet
    later: dict[int, Alarm] = field(default_factory=dict)  # when more falls due
    refill: Alarm | None = None  # when its rate or a pause lets the next one go
    refill_at: float = 0.0
    rate_from: float = 0.0  # its rate lets nothing go before
    touched_at: float = 0.0  # when it last had to do with anything
    due_since: float = -math.inf  # nothing that is not on lease was due before
    asked_since: float = -math.inf  # the same, of the statement that is under way
    asked: bool = False  # a statement that takes leases for it is under way
    ready: bool = False  # among those to ask the database for
    queued: bool = False  # among those that may start a POST
    is_shut: bool = False  # it has said that it is gone
    standing: Standing = Standing.NEW
    trial: Standing | None = None  # as what it has a place among those on trial
    tried_as: Standing | None = None  # as what it has a POST under way, if it is on trial
    held: bool = False  # among those that wait for such a place
    failures: int = 0  # in a row, each begun after the one before had ended
    failed_at: float = 0.0  # when the last of them ended
    paused_until: float = 0.0  # nothing is leased for it before
    window: int = FIRST_WINDOW  # what it may have under way as far as it has earned it
    average_seconds: float = 0.0  # of its POSTs; 0 until the first has ended

    def __post_init__(self) -> None:
        """Go on from what was seen of the endpoint last, by whichever engine."""
        if self.endpoint.has_answered:
            self.standing = Standing.PROVEN
        elif self.endpoint.has_answered is not None:
            self.standing = Standing.FAILING
            self.failures = FAILING_FROM - 1  # so it is paused after the next

    @property
    def is_quick(self) -> bool:
        """Tell whether it has answered, and quickly of late."""
        return 0 < self.average_seconds < QUICK_SECONDS and self.standing is Standing.PROVEN

    @property
    def takes_new(self) -> bool:
        """Tell whether new work may be leased for it as soon as there is some.

        Not where older work would be overtaken, and where its rate has to be counted.
        """
        return (
            self.is_quick
            and self.endpoint.ordering is None
            and self.endpoint.rate_per_second is None
            and not (self.is_due or self.ready or self.asked or self.is_shut)
        )

    @property
    def is_busy(self) -> bool:
        """Tell whether anything of it is on lease or being asked for."""
        return bool(self.in_flight or self.waiting or self.asked)

    @property
    def is_idle(self) -> bool:
        """Tell whether there is nothing to do for it, now or at a known time."""
        return not (self.is_busy or self.ready or self.held or self.later or self.refill)

    def ask(self, now: float) -> float:
        """Note that what is due is asked for; say since how many seconds something may be.

        Whatever becomes due from now on says so anew.
        """
        self.asked = True
        self.is_due = False
        self.asked_since, self.due_since = self.due_since, now
        return min(EVER_SECONDS, now - self.asked_since + LATE_SECONDS)

    def get(self, *, all_: bool) -> None:
        """Note that the answer is here: with `all_` nothing that was due is left."""
        self.asked = False
        if not all_:
            self.fall_due(self.asked_since)

    def fall_due(self, since: float) -> None:
        """Note that something is due, and not longer than that."""
        self.is_due = True
        self.due_since = min(self.due_since, since)

    def tokens(self, now: float) -> float:
        """Give the POSTs that its rate lets go now; without a rate there is always one."""
        rate = self.endpoint.rate_per_second
        return 1.0 if rate is None else self.bucket.fill(now, rate, self.endpoint.burst)

    def wait_for_rate(self, now: float) -> float:
        """Say in how many seconds its rate lets a POST go, and of a high one several; 0: now.

        The bucket keeps what comes meanwhile, even of a burst of one.
        """
        if self.endpoint.rate_per_second is None:
            return 0.0
        if now >= self.rate_from and (tokens := self.tokens(now)) < 1:
            missing_seconds = (1 - tokens) / (self.endpoint.rate_per_second or 1)
            self.rate_from = now + max(missing_seconds, RATE_STEP_SECONDS)
        return max(0.0, self.rate_from - now)

    def room_by_rate(self, now: float) -> tuple[int, float]:
        """Say how many more leases its rate allows for, and in how many seconds for the first."""
        rate = self.endpoint.rate_per_second
        if rate is None:
            return NO_LIMIT, 0.0
        coming = self.tokens(now) + rate * RATE_AHEAD_SECONDS - len(self.waiting)
        return int(coming), max(0.0, (1 - coming) / rate)

    def cancel_alarms(self) -> None:
        """Forget when to look at it again."""
        for alarm in self.later.values():
            alarm.cancel()
        self.later.clear()
        if self.refill is not None:
            self.refill.cancel()
            self.refill = None

    def limit(self, share: int) -> int:
        """Say how many POSTs may be under way: its own limit, what it has earned, and its share.

        One, until it has answered and when it fails.
        """
        if self.standing is not Standing.PROVEN:
            return 1
        return max(1, min(self.endpoint.max_in_flight, self.window, share))

    def start(self, now: float) -> None:
        """Note that a POST starts."""
        if self.endpoint.rate_per_second is not None:
            self.bucket.tokens -= 1
        self.touched_at = now
        self.in_flight += 1

    def ahead(self, limit: int) -> int:
        """Say how many leases to hold beyond the `limit` POSTs that may be under way.

        As many as it could send within AHEAD_SECONDS, so that few statements take many; none for
        an endpoint that is not quick.
        """
        return ahead(limit, self.average_seconds) if self.is_quick else 0

    def learn(self, began: float, now: float, reply: Reply | None) -> None:
        """Learn from a POST: as in TCP, success adds one to the window, trouble halves it.

        An endpoint in trouble time and again is left alone for a while, and then for longer; of one
        that says so itself it takes more, since it may mean single events. None: it was not sent,
        and tells nothing.
        """
        if reply is None:
            return
        self.average_seconds += SMOOTHING * (now - began - self.average_seconds)
        if reply is not Reply.SILENT:
            self.standing = Standing.PROVEN
        if reply is Reply.WELL:
            self.failures = 0
            self.paused_until = 0.0
            self.window = min(self.window + 1, max(FIRST_WINDOW, self.endpoint.max_in_flight))
            return
        self.window = max(1, self.window // 2)
        if began < self.failed_at:
            return  # many that end together, as when a receiver is started anew, are one failure
        self.failures += 1
        self.failed_at = now
        bound = BURDENED_FROM if reply is Reply.BURDENED else FAILING_FROM
        if reply is Reply.SILENT and (self.standing is Standing.NEW or self.failures >= bound):
            self.standing = Standing.FAILING
        if self.failures >= bound:
            doublings = min(self.failures - bound, PAUSE_DOUBLINGS_MAX)
            self.paused_until = now + PAUSE_SECONDS * 2**doublings

    def renew(self, endpoint: Endpoint) -> None:
        """Take the endpoint as it is now; what has changed may be what made it fail.

        Where only defaults have, what it did still counts.
        """
        is_same = endpoint.version == self.endpoint.version
        self.endpoint = endpoint
        self.rate_from = 0.0
        if is_same:
            return
        self.is_shut = False
        self.failures = 0
        self.paused_until = 0.0
        if self.standing is Standing.FAILING:
            self.standing = Standing.NEW
