"""Retry: what follows from an attempt, and how long the pause is."""

import math
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.model import (
    Answered,
    Blocked,
    DeadReason,
    Delivered,
    GiveUp,
    Halt,
    NotReached,
    Outcome,
    RetryIn,
    TimedOut,
    Verdict,
    delivery_id,
)
from aetherflow_hooks.rules.retry import judge, retry_after_seconds
from aetherflow_hooks.rules.states import MOVES, State, mermaid

SCHEDULE = (10.0, 60.0, 600.0)
HOUR = 3600.0
EXHAUSTED, GONE = GiveUp(DeadReason.EXHAUSTED), GiveUp(DeadReason.GONE)


def answered(status: int, retry_after: float | None = None) -> Answered:
    return Answered(status, retry_after, b"")


def verdict_of(
    outcome: Outcome,
    attempt: int = 1,
    *,
    schedule: tuple[float, ...] = SCHEDULE,
    dice: float = 0.5,
) -> Verdict:
    return judge(
        outcome,
        attempt=attempt,
        schedule_seconds=schedule,
        jitter=0.2,
        dice=dice,
        retry_after_max_seconds=HOUR,
    )


@pytest.mark.parametrize(
    ("outcome", "attempt", "expected"),
    [
        (answered(200), 1, Delivered()),
        (answered(204), 4, Delivered()),
        (answered(299), 99, Delivered()),
        (answered(410), 1, GONE),
        (answered(410), 4, GONE),
        (answered(410, 5.0), 1, GONE),
        *[
            (outcome, attempt, RetryIn(pause))
            for attempt, pause in enumerate(SCHEDULE, 1)
            for outcome in (
                answered(500),
                TimedOut(10.0),
                NotReached("refused"),
                Blocked("closed", "10/8"),
            )
        ],
        *[
            (answered(status), 1, RetryIn(10.0))
            for status in (0, 99, 100, 101, 199, 300, 301, 302, 307, 308, 400, 401, 404, 409, 411)
        ],
        *[(answered(status), 1, RetryIn(10.0)) for status in (429, 499, 502, 503, 599, 999)],
        (answered(500), 4, EXHAUSTED),
        (TimedOut(10.0), 4, EXHAUSTED),
        (NotReached("refused"), 5, EXHAUSTED),
        (Blocked("closed", "10/8"), 4, EXHAUSTED),
        (answered(503, 5.0), 4, EXHAUSTED),
    ],
)
def test_what_follows_from_an_attempt(outcome: Outcome, attempt: int, expected: Verdict) -> None:
    assert verdict_of(outcome, attempt) == expected


def test_case_27_without_a_schedule_there_is_one_attempt() -> None:
    assert verdict_of(answered(500), schedule=()) == EXHAUSTED
    assert verdict_of(answered(200), schedule=()) == Delivered()


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 3))
def test_a_pause_is_moved_by_a_fifth_at_most(dice: float, attempt: int) -> None:
    verdict = verdict_of(answered(500), attempt, dice=dice)
    assert isinstance(verdict, RetryIn)
    planned = SCHEDULE[attempt - 1]
    assert planned * 0.8 - 1e-9 <= verdict.seconds <= planned * 1.2 + 1e-9


def test_the_dice_reach_both_ends_of_the_pause() -> None:
    shortest, longest = (verdict_of(answered(500), dice=dice) for dice in (0.0, 1 - 1e-12))
    assert (*shortest, *longest) == pytest.approx((8.0, 12.0))


@pytest.mark.parametrize(
    ("asked", "pause"), [(0.0, 10.0), (3.0, 10.0), (11.0, 11.0), (HOUR, HOUR), (1e12, HOUR)]
)
def test_retry_after_lengthens_a_pause_up_to_an_hour(asked: float, pause: float) -> None:
    assert verdict_of(answered(503, asked)) == RetryIn(pause)


def test_retry_after_does_not_shorten_a_schedule_beyond_the_hour() -> None:
    assert verdict_of(answered(429, 5.0), schedule=(2 * HOUR,)) == RetryIn(2 * HOUR)
    assert verdict_of(answered(429, 9 * HOUR), schedule=(2 * HOUR,)) == RetryIn(2 * HOUR)


seconds = st.floats(0, 1e15)
outcomes: st.SearchStrategy[Outcome] = st.one_of(
    st.builds(Answered, st.integers(), st.none() | st.floats(0), st.binary(max_size=8)),
    st.builds(TimedOut, seconds),
    st.builds(NotReached, st.text()),
    st.builds(Blocked, st.text()),
)


