"""Tallies: counts of durations give percentiles that are right to a tenth."""

import math
import re
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.model import Answered, Blocked, NotReached, Outcome, TimedOut
from aetherflow_hooks.rules.tallies import (
    DURATION_MS_MAX,
    ERROR_MAX,
    KINDS,
    LOWS,
    MIDDLES,
    bucket_of,
    kind_of,
    merged,
    percentiles,
)

durations = st.lists(st.integers(0, DURATION_MS_MAX), min_size=1, max_size=200)
shares = st.lists(st.floats(0, 1) | st.sampled_from([0.5, 0.95, 0.99]), max_size=4).map(sorted)


def histogram_of(found: list[int]) -> tuple[list[int], list[int]]:
    counts = merged(([bucket_of(it)], [1]) for it in found)
    return list(counts), list(counts.values())


def exact(found: list[int], share: float) -> int:
    """Give the least of them that at least this share does not exceed."""
    return sorted(found)[max(1, math.ceil(share * len(found))) - 1]


@given(durations, shares)
def test_a_percentile_is_within_its_error_of_the_exact_one(
    found: list[int], asked: list[float]
) -> None:
    told = percentiles(merged([histogram_of(found)]), asked)
    assert told == [pytest.approx(exact(found, share), rel=ERROR_MAX) for share in asked]


@given(st.lists(durations, max_size=5), shares)
def test_histograms_of_parts_give_what_one_of_all_gives(
    parts: list[list[int]], asked: list[float]
) -> None:
    whole = [it for part in parts for it in part]
    of_parts = merged(map(histogram_of, parts))
    assert of_parts == merged([histogram_of(whole)])
    assert percentiles(of_parts, asked) == percentiles(merged([histogram_of(whole)]), asked)
    assert sum(of_parts.values()) == len(whole)


@given(st.integers(0, 10**9))
def test_each_duration_has_its_bucket(duration_ms: int) -> None:
    bucket = bucket_of(duration_ms)
    assert LOWS[bucket] <= duration_ms
    assert bucket == len(LOWS) - 1 or duration_ms < LOWS[bucket + 1]


def test_nothing_has_no_percentile() -> None:
    assert percentiles({}, [0.5, 0.9]) == [None, None]


def test_the_buckets_are_those_of_what_is_stored() -> None:
    assert len(LOWS) == len(MIDDLES) == 64
    assert (LOWS[:9], LOWS[-1], sum(LOWS)) == ((0, 1, 2, 3, 4, 5, 7, 9, 11), 315_849, 1_894_912)


OUTCOMES: list[tuple[Outcome, str]] = [
    (Answered(429, None, b""), "answered_429"),
    (Answered(404, None, b""), "answered_4xx"),
    (Answered(500, None, b""), "answered_5xx"),
    (Answered(599, None, b""), "answered_5xx"),
    (Answered(301, None, b""), "answered_other"),
    (Answered(999, None, b""), "answered_other"),
    (TimedOut(10), "timed_out"),
    (NotReached("refused"), "not_reached"),
    (Blocked("private", "10.0.0.1"), "blocked"),
]


@pytest.mark.parametrize(("outcome", "kind"), OUTCOMES)
def test_a_failure_is_counted_as_one_kind(outcome: Outcome, kind: str) -> None:
    assert KINDS[kind_of(outcome)] == kind


def test_the_kinds_are_columns_in_this_order() -> None:
    folder = files("aetherflow_hooks.db") / "migrations"
    (made,) = [it for it in folder.iterdir() if it.name.endswith("_tallies.sql")]
    table = made.read_text().partition("primary key")[0]
    columns = re.findall(r"^    (\w+)", table, re.MULTILINE)
    assert tuple(columns[columns.index("delivered") :][: len(KINDS)]) == KINDS
