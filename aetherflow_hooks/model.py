"""The values that travel along the flow. None of them changes once made.

Event     something that happened; written once.
Endpoint  a URL that wants some events, with its secret, filters, limits and retry policy.
Version   an event as an endpoint asks for it, whose data was another once.
Delivery  one event for one endpoint, held by a lease while it is being worked on.
Outcome   how one POST ended: Answered, TimedOut, NotReached or Blocked.
Prevented there was none, by a fault on our own side.
Verdict   what follows from it: Delivered, RetryIn or GiveUp.
Attempt   one POST of a delivery with its outcome and verdict, ready to be recorded.
Wanted    what pace has room for; Leased: what came of asking the database for it.
Offer     what pace has room for, should it happen to come.

Values made once per delivery are named tuples, which cost a third of a frozen dataclass.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class EndpointState(StrEnum):
    """What an endpoint wants at the moment."""

    ACTIVE = "active"  # takes events and gets them
    PAUSED = "paused"  # takes events, which wait
    DISABLED = "disabled"  # takes no events; those that wait stay where they are
    DELETED = "deleted"  # gone; its waiting deliveries are being swept away


class DeadReason(StrEnum):
    """Why a delivery was given up."""

    EXHAUSTED = "exhausted"  # every attempt of its schedule failed
    GONE = "gone"  # the endpoint answered 410
    TOO_LARGE = "too_large"  # its event is larger than any setting lets in
    CANCELLED = "cancelled"  # by hand
    EXPIRED = "expired"  # its event was no longer worth sending, or no longer kept


@dataclass(slots=True, kw_only=True, eq=False)
class Secret:
    """A signing secret that is in force."""

    value: str
    until: float | None  # monotonic seconds at which it ends; None: it does not
    keys: Any = None  # what it stands for, once it was decoded: whoever signs keeps that here

    def __repr__(self) -> str:
        return f"Secret(value='…', until={self.until})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An endpoint as the engine works with it: every default filled in."""

    id: str
    tenant: str
    shard: int
    version: int  # rises with every change, so that a stale copy is noticed
    url: str
    secrets: tuple[Secret, ...]  # the first one makes X-AetherFlow-Signature
    rate_per_second: float | None  # None: no limit
    burst: int
    max_in_flight: int
    timeout_seconds: float
    retry_schedule_seconds: tuple[float, ...]
    ordering: str | None = None  # what follows of a key when one is given up; None: no order
    payload_version: str | None = None  # it gets data as this had it; None: as it was emitted
    headers: str = field(default="", repr=False)  # lines of its own, each with its CRLF
    certificate: str = field(default="", repr=False)  # a PEM that we show to it, with its key
    unsignable: str = ""  # why nothing can be sent: a secret or a header cannot be read
    is_failing: bool = False  # nothing has been delivered since it was found to fail
    traced: bool = False  # its requests carry `traceparent`
    has_answered: bool | None = None  # its last attempt, when this was read; None: there was none


class Event(NamedTuple):
    """An event as it is sent."""

    id: str
    type: str
    body: bytes  # exactly what is signed and posted; empty: it is too large for that
    traceparent: str = ""  # the trace in which it was emitted; empty: none was told
    unmade: str = ""  # why its data cannot be made into the endpoint's version; then body is empty


class Version(NamedTuple):
    """An event as an endpoint asks for it."""

    event_id: str
    name: str


class Delivery(NamedTuple):
    """A delivery on lease: nobody else sends it until the lease ends."""

    shard: int  # the endpoint's
    endpoint_id: str
    event_id: str
    event_shard: int
    attempt: int  # of the POST that is to come, from 1
    token: int  # names this lease; every write of the result must show it
    leased_unix_us: int  # when it was done: microseconds since 1970 by the database's clock
    leased_at_monotonic: float  # by ours, taken before we asked: the lease began no earlier
    expired: bool  # its event says that it is too late to send it
    overdue_seconds: float = 0.0  # for how long it had been due when it was leased
    told_at_monotonic: float = 0.0  # by our clock, when we were told: hardly later than then

    @property
    def id(self) -> str:
        """The delivery's public id."""
        return delivery_id(self.event_id, self.endpoint_id)


