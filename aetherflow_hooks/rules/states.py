"""States: the way of a delivery, as a table.

A delivery's state is where its row is: `deliveries` holds pending and leased ones, `dead` those
given up, and a delivered one has left, its last attempt saying so.
"""

from enum import StrEnum

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


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram."""
    arrows = [
        f"    {state} --> {to}" for state, tos in MOVES.items() for to in sorted(tos, key=str)
    ]
    ends = [f"    {state} --> [*]" for state in (State.DELIVERED, State.DEAD)]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {State.PENDING}", *arrows, *ends])
