"""States: the way of a delivery, as a table.

A delivery's state is where its row is: `deliveries` holds pending and leased ones, `dead` those
given up, and a delivered one has left, its last attempt saying so.
"""

from enum import StrEnum
from typing import assert_never

from aetherflow_hooks.model import (
    Answered,
    Blocked,
    Delivered,
    GiveUp,
    Halt,
    NotReached,
    Outcome,
    RetryIn,
    TimedOut,
    Verdict,
)

ERROR_MAX_CHARACTERS = 500


class State(StrEnum):
    """Where a delivery stands."""

    PENDING = "pending"  # waits for its `due_at`
    LEASED = "leased"  # an engine is at it
    HALTED = "halted"  # its attempts are used up, and its endpoint's order has it wait for people
    DELIVERED = "delivered"
    DEAD = "dead"


MOVES: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.LEASED, State.DEAD}),
    State.LEASED: frozenset({State.DELIVERED, State.PENDING, State.HALTED, State.DEAD}),
    State.HALTED: frozenset({State.PENDING, State.DEAD}),
    State.DELIVERED: frozenset(),
    State.DEAD: frozenset({State.PENDING}),
}


# The words of logs and tables for how an attempt ended and what followed from it.
OUTCOME_WORDS: dict[type[Outcome], str] = {
    Answered: "answered",
    TimedOut: "timed_out",
    NotReached: "not_reached",
    Blocked: "blocked",
}
VERDICT_WORDS: dict[type[Verdict], str] = {
    Delivered: "delivered",
    RetryIn: "retry",
    GiveUp: "dead",
    Halt: "halted",
}


def error_of(outcome: Outcome) -> str:
    """Say in words how an attempt failed, of at most ERROR_MAX_CHARACTERS."""
    match outcome:
        case Answered(status=status):
            return f"answered {status}"
        case TimedOut(seconds=seconds):
            return f"no answer within {seconds:g} s"
        case NotReached(reason=reason) | Blocked(reason=reason):
            # Postgres keeps neither NUL nor half a surrogate pair
            clean = reason.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
            return clean[:ERROR_MAX_CHARACTERS]
        case never:
            assert_never(never)


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram."""
    arrows = [
        f"    {state} --> {to}" for state, tos in MOVES.items() for to in sorted(tos, key=str)
    ]
    ends = [f"    {state} --> [*]" for state in (State.DELIVERED, State.DEAD)]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.PENDING}", *arrows, *ends])
