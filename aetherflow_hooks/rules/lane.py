"""Lane: one endpoint as pace sees it, and what it may do now."""

from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from aetherflow_hooks.model import Delivery, Endpoint, Event
from aetherflow_hooks.rules.bucket import Bucket

FIRST_WINDOW = 4  # POSTs under way to an endpoint that has not answered yet
QUICK_SECONDS = 1.0  # an endpoint that answers within this is leased for ahead of its sending
AHEAD_SECONDS = 0.5  # leases taken ahead are to be sent within this
SMOOTHING = 0.2  # of the newest duration in an endpoint's average


class Alarm(Protocol):
    """A call that the event loop will make: its TimerHandle."""

    def cancel(self) -> None:
        """Do not make it."""

    def when(self) -> float:
        """Tell its time, in the seconds of the loop."""
        ...


@dataclass(slots=True, eq=False)
class Lane:
    """What is known of an endpoint with work, and what is under way for it."""

    endpoint: Endpoint
    bucket: Bucket
    waiting: deque[tuple[Delivery, Event]] = field(default_factory=deque)  # on lease, not sent yet
    in_flight: int = 0
    is_due: bool = False  # the database has work that was not asked for yet
    later: dict[int, Alarm] = field(default_factory=dict)  # when more falls due
    refill: Alarm | None = None  # when its rate lets the next one go
    touched_at: float = 0.0  # when it last had to do with anything
    ahead: int = 0  # leases beyond what may be under way, so that few statements take many
    taken_at: float = 0.0  # when leases last came
    asked: bool = False  # a statement that takes leases for it is under way
    ready: bool = False  # among those to ask the database for
    queued: bool = False  # among those that may start a POST
    is_shut: bool = False  # it has said that it is gone
    window: int = FIRST_WINDOW  # what it may have under way as far as it has earned it
    average_seconds: float = 0.0  # of its POSTs; 0 until the first has ended

    @property
    def is_quick(self) -> bool:
        """Tell whether it has answered quickly of late."""
        return 0 < self.average_seconds < QUICK_SECONDS

    @property
    def is_busy(self) -> bool:
        """Tell whether anything of it is on lease or being asked for."""
        return bool(self.in_flight or self.waiting or self.asked)

    def tokens(self, now: float) -> float:
        """Give the POSTs that its rate lets go now; without a rate there is always one."""
        rate = self.endpoint.rate_per_second
        return 1.0 if rate is None else self.bucket.fill(now, rate, self.endpoint.burst)

    def limit(self, share: int) -> int:
        """Say how many POSTs may be under way: its own limit, what it has earned, and its share.

        At first it is only a few: so it takes many endpoints that hang to take every slot,
        whatever each is allowed.
        """
        return max(1, min(self.endpoint.max_in_flight, self.window, share))

    def start(self, now: float) -> None:
        """Note that a POST starts."""
        if self.endpoint.rate_per_second is not None:
            self.bucket.tokens -= 1
        self.touched_at = now
        self.in_flight += 1

    def adapt(self, now: float, most: int) -> None:
        """Set how much is leased ahead, by how long what was last taken has lasted.

        It is called when more is wanted. An endpoint that is not quick gets nothing ahead.
        """
        if not self.is_quick:
            self.ahead = 0
        elif now - self.taken_at < AHEAD_SECONDS:
            self.ahead = min(max(FIRST_WINDOW, 2 * self.ahead), most)
        else:
            self.ahead //= 2

    def learn(self, seconds: float, *, answered: bool) -> None:
        """Learn from a POST: as in TCP, an answer adds one to the window, silence halves it."""
        self.average_seconds += SMOOTHING * (seconds - self.average_seconds)
        if answered:
            self.window = min(self.window + 1, max(FIRST_WINDOW, self.endpoint.max_in_flight))
        else:
            self.window = max(1, self.window // 2)
