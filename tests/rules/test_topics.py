"""Topics: which names an event may have, and who gets it."""

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aetherflow_hooks.rules.topics import (
    CATALOGUE,
    DELIVERY_EXHAUSTED,
    ENDPOINT_DISABLED,
    is_operational,
    is_pattern,
    is_type,
    patterns_of,
)

types = st.one_of(
    st.from_regex(r"[A-Za-z0-9_.-]{1,128}", fullmatch=True),
    st.lists(st.sampled_from(["a", "b", "", "-", "aetherflow"]), min_size=1, max_size=12)
    .map(".".join)
    .filter(bool),
    st.sampled_from([*CATALOGUE, DELIVERY_EXHAUSTED, ENDPOINT_DISABLED]),
)

TYPES = ["a", "A-1_b.c", "order.paid", ".", "..", "a.", "x" * 128, *CATALOGUE]
NO_TYPES = [
    *("", "*", "a.*", "a b", "a\n", "a\x00", "é", "a/b", "a,b", "%", "x" * 129),
    *("\ud800", "a\u200b"),
]


@pytest.mark.parametrize("text", TYPES)
def test_a_type_is_a_pattern_too(text: str) -> None:
    assert is_type(text)
    assert is_pattern(text)


@pytest.mark.parametrize("text", NO_TYPES)
def test_what_is_no_type_is_told(text: str) -> None:
    assert not is_type(text)


@pytest.mark.parametrize("text", ["*", "user.*", "a.b.*", "aetherflow.*"])
def test_a_star_stands_for_a_whole_end(text: str) -> None:
    assert is_pattern(text)


@pytest.mark.parametrize(
    "text", ["", "us*", "*.joined", "user.*.*", "**", "user*", ".*", "*.*", "a.*.b", "user.* "]
)
def test_a_star_anywhere_else_chooses_nothing(text: str) -> None:
    assert not is_pattern(text)


@pytest.mark.parametrize(
    ("event_type", "patterns"),
    [
        ("a", ["*", "a"]),
        ("a.b.c", ["*", "a.b.c", "a.*", "a.b.*"]),
        ("a..b", ["*", "a..b", "a.*", "a..*"]),
        (DELIVERY_EXHAUSTED, [DELIVERY_EXHAUSTED, "aetherflow.*", "aetherflow.delivery.*"]),
        ("aetherflow", ["*", "aetherflow"]),
        ("aetherflows.x", ["*", "aetherflows.x", "aetherflows.*"]),
    ],
)
def test_an_event_reaches_those_who_chose_it(event_type: str, patterns: list[str]) -> None:
    assert patterns_of(event_type) == patterns


@given(types)
def test_a_pattern_reaches_what_starts_like_it_and_nothing_else(event_type: str) -> None:
    for pattern in set(patterns_of(event_type)) - {"*", event_type}:
        start = pattern.removesuffix("*")
        assert start.endswith(".")
        assert event_type.startswith(start)
    assert ("*" in patterns_of(event_type)) is not is_operational(event_type)


async def test_postgres_finds_the_same_patterns(dsn: str) -> None:
    batch = {*TYPES, DELIVERY_EXHAUSTED, ENDPOINT_DISABLED}

    @settings(max_examples=300, database=None)
    @given(types)
    def collect(event_type: str) -> None:
        batch.add(event_type)

    collect()
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch(
        "select type, array(select aetherflow.patterns_of(type)) from unnest($1::text[]) t (type)",
        sorted(batch),
    )
    await connection.close()
    assert dict(rows) == {event_type: patterns_of(event_type) for event_type in batch}


async def test_postgres_knows_the_same_catalogue(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    rows = await connection.fetch("select type, description from aetherflow.event_types")
    await connection.close()
    assert dict(rows) == CATALOGUE


def test_the_catalogue_is_that_of_aetherflow() -> None:
    assert len(CATALOGUE) == 12
    assert all(is_type(event_type) and text.endswith(".") for event_type, text in CATALOGUE.items())
