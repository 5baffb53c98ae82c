"""The bodies that are kept: as much as may be, of those that were used last."""

from aetherflow_hooks.model import Event
from aetherflow_hooks.rules.bodies import EVENT_BYTES, Bodies


def event(name: str, body_bytes: int) -> Event:
    return Event(name, "a", b"x" * body_bytes)


def kept(bodies: Bodies, names: str) -> str:
    return "".join(name for name in names if name in bodies._by_id)


def test_what_was_used_longest_ago_goes_first() -> None:
    bodies = Bodies(3 * (EVENT_BYTES + 100))
    for name in "abc":
        bodies.put(event(name, 100))
    assert bodies.get("a") == event("a", 100)
    bodies.put(event("d", 100))
    assert kept(bodies, "abcd") == "acd"
    bodies.put(event("e", 200))  # a little more than what goes for it
    assert kept(bodies, "abcde") == "de"


def test_one_that_is_larger_than_all_that_may_be_kept_drives_out_no_other() -> None:
    bodies = Bodies(3 * (EVENT_BYTES + 100))
    bodies.put(event("a", 100))
    bodies.put(event("b", 3 * (EVENT_BYTES + 100)))
    assert kept(bodies, "ab") == "a"
    bodies.put(event("c", EVENT_BYTES + 200))  # as much as is left
    assert kept(bodies, "abc") == "ac"
