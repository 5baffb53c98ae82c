"""Metrics: the closed list of what Prometheus is told, and what an engine counts for it.

Names and units are by Prometheus' conventions. What an engine counts of itself begins with its
start; what is said of the database is the same from every engine on it.
"""

from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from aetherflow_hooks.model import (
    Answered,
    Attempt,
    Blocked,
    Delivered,
    GiveUp,
    Halt,
    NotReached,
    RetryIn,
    TimedOut,
)
from aetherflow_hooks.rules.measures import BOUNDS_SECONDS, Histogram, Summary, bucket_of
from aetherflow_hooks.rules.states import OUTCOME_WORDS, VERDICT_WORDS

PREFIX = "aetherflow_hooks_"
OTHERS = "other"  # in place of an endpoint, for all that have no series of their own


class Kind(StrEnum):
    """How a metric is to be read."""

    COUNTER = "counter"  # only rises: its rate is what matters
    GAUGE = "gauge"
    HISTOGRAM = "histogram"
    SUMMARY = "summary"  # a count and a sum
    INFO = "info"  # always 1; its labels are the point


class Metric(NamedTuple):
    """One of the list; its name is without PREFIX and without what its kind adds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """Give the name as it is asked for: a counter's ends in _total, an info's in _info."""
        ending = {Kind.COUNTER: "_total", Kind.INFO: "_info"}.get(self.kind, "")
        return f"{PREFIX}{self.name}{ending}"


_C, _G, _H, _S = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM, Kind.SUMMARY

OF_ENGINE = (
    Metric("engine", Kind.INFO, "This engine.", ("engine", "version", "profile")),
    Metric("ready", _G, "1 where /readyz passes, 0 where it tells why not."),
    Metric("stuck", _G, "Reasons to believe that work does not get on; /readyz tells them."),
    Metric("shards_held", _G, "Shards whose work is this engine's."),
    Metric("events_fanned_out", _C, "Events turned into deliveries."),
    Metric("deliveries_created", _C, "Deliveries made by fan-out."),
    Metric("deliveries_leased", _C, "Deliveries taken on lease, by which stage.", ("stage",)),
    Metric("leases_returned", _C, "Deliveries given back unsent."),
    Metric("leases_lost", _C, "Results that changed nothing, since their lease had ended."),
    Metric(
        "attempts",
        _C,
        "Attempts on record: how they ended, the class of the status, what follows.",
        ("outcome", "status", "verdict"),
    ),
    Metric("attempt_duration_seconds", _H, "What attempts took that were answered or timed out."),
    Metric(
        "event_lag_seconds",
        _H,
        "From when an event was emitted, or was to be sent, to its first attempt at an endpoint.",
    ),
    Metric(
        "endpoint_attempts",
        _C,
        "Attempts of an endpoint; `other`: of all that have no series of their own.",
        ("endpoint", "tenant", "verdict"),
    ),
    Metric(
        "endpoint_attempt_duration_seconds",
        _S,
        "What attempts of an endpoint took.",
        ("endpoint", "tenant"),
    ),
    Metric("posts_in_flight", _G, "POSTs under way."),
    Metric("posts_in_flight_limit", _G, "POSTs that may be under way: `pace.slots`."),
    Metric("posts_prevented", _C, "POSTs that our own side was not able to make."),
    Metric("leases_held", _G, "Deliveries on lease here, or being asked for."),
    Metric("results_waiting", _G, "Results not written yet."),
    Metric("results_waiting_limit", _G, "At so many, sending stops: `record.waiting_max`."),
    Metric("stage_turn_seconds", _S, "The turns of each stage of the flow.", ("stage",)),
    Metric("stage_failures", _C, "Turns that a defect of ours ended.", ("stage",)),
    Metric("stage_outages", _C, "Turns that ended since Postgres was away.", ("stage",)),
    Metric("statement_seconds", _S, "Statements of the flow, by name.", ("statement",)),
    Metric("database_connections", _G, "Connections of the flow to Postgres.", ("state",)),
    Metric("database_connections_limit", _G, "At most so many: `database.connections_max`."),
    Metric("http_connections", _G, "Connections to endpoints.", ("state",)),
    Metric("http_connections_opened", _C, "Connections made to endpoints."),
)
OF_DATABASE = (
    Metric("database_up", _G, "1 where Postgres tells all that follows; else it is missing."),
    Metric("engines", _G, "Engines that live."),
    Metric("outbox_events", _G, "Events that wait for fan-out."),
    Metric("outbox_oldest_due_seconds", _G, "For how long the first of them has been due."),
    Metric("deliveries_waiting", _G, "Deliveries that wait, for their moment too."),
    Metric(
        "deliveries_oldest_due_seconds",
        _G,
        "For how long the first delivery of an active endpoint has been due.",
    ),
    Metric("deliveries_dead", _G, "Deliveries that were given up and can be replayed."),
    Metric("endpoints", _G, "Endpoints by their state.", ("state",)),
    Metric("endpoints_failing", _G, "Active endpoints that get nothing but failures."),
    Metric("backlog_full", _G, "1 where emit refuses events, since too much waits."),
    Metric("table_rows", _G, "Rows of a table, as Postgres estimates.", ("table",)),
    Metric("table_dead_rows", _G, "Rows that vacuum is to remove.", ("table",)),
    Metric("table_bytes", _G, "What a table takes on disk, with its indexes.", ("table",)),
    Metric(
        "oldest_transaction_seconds",
        _G,
        "How old the oldest transaction is that keeps vacuum from its work.",
    ),
    Metric("partitions_ahead_days", _G, "Days for which there are partitions already."),
)
METRICS = {metric.name: metric for metric in (*OF_ENGINE, *OF_DATABASE)}


Value: TypeAlias = float | Histogram | Summary
# By the name of a metric: its value, or one for each combination of its labels.
Samples: TypeAlias = Mapping[str, Value | Mapping[tuple[str, ...], Value]]

SHORT_MS = 1_024  # most durations are shorter, and their buckets are at hand
LAG_SECONDS_MAX = 1e9  # a hand may have written that something has been due for ever
LATE = "late"  # in place of a verdict: the lease was lost
UNSENT = "unsent"  # in place of an outcome: there was no POST
_SHORT = bytes(bucket_of(ms / 1000) for ms in range(SHORT_MS))
_TIMED = Answered, TimedOut
_DELIVERED = OUTCOME_WORDS[Answered], "2xx", VERDICT_WORDS[Delivered]
_OTHER_ENDS = [
    (*_DELIVERED[:-1], LATE),
    *((UNSENT, "", VERDICT_WORDS[it]) for it in (GiveUp, Halt)),
    *(
        (outcome, status, verdict)
        for outcome, statuses in {
            OUTCOME_WORDS[Answered]: ("3xx", "4xx", "5xx"),
            **{OUTCOME_WORDS[it]: ("",) for it in (TimedOut, NotReached, Blocked)},
        }.items()
        for status in statuses
        for verdict in (*(VERDICT_WORDS[it] for it in (RetryIn, GiveUp, Halt)), LATE)
    ),
]


class _OfEndpoint:
    """What was counted of one endpoint."""

    __slots__ = ("delivered", "duration_ms", "labels", "others", "timed")

    def __init__(self, endpoint_id: str, tenant: str) -> None:
        self.labels = endpoint_id, tenant
        self.delivered = 0
        self.others: dict[str, int] = {}  # by verdict
        self.timed = 0
        self.duration_ms = 0


class Attempts:
    """Counts attempts that are on record: of all endpoints together, and of so many each.

    Those that come first have series of their own for as long as this lives; the others share one.
    """

    def __init__(self, endpoints_max: int) -> None:
        """Count nothing yet."""
        self._endpoints_max = endpoints_max
        self._endpoints: dict[str, _OfEndpoint] = {}
        self._other = _OfEndpoint(OTHERS, "")
        # All that can be, from the start: what appears with its first count has no rate yet.
        self._ends = dict.fromkeys((_DELIVERED, *_OTHER_ENDS), 0)
        self._durations = Histogram()
        self._lags = Histogram()

    def saw(self, attempts: Sequence[Attempt], late: Collection[tuple[str, str, int]] = ()) -> None:
        """Count attempts that have been recorded; `late` names those whose lease was lost."""
        endpoints, durations, lags = self._endpoints, self._durations.counts, self._lags.counts
        delivered = total_ms = 0
        total_lag_seconds = 0.0
        # Unpacked, and without a call in the usual case: this is run for every attempt.
        for attempt in attempts:
            delivery, outcome, verdict, _, duration_ms, _, _, _, lag_seconds = attempt
            endpoint = endpoints.get(delivery.endpoint_id) or self._of(attempt)
            if not late and isinstance(verdict, Delivered):
                delivered += 1
                endpoint.delivered += 1
            else:
                self._saw_other(attempt, endpoint, late)
            if lag_seconds is not None and delivery.attempt == 1:
                lag_seconds = min(lag_seconds, LAG_SECONDS_MAX)
                lags[bisect_left(BOUNDS_SECONDS, lag_seconds)] += 1
                total_lag_seconds += lag_seconds
            if isinstance(outcome, _TIMED):
                is_short = duration_ms < SHORT_MS
                durations[_SHORT[duration_ms] if is_short else bucket_of(duration_ms / 1000)] += 1
                total_ms += duration_ms
                endpoint.timed += 1
                endpoint.duration_ms += duration_ms
        self._ends[_DELIVERED] += delivered
        self._durations.sum_seconds += total_ms / 1000
        self._lags.sum_seconds += total_lag_seconds

    def samples(self) -> Samples:
        """Give what was counted."""
        endpoints = [*self._endpoints.values(), self._other]
        return {
            "attempts": {end: float(count) for end, count in self._ends.items()},
            "attempt_duration_seconds": self._durations,
            "event_lag_seconds": self._lags,
            "leases_lost": sum(it for end, it in self._ends.items() if end[-1] == LATE),
            "endpoint_attempts": {
                (*it.labels, verdict): count
                for it in endpoints
                for verdict, count in {_DELIVERED[-1]: it.delivered, **it.others}.items()
            },
            "endpoint_attempt_duration_seconds": {
                it.labels: Summary(it.timed, it.duration_ms / 1000) for it in endpoints
            },
        }

    def _of(self, attempt: Attempt) -> _OfEndpoint:
        """Give what an endpoint is counted under that has no series yet."""
        if len(self._endpoints) >= self._endpoints_max:
            return self._other
        endpoint_id = attempt.delivery.endpoint_id
        return self._endpoints.setdefault(endpoint_id, _OfEndpoint(endpoint_id, attempt.tenant))

    def _saw_other(
        self, attempt: Attempt, endpoint: _OfEndpoint, late: Collection[tuple[str, str, int]]
    ) -> None:
        """Count one that has not delivered, or whose lease may have been lost."""
        delivery, outcome = attempt.delivery, attempt.outcome
        is_late = (delivery.endpoint_id, delivery.event_id, delivery.attempt) in late
        verdict = LATE if is_late else VERDICT_WORDS[type(attempt.verdict)]
        end = (
            OUTCOME_WORDS[type(outcome)] if outcome is not None else UNSENT,
            f"{outcome.status // 100}xx" if isinstance(outcome, Answered) else "",
            verdict,
        )
        self._ends[end] = self._ends.get(end, 0) + 1
        if verdict == _DELIVERED[-1]:
            endpoint.delivered += 1
        else:
            endpoint.others[verdict] = endpoint.others.get(verdict, 0) + 1


class Turns:
    """Counts the turns of the stages, and how they ended."""

    def __init__(self) -> None:
        """Count nothing yet."""
        self.took: dict[str, Summary] = {}
        self.failures: dict[str, int] = {}  # by a defect of ours
        self.outages: dict[str, int] = {}  # since Postgres was away

    def began(self, stage: str) -> None:
        """Note that there is such a stage, so that it is told of before it fails."""
        self.took.setdefault(stage, Summary())
        self.failures.setdefault(stage, 0)
        self.outages.setdefault(stage, 0)


def by_label(values: Mapping[str, Value]) -> dict[tuple[str, ...], Value]:
    """Give values of a metric that has one label."""
    return {(label,): value for label, value in values.items()}
