"""Render: templates to pages. Every text from outside is escaped, and shown as what it is."""

import functools
import json
import secrets
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import jinja2
from markupsafe import Markup, escape

from aetherflow_hooks.rules.texts import visible
from aetherflow_hooks.web.dashboard.statics import static_path

SHOWN_MAX = 65_536  # characters of a body or an answer
DEPTH_MAX = 30  # that JSON is written over lines for: each level moves all that is in it
MINUTE, HOUR, DAY = 60, 3_600, 86_400


def render(template: str, **context: Any) -> str:
    """Fill a template in."""
    return _environment().get_template(template).render(context)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aetherflow_hooks.web.dashboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_seen,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals.update(static=static_path, new_key=lambda: secrets.token_hex(16))
    environment.filters.update(
        age=age,
        count=count,
        moment=moment,
        ms=ms,
        number=number,
        percent=percent,
        pretty=pretty,
        start=start,
        typed=escape,  # what stands in a field is sent back as it is
    )
    return environment


def _seen(value: Any) -> Any:
    """Show what a template puts into a page: nothing of it is hidden, and None is a dash."""
    if value is None:
        return "-"
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, keep="\n\t")
    return value


def age(seconds: float | None) -> str | None:
    """Write a length of time in its two largest units at most.

    >>> [age(it) for it in (0.2, 42, 90, 4000, 200_000)]
    ['0 s', '42 s', '1 min 30 s', '1 h 6 min', '2 d 7 h']
    """
    if seconds is None:
        return None
    whole = max(0, int(seconds))
    if whole < MINUTE:
        return f"{whole} s"
    for unit, name, below, lower in (
        *((DAY, "d", HOUR, "h"), (HOUR, "h", MINUTE, "min")),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // below
            return f"{whole // unit} {name} {rest} {lower}" if rest else f"{whole // unit} {name}"
    raise AssertionError


def count(value: int | None, is_exact: bool = True) -> str | None:
    """Write a number with its thousands; one that is not exact is at least so much."""
    return None if value is None else f"{value:,}" + ("" if is_exact else "+")


def moment(at: datetime | None, *, seconds: bool = True) -> str | None:
    """Write a time of the world's clock."""
    if at is None:
        return None
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S" if seconds else "%Y-%m-%d %H:%M")


def ms(value: float | None) -> str | None:
    """Write milliseconds."""
    return None if value is None else f"{value:,.0f} ms"


def percent(share: float | None) -> str | None:
    """Write a share; what is not all is never told as all.

    >>> [percent(it) for it in (1, 0.99999, 0.5, 0)]
    ['100 %', '99.9 %', '50.0 %', '0.0 %']
    """
    if share is None:
        return None
    return "100 %" if share == 1 else f"{int(share * 1000) / 10:.1f} %"


def pretty(text: str) -> str:
    """Write JSON over several lines; what is long, deep or none, as it is. At most so much."""
    if len(text) > SHOWN_MAX or _depth(text) > DEPTH_MAX:
        return start(text)
    try:
        return start(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    except ValueError:
        return start(text)


def _depth(text: str) -> int:
    """Count how many brackets are open at once; those in strings count too."""
    steps = (1 if letter in "{[" else -1 for letter in text if letter in "{[]}")
    return max(accumulate(steps), default=0)


def number(value: float) -> str:
    """Write a number as somebody would type it.

    >>> [number(it) for it in (5.0, 12345.678, 1234567.0)]
    ['5', '12345.678', '1234567']
    """
    return repr(value).removesuffix(".0")


def start(text: str, characters: int = SHOWN_MAX) -> str:
    """Give the start of a text, and say if there is more."""
    if len(text) <= characters:
        return text
    return f"{text[:characters]}\n… {len(text) - characters:,} characters more"
