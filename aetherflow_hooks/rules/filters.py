"""Filters: conditions on the data of events, in a part of Postgres' SQL/JSON path language.

It is that part in which a condition costs, at most, a look at each value of the data: no pattern,
no walk to every depth, no values multiplied or compared with each other, nothing that depends on a
clock. Fan-out reads filters inside the statement that everybody's events go through.

    filter    = either
    either    = every { "||" every }
    every     = condition { "&&" condition }
    condition = [ "!" ] "(" either ")" [ "is unknown" ] | "exists" "(" path ")"
              | path compared constant | constant compared path | path "starts with" string
    path      = ( "$" | "@" ) { "." key | ".*" | "[*]" | "[" place [ "to" place ] "]"
              | "?(" either ")" } [ ".size()" | ".type()" ]
    place     = number | "last"
    constant  = string | number | "true" | "false" | "null"

A path begins with $, the data, and within ?( ) with @, the value that is chosen or not.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

from aetherflow_hooks.errors import InputRefused

CHARACTERS_MAX = 2_000
CONDITIONS_MAX = 10  # each may take 75 ms and 6 MB of Postgres
DEPTH_MAX = 20  # of parentheses
EXAMPLE = '$.amount > 100 && $.status == "paid"'

_TOKEN = re.compile(
    r'(?P<string>"(?:[^"\\]|\\.)*")|(?P<number>-?[0-9]+(?:\.[0-9]+)?)|(?P<word>[a-z_]+)'
    r"|(?P<sign>\*\*|&&|\|\||[=!<>]=|[^\s\w])|(?P<blank>\s+)",
    re.DOTALL,
)
_COMPARED = frozenset({"==", "!=", "<", "<=", ">", ">="})
_CONSTANTS = frozenset({"true", "false", "null"})
_METHODS = frozenset({"size", "type"})
_MIRRORED = frozenset({"string", "number"})
_NO_CONDITION = f"what stands there is no condition: compare a value of the data, as in {EXAMPLE}"
_ONE_CONSTANT = "one side of a comparison is a string, a number, true, false or null"
_WHY = {
    "strict": "`strict` would call a key that is missing an error: leave it out",
    "like_regex": "`like_regex` can take for ever: write == or starts with",
    "**": "`**` walks through everything: name the way, as in $.steps[*].status",
    ".": "nothing follows on .size(), on .type() or on a condition",
    ",": "`,` would take values twice: write [*], [0] or [0 to 3]",
    **dict.fromkeys("+-/%*", f"nothing is calculated: {_ONE_CONSTANT}"),
}


class _Token(NamedTuple):
    kind: str
    text: str


def check_filter(written: str) -> None:
    """Say whether an endpoint may have this filter, which is given as Postgres writes it.

    Every other form of the same has gone by then: keys are quoted, and constants are plain.

    Raises:
        InputRefused: the message says what is not of the language, and what would be.
    """
    _Reading(_tokens(written)).all()


def _tokens(written: str) -> list[_Token]:
    found, place = [], 0
    while place < len(written):
        token = _TOKEN.match(written, place)
        if token is None:
            raise _refused(f"{written[place : place + 20]!r} does not belong there")
        if token.lastgroup != "blank":
            found.append(_Token(str(token.lastgroup), token.group()))
        place = token.end()
    return found


def _refused(why: str) -> InputRefused:
    return InputRefused(f"the filter is not of the language that endpoints understand: {why}")


class _Reading:
    """Reads a filter from its first token to its last; a method for each name of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._left: Iterator[_Token] = iter(tokens)
        self._conditions = 0
        self._depth = 0
        self._next = _END
        self._go_on()

    def all(self) -> None:
        self._either("$")
        if self._next is not _END:
            raise self._unexpected()

    def _either(self, root: str) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise _refused(f"its parentheses are more than {DEPTH_MAX} deep")
        self._every(root)
        while self._took("||"):
            self._every(root)
        self._depth -= 1

    def _every(self, root: str) -> None:
        self._condition(root)
        while self._took("&&"):
            self._condition(root)

    def _condition(self, root: str) -> None:
        is_denied = self._took("!")
        if self._took("("):
            self._either(root)
            self._need(")")
            if not is_denied and self._took("is"):
                self._need("unknown")
            return
        self._conditions += 1
        if self._conditions > CONDITIONS_MAX:
            raise _refused(f"it has more than {CONDITIONS_MAX} conditions")
        if self._took("exists"):
            self._need("(")
            self._path(root)
            self._need(")")
        elif self._took_constant():
            if self._next.text not in _COMPARED:
                raise self._unexpected(_NO_CONDITION)
            self._go_on()
            self._path(root)
        else:
            self._path(root)
            self._end_of_comparison()

    def _end_of_comparison(self) -> None:
        if self._took("starts"):
            self._need("with")
            if self._next.kind != "string":
                raise _refused("what follows on `starts with` is a string")
            self._go_on()
        elif self._next.text in _COMPARED and self._next.kind == "sign":
            self._go_on()
            if not self._took_constant():
                raise self._unexpected(_ONE_CONSTANT)
        else:
            raise self._unexpected(_NO_CONDITION)

    def _path(self, root: str) -> None:
        if self._next.text in {"$", "@"} and self._next.text != root:
            raise _refused(f"a path begins with {root} there, not with {self._next.text}")
        self._need(root)
        if self._next.kind == "string":
            raise _refused("there are no variables: a path begins with $. and a key")
        while self._next.text in {".", "[", "?"} and self._next.kind == "sign":
            sign = self._next.text
            self._go_on()
            if sign == "[":
                self._places()
            elif sign == "?":
                self._need("(")
                self._either("@")
                self._need(")")
            elif self._next.kind == "word":
                self._method()
                return
            elif self._next.kind == "string":
                self._go_on()
            else:
                self._need("*")

    def _places(self) -> None:
        if not self._took("*"):
            self._place()
            if self._took("to"):
                self._place()
        self._need("]")

    def _place(self) -> None:
        if self._next.text != "last" and not self._next.text.isdigit():
            raise self._unexpected("a place is a number or `last`, as in [0], [last], [0 to 3]")
        self._go_on()

    def _method(self) -> None:
        if self._next.text not in _METHODS:
            raise _refused(f"there is no .{self._next.text}(), only .size() and .type()")
        self._go_on()
        self._need("(")
        self._need(")")

    def _took_constant(self) -> bool:
        is_constant = self._next.kind in _MIRRORED or (
            self._next.kind == "word" and self._next.text in _CONSTANTS
        )
        if is_constant:
            self._go_on()
        return is_constant

    def _took(self, text: str) -> bool:
        is_there = self._next.text == text
        if is_there:
            self._go_on()
        return is_there

    def _need(self, text: str) -> None:
        if not self._took(text):
            raise self._unexpected()

    def _go_on(self) -> None:
        self._next = next(self._left, _END)

    def _unexpected(self, otherwise: str | None = None) -> InputRefused:
        named = self._next.text or "the end"
        return _refused(_WHY.get(self._next.text) or otherwise or f"{named} does not belong there")


_END = _Token("end", "")
