"""The statements about the tables that receivers have: one file each."""

import functools
import re
from importlib.resources import files

from aetherflow_hooks.errors import InputRefused

# Where several make a table that is not there, all but one of them would fail.
MAKE_ONE_BY_ONE = "select pg_advisory_xact_lock(hashtextextended('aetherflow receive', 0))"

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}(\.[a-z_][a-z0-9_]{0,62})?", re.ASCII)


@functools.cache
def statements(kind: str, table: str) -> dict[str, str]:
    """Load what is said about a table of a kind ("inbox"), by the rest of the files' names.

    `table` stands in the place of the one that the files name; it may be named with its schema.

    Raises:
        InputRefused: it is no name of a table.
    """
    if not _NAME.fullmatch(table):
        raise InputRefused(
            f"{table!r} is no name of a table: lower-case letters, digits and _, at most 48"
        )
    named = f"aetherflow_{kind}"
    index = re.compile(rf"(?<=exists ){named}(?=_\w+ on)")
    found = {}
    for file in (files("aetherflow_hooks.receive") / "sql").iterdir():
        if file.name.startswith(f"{kind}_"):
            text = index.sub(table.rpartition(".")[2], file.read_text(encoding="utf-8"))
            name = file.name.removeprefix(f"{kind}_").removesuffix(".sql")
            found[name] = re.sub(rf"\b{named}(?=[\s:(])", table, text)
    return found


def parts(text: str) -> list[str]:
    """Give the statements that one file has: most drivers take only one at a time."""
    return [part for part in text.split(";\n") if part.strip()]
