"""Figures: what was measured, and middles, spreads and quantiles of it."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One contender's drain in one round. None is not known here."""

    contender: str
    round: int
    deliveries: int
    seconds: float
    cpu_seconds: float | None = None
    postgres_cpu_seconds: float | None = None
    statements: int | None = None
    wal_bytes: int | None = None
    connections_max: int | None = None
    memory_max_bytes: int | None = None

    @property
    def per_second(self) -> float:
        """Give the rate."""
        return self.deliveries / self.seconds


@dataclass(slots=True)
class Leg:
    """What one part of the bench has shown."""

    name: str
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # to be drawn


def middle(values: Iterable[float | None]) -> float | None:
    """Give the median of the values that are known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def quantile(values: Sequence[float], part: float) -> float:
    """Give the least value that `part` of all do not exceed, of 1 value at least."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Give the quantiles of latencies, in ms."""
    return {
        **{
            f"p{round(part * 100)}_ms": quantile(seconds, part) * 1000 for part in (0.5, 0.95, 0.99)
        },
        "max_ms": max(seconds) * 1000,
    }


def ratios(turns: Iterable[Turn], contender: str, reference: str) -> list[float]:
    """Give a contender's rate against the reference's of the same round, for each round."""
    rates = {(turn.contender, turn.round): turn.per_second for turn in turns}
    return [
        rate / rates[reference, number]
        for (name, number), rate in rates.items()
        if name == contender and (reference, number) in rates
    ]


def summary(turns: Sequence[Turn], reference: str) -> list[dict[str, Any]]:
    """Give one row per contender, in the order of their first turns."""
    rows = []
    for name in dict.fromkeys(turn.contender for turn in turns):
        mine = [turn for turn in turns if turn.contender == name]
        rates = [turn.per_second for turn in mine]
        rows.append(
            {
                "contender": name,
                "rounds": len(mine),
                "deliveries": mine[0].deliveries,
                "per_second": middle(rates),
                "per_second_min": min(rates),
                "per_second_max": max(rates),
                "ratio": middle(ratios(turns, name, reference)),
                "cpu_us": _each(mine, "cpu_seconds", 1e6),
                "postgres_cpu_us": _each(mine, "postgres_cpu_seconds", 1e6),
                "statements_per_1000": _each(mine, "statements", 1e3),
                "wal_bytes_per_1000": _each(mine, "wal_bytes", 1e3),
                "connections_max": max((turn.connections_max or 0 for turn in mine), default=0)
                or None,
                "memory_max_mib": _most(mine),
            }
        )
    return rows


def _each(turns: Sequence[Turn], name: str, times: float) -> float | None:
    """Give the middle over the turns of a cost per delivery, `times` over."""
    return middle(
        None if (cost := getattr(turn, name)) is None else cost / turn.deliveries * times
        for turn in turns
    )


def _most(turns: Sequence[Turn]) -> float | None:
    known = [turn.memory_max_bytes for turn in turns if turn.memory_max_bytes is not None]
    return max(known) / 2**20 if known else None
