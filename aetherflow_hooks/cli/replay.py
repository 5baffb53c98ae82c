"""replay: send many again."""

import asyncio
import sys
from datetime import datetime
from typing import Any

import click

from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    limit_option,
    print_fields,
    print_json,
    print_page,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.manage import replays
from aetherflow_hooks.manage.replays import NewReplay

SHORT = ("id", "state", "made", "endpoint_id", "pattern", "since", "until", "created_at")
LOOK_SECONDS = 0.5


@click.group(invoke_without_command=True)
@click.option("--endpoint", "endpoint_id", metavar="ID", help="Only to this endpoint.")
@click.option("--tenant", help="Only to endpoints of this tenant.")
@click.option("--type", "pattern", help="Only events of these types: user.joined, or user.*")
@click.option("--since", type=MOMENT, help="Only events emitted at this time, UTC, or later.")
@click.option("--until", type=MOMENT, help="Only events emitted earlier.")
@click.option("--only-failed", is_flag=True, help="Only what was given up.")
@click.option("--rate", "rate_per_second", type=float, help="So many per second at the most.")
@click.option("--dry-run", is_flag=True, help="Tell how many it would be, and send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--follow", is_flag=True, help="Show how it gets on, until it is done.")
@as_json
@connected
def replay(
    settings: Settings,
    since: datetime | None,
    until: datetime | None,
    dry_run: bool,
    yes: bool,
    follow: bool,
    as_json: bool,
    **filters: Any,
) -> None:
    """Send many again: what failed, or all that an endpoint wants of some time.

    An endpoint gets events too that are older than itself. Without a command after it this starts
    a replay, which engines carry out, over restarts too.
    """
    if click.get_current_context().invoked_subcommand is not None:
        return
    new = NewReplay(since=utc(since), until=utc(until), **filters)

    async def run(database: Database, _: Settings) -> None:
        counted = await replays.count_replay(database, new)
        if dry_run:
            print_json(counted) if as_json else click.echo(_told(counted))
            return
        if not yes:
            click.confirm(f"{_told(counted)}. Send them?", abort=True, err=True)
        made = await replays.start_replay(database, new)
        if follow:
            made = await _follow(database, made["id"], counted["deliveries"])
        if as_json:
            print_json(made)
        else:
            click.echo(made["id"])

    with_database(settings, run)


@replay.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--before", metavar="ID", help="Go on behind this one.")
@limit_option
@as_json
@connected
def list_(
    settings: Settings, tenant: str | None, before: str | None, limit: int, as_json: bool
) -> None:
    """List replays, the newest first."""
    page = with_database(
        settings,
        lambda db, _: replays.list_replays(db, tenant=tenant, before=before, rows_max=limit),
    )
    print_page(page, SHORT, as_json=as_json)


@replay.command()
@click.argument("replay_id", metavar="ID")
@as_json
@connected
def show(settings: Settings, replay_id: str, as_json: bool) -> None:
    """Print a replay: what was asked for, and how many deliveries it has made."""
    found = with_database(settings, lambda db, _: replays.show_replay(db, replay_id))
    if as_json:
        print_json(found)
    else:
        print_fields(found)


@replay.command()
@click.argument("replay_id", metavar="ID")
@connected
def cancel(settings: Settings, replay_id: str) -> None:
    """Make no more of a replay; what it has made goes out."""
    with_database(settings, lambda db, _: replays.cancel_replay(db, replay_id))
    click.echo(f"{replay_id} cancelled")


def _told(counted: dict[str, Any]) -> str:
    number = f"{counted['deliveries']:,}" + ("" if counted["is_whole"] else " or more")
    return f"{number} deliveries, at {counted['endpoints']:,} endpoints"


async def _follow(database: Database, replay_id: str, expected: int) -> dict[str, Any]:
    """Show a bar of what has been made, until no more is."""
    with click.progressbar(
        length=max(expected, 1), label=replay_id, show_pos=True, file=sys.stderr
    ) as bar:
        shown = 0
        while True:
            found = await replays.show_replay(database, replay_id)
            bar.update(found["made"] - shown)
            shown = found["made"]
            if found["state"] != "running":
                return found
            await asyncio.sleep(LOOK_SECONDS)
