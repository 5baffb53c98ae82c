"""audit: what was changed by hand."""

import click

from aetherflow_hooks.cli.session import as_json, connected, limit_option, print_page, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.audit import list_changes

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
    print_page(page, SHORT, as_json=as_json)
