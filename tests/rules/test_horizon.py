"""Horizon: whatever a look did not see has appeared since the moment that it tells."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.rules.horizon import LOOKS_MAX, Horizon

STEPS = ("begin", "end", "emit", "look", "look")
T0 = datetime(2026, 1, 1, tzinfo=UTC)


def moment(milliseconds: float) -> datetime:
    return T0 + timedelta(milliseconds=milliseconds)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 40))))
def test_nothing_is_passed_by(steps: list[tuple[str, int]]) -> None:
    """Transactions begin, emit and end in any order."""
    horizon, now, number = Horizon(), 0, 100
    running: dict[int, list[datetime]] = {}
    for step, dice in steps:
        now += dice
        if step == "begin":
            running[number] = []
            number += 1
        elif running and step == "end":
            running.pop(list(running)[dice % len(running)])
        elif running and step == "emit":
            running[list(running)[dice % len(running)]].append(moment(now))
        elif step == "look":
            since = horizon.saw(moment(now), min(running, default=number), number)
            unseen = [it for emitted in running.values() for it in emitted]
            assert since is None or all(since <= it for it in unseen)
            assert since is None or since <= moment(now)


def test_where_nothing_goes_on_it_is_the_look_itself() -> None:
    horizon = Horizon()
    for step in range(5):
        assert horizon.saw(moment(step), 100 + step, 100 + step) == moment(step)


def test_a_transaction_that_goes_on_holds_it_up_and_then_lets_it_go() -> None:
    horizon = Horizon()
    assert horizon.saw(moment(0), 100, 100) == moment(0)
    for step in range(1, 2_000_000, 100):  # more looks than are remembered
        assert horizon.saw(moment(step), 100, 101 + step) == moment(0)
    assert len(horizon._looks) <= LOOKS_MAX
    held_up = horizon.saw(moment(2_000_000), 1_900_000, 2_100_000)
    assert held_up is not None
    assert moment(1_800_000) < held_up <= moment(1_900_000)
    assert horizon.saw(moment(2_000_001), 2_100_001, 2_100_001) == moment(2_000_001)


def test_one_that_goes_on_from_before_the_first_look_leaves_it_unknown() -> None:
    horizon = Horizon()
    assert horizon.saw(moment(0), 90, 100) is None
    assert horizon.saw(moment(50), 90, 120) is None
    assert horizon.saw(moment(60), 110, 120) == moment(0)
