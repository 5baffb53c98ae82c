"""Exposition: what Prometheus is told, of this engine and of the database.

A token is looked up in Postgres, which may be away just when the numbers are needed most. So who
has been let in lately is let in while it is, and told of the engine alone.
"""

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from itertools import accumulate

from aiohttp import web
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.core import (
    Metric as Family,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable, DatabaseUnfit
from aetherflow_hooks.manage.tokens import Access, Scope
from aetherflow_hooks.manage.vitals import Vitals, vitals
from aetherflow_hooks.rules.measures import BOUNDS_SECONDS, Histogram, Summary
from aetherflow_hooks.watch.metrics import METRICS, PREFIX, Kind, Metric, Samples, Value, by_label
from aetherflow_hooks.web.problems import Problem

PATH = "/metrics"
FRESH_SECONDS = 5.0  # for so long what was found in the database is told again
LOOK_SECONDS = 3.0  # Prometheus itself waits for 10
AWAY: Samples = {"database_up": 0.0}
REMEMBERED_SECONDS = 3_600.0  # who has been let in
REMEMBERED_MAX = 100

_BOUNDS = (*map(str, BOUNDS_SECONDS), "+Inf")


class Exposition(Collector):
    """Gathers the numbers of one engine and of its database."""

    def __init__(
        self,
        database: Database,
        *,
        faults: Callable[[], Awaitable[list[str]]],
        samples: Callable[[Sequence[str]], Samples],
        seen_seconds: float,
    ) -> None:
        """Ask `faults` why the engine is not ready, and `samples` for its numbers.

        Engines that have been seen within so many seconds live.
        """
        self._database = database
        self._seen_seconds = seen_seconds
        self._faults = faults
        self._samples = samples
        self._found: Samples = {}
        self._found_at = -FRESH_SECONDS
        self._looking: asyncio.Task[None] | None = None
        self._told: Samples = {}
        self._process = ProcessCollector(registry=None)

    async def answer(self, accepted: str) -> web.Response:
        """Tell all of it, in the format that is accepted."""
        of_database = await self._look()
        self._told = {**self._samples(await self._faults()), **of_database}
        encode, content_type = choose_encoder(accepted)
        return web.Response(body=encode(self), headers={"Content-Type": content_type})

    def collect(self) -> Iterable[Family]:
        """Give the numbers as the library wants them."""
        for name, values in self._told.items():
            metric = METRICS[name]
            yield _family(metric, values if isinstance(values, Mapping) else _unlabelled(values))
        yield from self._process.collect()

    async def _look(self) -> Samples:
        """Look at the database, or tell again what was found a moment ago.

        One look serves all who ask meanwhile, and nobody waits for one that takes long.
        """
        if time.monotonic() < self._found_at + FRESH_SECONDS:
            return self._found
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._find())
        done, _ = await asyncio.wait({self._looking}, timeout=LOOK_SECONDS)
        if not done:
            return AWAY
        self._looking.result()  # a defect of ours is told as one
        return self._found

    async def _find(self) -> None:
        try:
            self._found = _of_database(await vitals(self._database, self._seen_seconds))
        except (DatabaseUnavailable, DatabaseUnfit):
            self._found = AWAY
        self._found_at = time.monotonic()

    def stop(self) -> None:
        """Look no more."""
        if self._looking is not None:
            self._looking.cancel()


class Scrapers:
    """Who may see the metrics."""

    def __init__(self) -> None:
        self._until: dict[bytes, float] = {}  # by a digest of what they have shown

    async def check(self, shown: bytes, admit: Callable[[], Awaitable[Access]]) -> None:
        """Let in whoever reads, of no tenant; and again while Postgres is away.

        Raises:
            Problem: 401, 403 or 429.
            DatabaseUnavailable: nobody knows whether they may.
        """
        digest = hashlib.sha256(shown).digest()
        try:
            access = await admit()
        except DatabaseUnavailable:
            if self._until.get(digest, 0.0) > time.monotonic():
                return
            raise
        except Problem:
            self._until.pop(digest, None)
            raise
        if access.tenant is not None or not access.scope.covers(Scope.READ):
            raise Problem(
                HTTPStatus.FORBIDDEN, "metrics are of all tenants: this takes a token of none"
            )
        self._until.pop(digest, None)
        self._until[digest] = time.monotonic() + REMEMBERED_SECONDS
        if len(self._until) > REMEMBERED_MAX:
            del self._until[next(iter(self._until))]


def _of_database(found: Vitals) -> Samples:
    tables = found.tables
    return {
        "database_up": 1.0,
        "engines": found.engines,
        "outbox_events": found.outbox_events,
        "outbox_oldest_due_seconds": found.outbox_oldest_due_seconds,
        "deliveries_waiting": found.deliveries_waiting,
        "deliveries_oldest_due_seconds": found.deliveries_oldest_due_seconds,
        "deliveries_dead": found.deliveries_dead,
        "endpoints": by_label(found.endpoints),
        "endpoints_failing": found.endpoints_failing,
        "backlog_full": float(found.backlog_full),
        "table_rows": by_label({name: it.rows for name, it in tables.items()}),
        "table_dead_rows": by_label({name: it.dead_rows for name, it in tables.items()}),
        "table_bytes": by_label({name: it.disk_bytes for name, it in tables.items()}),
        "oldest_transaction_seconds": found.oldest_transaction_seconds,
        "partitions_ahead_days": found.partitions_ahead_days,
    }


def _unlabelled(value: Value) -> Mapping[tuple[str, ...], Value]:
    return {(): value}


def _family(metric: Metric, values: Mapping[tuple[str, ...], Value]) -> Family:
    """Write a metric as the library has it."""
    name, text, labels = f"{PREFIX}{metric.name}", metric.help, metric.labels
    if metric.kind is Kind.INFO:
        info = InfoMetricFamily(name, text)
        for given in values:
            info.add_metric((), dict(zip(labels, given, strict=True)))
        return info
    if metric.kind is Kind.HISTOGRAM:
        histogram = HistogramMetricFamily(name, text, labels=labels)
        for given, value in values.items():
            assert isinstance(value, Histogram)
            buckets = [*zip(_BOUNDS, accumulate(value.counts), strict=True)]
            histogram.add_metric(given, buckets, value.sum_seconds)
        return histogram
    if metric.kind is Kind.SUMMARY:
        summary = SummaryMetricFamily(name, text, labels=labels)
        for given, value in values.items():
            assert isinstance(value, Summary)
            summary.add_metric(given, value.count, value.sum_seconds)
        return summary
    kind = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
    family = kind(name, text, labels=labels)
    for given, value in values.items():
        assert isinstance(value, int | float)
        family.add_metric(given, value)
    return family
