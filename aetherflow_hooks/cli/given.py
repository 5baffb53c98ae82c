"""given: what is written after the options of an endpoint, read."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aetherflow_hooks.cli.session import from_file
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.retry import PRESETS


def channels(text: str | None) -> list[str] | None:
    """Read channels, parted by commas."""
    return None if text is None else [channel.strip() for channel in text.split(",")]


def headers(given: Sequence[str]) -> dict[str, str]:
    """Read headers, each NAME=VALUE or NAME=@FILE."""
    read: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not separator or name in read:  # the text is not told: it may be a secret
            raise InputRefused("a --header is not NAME=VALUE or NAME=@FILE, each name once")
        if value.startswith("@"):
            value = from_file(f"the value of {name!a}", Path(value[1:])).rstrip("\r\n")
        read[name] = value
    return read


def metadata(text: str) -> dict[str, Any]:
    """Read a JSON object."""
    try:
        given = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputRefused(f"--metadata is no JSON: {error}") from None
    if not isinstance(given, dict):
        raise InputRefused('--metadata is an object, such as {"plan": "gold", "seats": 12}')
    return given


def own(secret: str | None) -> str | None:
    """Read a secret of the user's own, from stdin where it is -."""
    return sys.stdin.readline().rstrip("\r\n") if secret == "-" else secret  # noqa: S105


def patterns(text: str) -> list[str]:
    """Read patterns, parted by commas."""
    return [pattern.strip() for pattern in text.split(",")]


def pauses(text: str | None) -> list[float] | str | None:
    """Read the pauses of a retry schedule, or leave the name of a preset as it is."""
    if text is None or text in PRESETS:
        return text
    try:
        return [float(pause) for pause in text.split(",") if pause.strip()]
    except ValueError:
        raise InputRefused(
            f"--retries {text!r} is not a list of seconds such as 10,60,600, nor one of "
            f"{', '.join(PRESETS)}"
        ) from None