@given(
    outcomes,
    st.integers(1, 100),
    st.lists(st.floats(0, 2_592_000), max_size=50),
    st.floats(0, 1),
    st.floats(0, 1, exclude_max=True),
    st.floats(0, 86_400),
)
def test_every_outcome_has_a_verdict(
    outcome: Outcome,
    attempt: int,
    schedule: list[float],
    jitter: float,
    dice: float,
    retry_after_max: float,
) -> None:
    verdict = judge(
        outcome,
        attempt=attempt,
        schedule_seconds=schedule,
        jitter=jitter,
        dice=dice,
        retry_after_max_seconds=retry_after_max,
    )
    good = isinstance(outcome, Answered) and 200 <= outcome.status <= 299
    assert (verdict == Delivered()) is good
    if isinstance(verdict, RetryIn):
        planned = schedule[attempt - 1]
        least, most = planned * (1 - jitter), max(planned * (1 + jitter), retry_after_max)
        assert least - 1e-6 <= verdict.seconds <= most + 1e-6
        assert math.isfinite(verdict.seconds)


NOON = 784_111_777.0  # Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", 0),
        ("3", 3),
        (" 120 ", 120),
        ("007", 7),
        ("99999999999999", 99_999_999_999_999),
        ("9" * 10_000, math.inf),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun, 06 Nov 1994 09:50:37 +0100", 60),
        ("Sun, 06 Nov 1994 08:48:37 GMT", 0),  # over
        ("Fri, 31 Dec 9999 23:59:59 GMT", 253_402_300_799 - NOON),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, expected: float) -> None:
    for status in (429, 503):
        assert retry_after_seconds(status, value, NOON) == expected


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "-1", "+1", "1.5", "1e99", "NaN", "inf", "0x10", "1,2", "١٢", "²", "soon"),
        *("\x00", "\ud800", "x" * 10_240, "Sun, 99 Nov 1994 08:49:37 GMT", "Sun,", ",", "GMT"),
        "Sun, 06 Nov 1994 08:49:37 +9999999999",
        "Sun, 06 Nov 99999 08:49:37 GMT",
    ],
)
def test_what_is_neither_says_nothing(value: str) -> None:
    assert retry_after_seconds(503, value, NOON) is None


@given(st.text(st.characters()) | st.from_regex(r"[A-Za-z0-9,:+ -]*"))
def test_any_retry_after_is_read_without_harm(value: str) -> None:
    read = retry_after_seconds(429, value, NOON)
    assert read is None or 0 <= read < math.inf


def test_retry_after_means_something_on_429_and_503_only() -> None:
    for status in (200, 301, 400, 410, 500, 502, 504):
        assert retry_after_seconds(status, "5", NOON) is None
    assert retry_after_seconds(503, None, NOON) is None


def test_leading_zeros_do_not_hide_a_number() -> None:
    assert retry_after_seconds(503, "000000000000000060", NOON) == 60


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_from_greenwich")
def test_the_oldest_form_of_a_date_is_gmt_wherever_we_run() -> None:
    assert retry_after_seconds(503, "Sun Nov  6 08:50:37 1994", NOON) == 60


def test_every_verdict_is_a_move_of_the_table() -> None:
    ends = {
        Delivered: State.DELIVERED,
        RetryIn: State.PENDING,
        GiveUp: State.DEAD,
        Halt: State.HALTED,
    }
    assert MOVES[State.LEASED] == frozenset(ends.values())
    assert set(MOVES) == set(State)
    assert set().union(*MOVES.values()) <= set(State)


def test_the_chart_draws_every_state_and_every_move() -> None:
    chart = mermaid().splitlines()
    assert chart[0] == "stateDiagram-v2"
    drawn = {tuple(line.split(" --> ")) for line in map(str.strip, chart[1:])}
    assert drawn == {
        ("[*]", "pending"),
        ("pending", "leased"),
        ("pending", "dead"),
        ("leased", "halted"),
        ("halted", "pending"),
        ("halted", "dead"),
        ("leased", "pending"),
        ("leased", "delivered"),
        ("leased", "dead"),
        ("delivered", "[*]"),
        ("dead", "pending"),
        ("dead", "[*]"),
    }


def test_a_delivery_is_named_after_its_event_and_endpoint() -> None:
    named = delivery_id("evt_0642c8f1a2b3c4d5e6f70812", "ep_7f3a9c21d04e")
    assert named == "dlv_0642c8f1a2b3c4d5e6f70812_7f3a9c21d04e"


@pytest.mark.parametrize(("attempt", "goes_on"), [(1, True), (3, True), (4, False), (9, False)])
def test_a_21_what_is_blocked_is_tried_again_a_few_times_only(attempt: int, goes_on: bool) -> None:
    for outcome, gives_up in ((Blocked("closed", "10/8"), not goes_on), (TimedOut(1.0), False)):
        verdict = judge(
            outcome,
            attempt=attempt,
            schedule_seconds=[1.0] * 20,
            jitter=0,
            dice=0,
            retry_after_max_seconds=3600,
        )
        assert (verdict == EXHAUSTED) is gives_up
