"""The statements: one file each, with a head that says what it takes and gives."""

import functools
import re
from importlib.resources import files

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


def again_of(name: str) -> str:
    """Name the form of a statement that leaves alone what is there already."""
    return f"{name}/again"


@functools.cache
def migrations() -> tuple[tuple[int, str, str], ...]:
    """Load every migration as (number, name, text), in their order."""
    found = sorted(
        (file.name.removesuffix(".sql"), file.read_text(encoding="utf-8"))
        for file in (_folder / "migrations").iterdir()
        if file.name.endswith(".sql")
    )
    return tuple((int(name[:4]), name, text) for name, text in found)


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
