"""Three records of one run, and what must be true of them together.

What the producers were told of their commits, what the receivers got, and what the database says
are written by different hands. The rules are those of the README's durability statement.
"""

import collections
import hashlib
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aetherflow_hooks.dev.receiver import Received
from aetherflow_hooks.errors import BadSignature
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.receive import verify

TIMESTAMP_SECONDS = 5.0  # how old a signature may be when it arrives, on a machine that is busy
# Steps of a receiver that say 200, whatever comes behind it.
TAKING = ("200", "short", "twice", "later", "flood", "bomb")
CLOCK_SECONDS = 2.0  # between a fault and what it is seen by


@dataclass(slots=True)
class Emitted:
    """An event, as its producer knows it."""

    event_id: str
    body_sha256: str  # of its data
    outcome: str = "unknown"  # committed, rolled back, or unknown where the answer was lost


@dataclass(slots=True)
class Fault:
    """A fault, and when it was, by the wall's clock."""

    name: str
    began: float
    ended: float = 0.0
    detail: str = ""
    disrupts: bool = False  # results of attempts may be lost by it, so that they are made again
    crashes: bool = False  # and what Postgres has not written yet, 0.6 s at the most


@dataclass(slots=True)
class Ledger:
    """The records of a run."""

    emitted: dict[str, Emitted] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    endpoints: dict[str, str] = field(default_factory=dict)  # their ids and secrets
    unreachable: set[str] = field(default_factory=set)  # endpoints that nothing can arrive at
    ordered: str = ""  # the endpoint of strict order
    clocks_jumped: bool = False  # so that signatures are of other times
    liars: set[str] = field(default_factory=set)  # endpoints of a host that lies, if only at times
    _lying: set[int] = field(default_factory=set)  # its connections with answers nobody asked for
    _fooled: set[str] = field(default_factory=set)  # deliveries that such an answer was taken for
    keys: dict[str, str] = field(default_factory=dict)  # of events, by their ids

    def problems(
        self,
        received: Sequence[Received],
        attempts: Iterable[Any],
        dead: Iterable[Any],
        waiting: Iterable[Any],
    ) -> "Findings":
        """Compare: what is wrong, and what was sent twice."""
        found = Findings()
        still = {delivery_id(row["event_id"], row["endpoint_id"]) for row in waiting}
        self._lying = {
            it.connection
            for it in received
            if it.step.startswith("later") and self._endpoint_of(it) in self.liars
        }
        by_delivery: dict[str, list[Received]] = collections.defaultdict(list)
        for request in received:
            by_delivery[request.headers.get("x-aetherflow-delivery", "")].append(request)
            self._check_request(request, found)
        rows: dict[tuple[str, int], Any] = {}
        for row in attempts:
            place = delivery_id(row["event_id"], row["endpoint_id"]), row["attempt"]
            known = rows.get(place)
            if known is None or known["verdict"] == "late":
                rows[place] = row
            elif row["verdict"] != "late":
                found.wrong.append(f"{place} has two results: {_brief(known)} {_brief(row)}")
        given_up = {
            delivery_id(row["event_id"], row["endpoint_id"]): row["died_at"].timestamp()
            for row in dead
        }
        if self._lying:
            # A host that answers before it has read the request fools itself, and nobody else.
            self._fooled = {
                name
                for (name, _), row in rows.items()
                if row["verdict"] == "delivered"
                and row["endpoint_id"] in self.liars
                and not any(self._was_taken(request) for request in by_delivery[name])
            }
        for emitted in self.emitted.values():
            for endpoint_id in self.endpoints:
                name = delivery_id(emitted.event_id, endpoint_id)
                is_known = name in given_up or (endpoint_id in self.unreachable and name in still)
                self._check_delivery(emitted, name, by_delivery[name], rows, is_known, found)
        for name, requests in by_delivery.items():
            self._check_repeats(name, requests, rows, found)
        self._check_order(received, given_up, found)
        return found

    def _check_request(self, request: Received, found: "Findings") -> None:
        event_id = request.headers.get("webhook-id", "")
        emitted = self.emitted.get(event_id)
        if emitted is None or emitted.outcome == "rolled back":
            found.wrong.append(f"{event_id} was sent, and never committed")
            return
        if not request.body:
            return  # what did not read it
        data = request.body.partition(b'"data":')[2][:-1]
        found.must(
            hashlib.sha256(data).hexdigest() == emitted.body_sha256, f"{event_id} has another body"
        )
        try:
            verify(
                request.body,
                request.headers,
                self.endpoints[self._endpoint_of(request)],
                tolerance_seconds=math.inf if self.clocks_jumped else TIMESTAMP_SECONDS,
                now_unix_seconds=request.unix_seconds,
            )
        except BadSignature as bad:
            found.wrong.append(f"{event_id} is not signed: {bad}")

    def _check_delivery(
        self,
        emitted: Emitted,
        name: str,
        requests: list[Received],
        rows: dict[tuple[str, int], Any],
        is_known: bool,
        found: "Findings",
    ) -> None:
        took = [request for request in requests if self._was_taken(request)]
        is_known |= bool(took) or name in self._fooled
        if emitted.outcome == "committed":
            found.committed += 1
            found.must(is_known, f"{name} was committed, and neither arrived nor was given up")
        attempts = [row for (of, _), row in rows.items() if of == name] if not took else []
        for row in attempts:
            found.must(
                row["verdict"] != "delivered" or name in self._fooled,
                f"{name} is called delivered, and was not taken: {[it.step for it in requests]}",
            )

    def _check_repeats(
        self,
        name: str,
        requests: list[Received],
        rows: dict[tuple[str, int], Any],
        found: "Findings",
    ) -> None:
        requests = sorted(requests, key=lambda request: request.unix_seconds)
        for first, second in itertools.pairwise(requests):
            number, again = (
                int(request.headers["x-aetherflow-attempt"]) for request in (first, second)
            )
            if number == again:
                # The lease itself was forgotten, with all that Postgres had not written yet.
                found.doubled += first.step.startswith(TAKING)
                found.must(
                    self._is_disturbed(first.unix_seconds, second.unix_seconds, by_crash=True),
                    f"{name} was sent twice as attempt {number}, and Postgres did not crash",
                )
                continue
            row = rows.get((name, min(number, again)))
            if row is not None and row["verdict"] in ("retry", "dead"):
                continue  # its failure is on record
            is_double = first.step.startswith(TAKING)
            found.doubled += is_double
            found.must(
                row is None or row["verdict"] == "late",
                f"{name} was sent again, though attempt {number} is on record as delivered",
            )
            found.must(
                self._is_disturbed(first.unix_seconds, second.unix_seconds),
                f"{name} was sent again as attempt {again}, and no fault explains it",
            )

    def _check_order(
        self, received: Sequence[Received], given_up: dict[str, float], found: "Findings"
    ) -> None:
        """Of each key, nothing arrived before all that comes before it was taken or given up."""
        earlier: dict[str, list[str]] = collections.defaultdict(list)
        for emitted in sorted(self.emitted.values(), key=lambda emitted: emitted.event_id):
            if emitted.outcome == "committed" and emitted.event_id in self.keys:
                earlier[self.keys[emitted.event_id]].append(emitted.event_id)
        done: set[str] = set()
        for request in received:
            event_id = request.headers.get("webhook-id", "")
            key = self.keys.get(event_id)
            name = delivery_id(event_id, self.ordered)
            if key is None or request.headers["x-aetherflow-delivery"] != name:
                continue
            ids = earlier[key]
            while ids and (
                ids[0] in done
                or delivery_id(ids[0], self.ordered) in self._fooled
                or given_up.get(delivery_id(ids[0], self.ordered), math.inf) <= request.unix_seconds
            ):
                del ids[0]
            found.must(not ids or event_id <= ids[0], f"{name} arrived before {ids[:1]} of its key")
            if self._was_taken(request):
                done.add(event_id)

    def _was_taken(self, request: Received) -> bool:
        # A good answer that nobody asked for may come right behind the next request, as its answer;
        # and one that drips is whole before an engine goes on that was frozen meanwhile.
        was_frozen = any(fault.name == "freeze_engine" for fault in self.faults)
        return (
            request.step.startswith(TAKING)
            or (request.connection in self._lying and self._endpoint_of(request) in self.liars)
            or (was_frozen and request.step.startswith("drip-head"))
        )

    @staticmethod
    def _endpoint_of(request: Received) -> str:
        return "ep_" + request.headers.get("x-aetherflow-delivery", "").rpartition("_")[2]

    def _is_disturbed(self, began: float, ended: float, *, by_crash: bool = False) -> bool:
        return any(
            (fault.crashes if by_crash else fault.disrupts)
            and fault.began - CLOCK_SECONDS <= ended
            and fault.ended + CLOCK_SECONDS >= began
            for fault in self.faults
        )


@dataclass(slots=True)
class Findings:
    """What a comparison found."""

    wrong: list[str] = field(default_factory=list)
    committed: int = 0  # deliveries of committed events
    doubled: int = 0  # requests after one that the receiver took

    def must(self, is_so: bool, else_wrong: str) -> None:
        """Note what is wrong, unless it is so."""
        if not is_so:
            self.wrong.append(else_wrong)


def _brief(row: Any) -> str:
    return " ".join(str(row[name]) for name in ("started_at", "outcome", "verdict", "status"))
