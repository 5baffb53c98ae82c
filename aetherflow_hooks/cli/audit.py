"""audit: what was changed by hand."""

from typing import Any

import click

from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    limit_option,
    plain,
    print_page,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.audit import list_changes

CHARACTERS_MAX = 60
SHORT = ("at", "actor", "action", "subject", "before", "after")


@click.command()
@click.option(
    "--of", "subject", metavar="ID", help="Only changes of this endpoint, token or other."
)
@click.option("--before", type=int, metavar="ID", help="Go on behind this change.")
@limit_option
@as_json
@connected
def audit(
    settings: Settings, subject: str | None, before: int | None, limit: int, as_json: bool
) -> None:
    """List what was changed by hand, by whom, and what it was before; the last first."""
    page = with_database(
        settings, lambda db, _: list_changes(db, subject=subject, before=before, rows_max=limit)
    )
    if not as_json:
        page = page._replace(rows=[_shortened(row) for row in page.rows])
    print_page(page, SHORT, as_json=as_json)


def _shortened(row: dict[str, Any]) -> dict[str, Any]:
    """Cut what was different to what fits beside the rest; --json tells all of it."""
    sides = {side: row[side] and plain(row[side]) for side in ("before", "after")}
    return row | {
        side: f"{text[:CHARACTERS_MAX]}…" if text and len(text) > CHARACTERS_MAX else text
        for side, text in sides.items()
    }
