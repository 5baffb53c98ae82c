"""Pages: some rows of many, and where to go on."""

from typing import Any, NamedTuple

ROWS_DEFAULT = 50
ROWS_MAX = 1_000


class Page(NamedTuple):
    """Some rows of many."""

    rows: list[dict[str, Any]]
    before: str | None  # where to go on; None: there is nothing more
