"""The statements: one file each, with a head that says what it takes and gives."""

import functools
import re
from collections.abc import Iterable
from importlib.resources import files

import orjson

SCHEMA = "aetherflow"  # as it stands in the files
AGAIN = "--again: "

_folder = files("aetherflow_hooks.db")


@functools.cache
def statements(schema: str) -> dict[str, str]:
    """Load every statement for a database whose objects are in `schema`, by the file's name.

    One with lines that begin with `--again:` is there a second time under `again_of` its name,
    with them.
    """
    found = {
        file.name.removesuffix(".sql"): in_schema(file.read_text(encoding="utf-8"), schema)
        for file in (_folder / "sql").iterdir()
        if file.name.endswith(".sql")
    }
    again = {
        again_of(name): text.replace(AGAIN, "") for name, text in found.items() if AGAIN in text
    }
    return found | again


def array_text(numbers: Iterable[int]) -> str:
    """Write numbers as Postgres reads an array of them.

    >>> array_text([1, 2])
    '{1, 2}'
    """
    return f"{{{str([*numbers])[1:-1]}}}"


def again_of(name: str) -> str:
    """Name the form of a statement that leaves alone what is there already."""
    return f"{name}/again"


@functools.cache
def indexes_walked() -> frozenset[str]:
    """Name the indexes that statements say they walk."""
    heads = (file.read_text("utf-8") for file in (_folder / "sql").iterdir())
    lines = (line for head in heads for line in re.findall(r"^-- walks (.*)$", head, re.MULTILINE))
    return frozenset(name for line in lines for name in line.split(", "))


def definition_of(index: str, schema: str) -> str:
    """Give the statement that makes an index, as the newest migration has it; empty: none does."""
    every = "\n".join(sql for _, _, sql in migrations())
    found = re.findall(rf"create (?:unique )?index {index}\b[^;]*;", every)
    if found:
        return in_schema(" ".join(found[-1].split()), schema)
    table = index.removesuffix("_pkey")
    key = r"(?:primary key \(([^)]*)\)|\n *(\w+)[^\n]* primary key)"
    of_table = re.search(rf"create table {SCHEMA}\.{table} \([^;]*?{key}", every)
    if of_table is None:
        return ""
    columns = of_table[1] or of_table[2]
    return in_schema(f"alter table {SCHEMA}.{table} add primary key ({columns});", schema)


@functools.cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """Load every migration as (number, name, text), in their order."""
    found = sorted(
        (file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in (_folder / "migrations").iterdir()
        if file.name.endswith(".sql")
    )
    return tuple((int(name[:4]), name, text) for name, text in found)


def locks_of(migration: str) -> dict[str, str]:
    """Tell which locks a migration takes that readers or writers wait for, by the table's name."""
    return _locks().get(migration, {})


@functools.cache
def _locks() -> dict[str, dict[str, str]]:
    text = (_folder / "locks.json").read_text("utf-8")
    found: dict[str, dict[str, str]] = orjson.loads(text)
    return found


def in_schema(text: str, schema: str) -> str:
    """Put another schema in the place of the one that the files name.

    `schema` has been through the settings' check: lower-case letters, digits and underscores. It
    is quoted, since it might be a word of SQL.
    """
    if schema == SCHEMA:
        return text
    return re.sub(
        rf"\b{SCHEMA}(?=\.)|(?<=schema ){SCHEMA}\b|(?<=exists ){SCHEMA}\b", f'"{schema}"', text
    )
