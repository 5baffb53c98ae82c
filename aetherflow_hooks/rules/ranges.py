"""Ranges: numbers from outside, and what they may be."""

from aetherflow_hooks.errors import InputRefused


def in_range(what: str, value: float, low: float, high: float) -> None:
    """Make sure that a number is within its bounds.

    Raises:
        InputRefused: it is not; the message names `what` it is.
    """
    if not low <= value <= high:
        raise InputRefused(f"{what} is {value:,.10g}, and must be {low:,.10g} to {high:,.10g}")
