"""Forms: what was typed, as the shapes that routes of the API take."""

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.web.problems import mistaken
from aetherflow_hooks.web.routes import Shape

S = TypeVar("S", bound=Shape)

_BETWEEN = re.compile(r"[\s,]+")


def filled(shape: type[S], given: Mapping[str, Any]) -> S:
    """Make a shape of what was typed.

    Raises:
        InputRefused: some of it cannot be used; the message names each such field.
    """
    try:
        return shape.model_validate(dict(given))
    except ValidationError as error:
        told = mistaken("", error).mistakes or []
        lines = [
            f"{it.path.strip('.').split('.')[0]}: {it.message.removeprefix('Value error, ')}"
            for it in told
        ]
        raise InputRefused("; ".join(dict.fromkeys(lines))) from None


def some(given: Mapping[str, str], *names: str) -> dict[str, str]:
    """Give those fields that hold something."""
    return {name: given[name] for name in names if given.get(name)}


def several(text: str) -> list[str]:
    """Read words that are parted by commas, blanks or lines.

    >>> several("user.*, workflow.failed x")
    ['user.*', 'workflow.failed', 'x']
    """
    return [word for word in _BETWEEN.split(text) if word]


def moments(given: Mapping[str, str], *names: str) -> dict[str, str]:
    """Give the times that were typed; without a zone they are UTC, as every page shows them."""
    return {
        name: text if re.search(r"(?:Z|[+-]\d\d:?\d\d)$", text) else f"{text}Z"
        for name, text in some(given, *names).items()
    }


def pairs(text: str) -> dict[str, str]:
    """Read headers, one a line.

    Raises:
        InputRefused: a line has no colon.
    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if line.strip() and not colon:
            raise InputRefused("headers: each line is Name: value")
        if line.strip():
            found[name.strip()] = value.strip()
    return found


def schedule(text: str) -> str | list[float] | None:
    """Read pauses before retries in seconds, or the name of a schedule; None: the setting's.

    Raises:
        InputRefused: it is neither.
    """
    if not text or text.isalpha():
        return text or None
    try:
        return [float(word) for word in several(text)]
    except ValueError:
        raise InputRefused(
            "retry_schedule_seconds: seconds such as 10, 60, 600, or default, standard or none"
        ) from None


def json_object(name: str, text: str) -> dict[str, Any]:
    """Read an object of JSON; nothing is an empty one.

    Raises:
        InputRefused: it is none.
    """
    try:
        found = json.loads(text if text.strip() else "{}")
    except ValueError as error:
        raise InputRefused(f"{name}: this is no JSON: {error}") from None
    except RecursionError:
        raise InputRefused(f"{name}: this is nested too deeply for a form") from None
    if not isinstance(found, dict):
        raise InputRefused(f"{name}: this is JSON, but no object: write {{…}}")
    return found