class Wanted(NamedTuple):
    """What can be sent now, of one shard."""

    shard: int
    rooms: dict[str, int]  # by endpoint, how many deliveries it can take
    sinces_seconds_ago: list[float]  # for each of them: nothing was due longer ago
    is_ordered: bool = False  # it is of a single endpoint, which has an order


def rooms_of(wanted: Iterable[Wanted]) -> dict[str, int]:
    """Say how many deliveries each endpoint can take, of whatever shard."""
    return {endpoint_id: room for it in wanted for endpoint_id, room in it.rooms.items()}


class Offer(NamedTuple):
    """Room for new work of endpoints that have no older one: fan-out may lease it at once."""

    token: int  # of the leases that are taken
    rooms: str  # as the statement takes them
    wanted: list[Wanted]  # the same, by shard


class Leased(NamedTuple):
    """What was taken on lease."""

    wanted: list[Wanted] | None  # what it was taken for; None: an Offer
    work: list[tuple[Delivery, Event | None]]  # None: nothing is to be sent any more
    endpoints: dict[str, Endpoint]  # those that have changed since they were last seen


class Answered(NamedTuple):
    """The endpoint answered."""

    status: int
    retry_after_seconds: float | None
    response: bytes  # the start of the answer's body


class TimedOut(NamedTuple):
    """The whole attempt took longer than it may."""

    seconds: float


class NotReached(NamedTuple):
    """No usable answer came: refused, reset, unresolved, not trusted, not HTTP."""

    reason: str


class Blocked(NamedTuple):
    """The URL leads where we do not go; nothing was sent."""

    reason: str  # as it is stored and shown to whoever owns the endpoint
    detail: str  # for the operator's log


Outcome = Answered | TimedOut | NotReached | Blocked


class Prevented(NamedTuple):
    """Our own side was not able to: that counts neither as an attempt nor for the endpoint."""

    reason: str


Ended = Outcome | Prevented


class Tried(NamedTuple):
    """What was sent to try an endpoint out, and what came of it."""

    headers: str  # lines of ours, each with its CRLF; without those that the endpoint asked for
    ended: Ended
    seconds: float


class Delivered(NamedTuple):
    """Done."""


class RetryIn(NamedTuple):
    """Try again after a while."""

    seconds: float


class GiveUp(NamedTuple):
    """No further attempt."""

    reason: DeadReason


class Halt(NamedTuple):
    """No further attempt, and none of what comes behind it, until people decide."""


Verdict = Delivered | RetryIn | GiveUp | Halt


class Attempt(NamedTuple):
    """One POST that was made, or was found not worth making."""

    delivery: Delivery
    outcome: Outcome | None  # None: nothing was sent
    verdict: Verdict
    started_unix_us: int  # microseconds since 1970 by the database's clock
    duration_ms: int
    event_type: str
    tenant: str
    is_ordered: bool = False  # what comes behind it may go now
    lag_seconds: float | None = None  # from when it was due to when it began; None: nobody knows


def moment_of(unix_us: int) -> datetime:
    """Give the moment that is so many microseconds after 1970 began."""
    return EPOCH + timedelta(microseconds=unix_us)


def unix_us_of(moment: datetime) -> int:
    """Give the microseconds since 1970 began."""
    return (moment - EPOCH) // timedelta(microseconds=1)


def delivery_id(event_id: str, endpoint_id: str) -> str:
    """Name the delivery of an event to an endpoint: both ids, joined.

    >>> delivery_id("evt_0642c8f1a2b3c4d5e6f70812", "ep_7f3a9c21d04e")
    'dlv_0642c8f1a2b3c4d5e6f70812_7f3a9c21d04e'
    """
    return f"dlv_{event_id[4:]}_{endpoint_id[3:]}"
