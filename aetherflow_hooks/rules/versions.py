"""Versions: names of how data looked, and what an expression that makes one may be written like."""

import re

from aetherflow_hooks.errors import InputRefused

EXPRESSION_CHARACTERS_MAX = 4_000
MAKING_MILLISECONDS = 500  # for one event, or for all of a lease; most take a tenth of one

_VERSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")
# A backslash would end a string elsewhere, depending on what stands before it and on settings.
_QUOTED = re.compile(r"'[^'\\]*'|\"[^\"\\]*\"")
_PAIRS = {")": "(", "]": "["}


def check_version(version: str) -> None:
    """Make sure that a version can be called so.

    Raises:
        InputRefused: it cannot.
    """
    if not _VERSION.fullmatch(version):
        raise InputRefused(f"{version[:200]!r} is no version: 1 to 64 of A-Z a-z 0-9 _ . -")


def check_expression(text: str) -> None:
    """Make sure that a text within brackets stays within them, whatever else SQL makes of it.

    So it is one expression or none. Quotes hold no backslash; outside of them there are only
    visible ASCII characters, blanks and line ends, brackets in pairs, no comment, no semicolon,
    and no $, which may begin a quotation of another kind.

    Raises:
        InputRefused: it might not.
    """
    if not 1 <= len(text) <= EXPRESSION_CHARACTERS_MAX:
        raise InputRefused(
            f"an expression is 1 to {EXPRESSION_CHARACTERS_MAX:,} characters, not {len(text):,}"
        )
    if not text.isprintable() and not set("\n\r\t").issuperset(
        letter for letter in text if not letter.isprintable()
    ):
        raise InputRefused("the expression holds characters that cannot be seen")
    if "\\" in text:
        raise InputRefused("the expression holds a backslash: write [0-9] for \\d, or chr(92)")
    bare = _QUOTED.sub(" ", text)
    for bad, told in (
        ("'", "a quote that is not closed"),
        ('"', "a quote that is not closed"),
        (";", "a semicolon"),
        ("--", "a comment"),
        ("/*", "a comment"),
        ("*/", "a comment"),
        ("$", "a $ outside of quotes"),
    ):
        if bad in bare:
            raise InputRefused(f"the expression holds {told}")
    if not bare.isascii():
        raise InputRefused("the expression holds characters beyond ASCII outside of quotes")
    _check_brackets(bare)


def too_slow(version: str) -> str:
    """Say that data could not be made into a version in time."""
    return f"the data cannot be made into version {version}: it took over {MAKING_MILLISECONDS} ms"


def _check_brackets(bare: str) -> None:
    open_ones: list[str] = []
    for letter in bare:
        if letter in "([":
            open_ones.append(letter)
        elif letter in ")]" and (not open_ones or open_ones.pop() != _PAIRS[letter]):
            raise InputRefused(f"the expression holds a {letter} without its {_PAIRS[letter]}")
    if open_ones:
        raise InputRefused(f"the expression holds a {open_ones[-1]} that is not closed")
