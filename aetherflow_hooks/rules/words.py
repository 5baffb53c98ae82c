"""Words: channels, by which endpoints choose among events, and labels, for use of people's own."""

import re
from collections.abc import Iterable, Sequence

from aetherflow_hooks.errors import InputRefused

EVENT_CHANNELS_MAX = 10
ENDPOINT_CHANNELS_MAX = 20
LABELS_MAX = 20

WORD = "[A-Za-z0-9_.:-]{1,64}"


def channels_of_event(channels: Sequence[str]) -> list[str] | None:
    """Give an event's channels, each once; None: it has none.

    Raises:
        InputRefused: there are too many, or one is none.
    """
    return _checked("channel", channels, "an event", EVENT_CHANNELS_MAX) or None


def channels_of_endpoint(channels: Sequence[str]) -> list[str]:
    """Give an endpoint's channels, each once.

    Raises:
        InputRefused: there are too many, or one is none.
    """
    return _checked("channel", channels, "an endpoint", ENDPOINT_CHANNELS_MAX)


def labels_of_endpoint(labels: Sequence[str]) -> list[str]:
    """Give an endpoint's labels, each once.

    Raises:
        InputRefused: there are too many, or one is none.
    """
    return _checked("label", labels, "an endpoint", LABELS_MAX)


def _checked(kind: str, words: Sequence[str], whose: str, most: int) -> list[str]:
    if isinstance(words, str) or not isinstance(words, Iterable):
        raise InputRefused(f"the {kind}s of {whose} are a list, such as ['eu', 'us']")
    for word in words:
        if not isinstance(word, str) or not re.fullmatch(WORD, word):
            raise InputRefused(f"{word!r} is no {kind}: 1 to 64 of A-Z a-z 0-9 _ . : -")
    once = list(dict.fromkeys(words))
    if len(once) > most:
        raise InputRefused(f"{whose} has at most {most} {kind}s, and {len(once)} are given")
    return once
