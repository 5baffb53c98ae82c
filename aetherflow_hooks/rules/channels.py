"""Channels: words that events carry, and by which endpoints choose among them."""

import re
from collections.abc import Iterable, Sequence

from aetherflow_hooks.errors import InputRefused

OF_EVENT_MAX = 10
OF_ENDPOINT_MAX = 20

_CHANNEL = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def channels_of_event(channels: Sequence[str]) -> list[str] | None:
    """Give an event's channels, each once; None: it has none.

    Raises:
        InputRefused: there are too many, or one is none.
    """
    return _checked(channels, "an event", OF_EVENT_MAX) or None


def channels_of_endpoint(channels: Sequence[str]) -> list[str]:
    """Give an endpoint's channels, each once.

    Raises:
        InputRefused: there are too many, or one is none.
    """
    return _checked(channels, "an endpoint", OF_ENDPOINT_MAX)


def _checked(channels: Sequence[str], whose: str, most: int) -> list[str]:
    if isinstance(channels, str) or not isinstance(channels, Iterable):
        raise InputRefused(f"the channels of {whose} are a list, such as ['eu', 'us']")
    for channel in channels:
        if not isinstance(channel, str) or not _CHANNEL.fullmatch(channel):
            raise InputRefused(f"{channel!r} is no channel: 1 to 64 of A-Z a-z 0-9 _ . : -")
    once = list(dict.fromkeys(channels))
    if len(once) > most:
        raise InputRefused(f"{whose} has at most {most} channels, and {len(once)} are given")
    return once
