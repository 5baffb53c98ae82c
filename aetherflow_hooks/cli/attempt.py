"""attempt: every POST that was made."""

from datetime import datetime
from typing import Any

import click

from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    limit_option,
    print_page,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.attempts import Chosen, list_attempts
from aetherflow_hooks.rules.states import VERDICT_WORDS

SHORT = (
    *("started_at", "delivery_id", "type", "attempt", "trigger"),
    *("verdict", "status", "duration_ms", "error"),
)


@click.group()
def attempt() -> None:
    """Attempts: one POST of a delivery each."""


@attempt.command("list")
@click.option("--endpoint", "endpoint_id", metavar="ID", help="Only this endpoint's.")
@click.option("--tenant", help="Only those of this tenant's endpoints.")
@click.option("--type", "pattern", help="Only those of these events: user.joined, or user.*")
@click.option("--since", type=MOMENT, help="Begun at this time, UTC, or later.")
@click.option("--until", type=MOMENT, help="Begun earlier.")
@click.option("--only-failed", is_flag=True, help="Only those that did not deliver.")
@click.option(
    "--verdict",
    type=click.Choice([*VERDICT_WORDS.values(), "late"]),
    help="Only those that this followed from.",
)
@click.option("--status", help="Only those that were answered so: 503, or 5xx.")
@click.option("--error", help="Only those whose error has this in it.")
@click.option("--before", metavar="ID", help="Go on behind this one.")
@click.option("--after", metavar="ID", help="Those next to this one, on the way up.")
@limit_option
@as_json
@connected
def list_(
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    before: str | None,
    after: str | None,
    limit: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """List attempts, the newest first."""
    chosen = Chosen(since=utc(since), until=utc(until), **filters)
    page = with_database(
        settings,
        lambda db, _: list_attempts(db, chosen, before=before, after=after, rows_max=limit),
    )
    print_page(page, SHORT, as_json=as_json)
