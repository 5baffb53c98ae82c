"""restore: a database that was brought back from a backup."""

import click

from aetherflow_hooks.cli.session import as_json, connected, print_json, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.restore import (
    COUNTED_MAX,
    accept_restore,
    call_restored,
    what_waits,
)


@click.group()
def restore() -> None:
    """After a restore: look at what would be sent again, and let engines go on."""


@restore.command()
@as_json
@connected
def show(settings: Settings, as_json: bool) -> None:
    """Tell whether engines hold back, and what they would send."""
    found = with_database(settings, lambda db, _: what_waits(db))
    if as_json:
        print_json(found)
        return
    if found["is_restored"]:
        click.echo("this database was restored: engines send nothing until `restore accept`")
    else:
        click.echo("engines work on this database")
    click.echo(
        f"waiting: {_count(found['events'])} events, {_count(found['deliveries'])} deliveries"
    )
    click.echo(
        f"the newest event here was emitted at {found['last_event_at'] or 'no time: none is'}"
    )


@restore.command()
@click.option(
    "--cancel-waiting", is_flag=True, help="Give up all that waits, in place of sending it."
)
@connected
def accept(settings: Settings, cancel_waiting: bool) -> None:
    """Let engines work on this database, and send what waits."""
    told = with_database(settings, lambda db, _: accept_restore(db, cancel=cancel_waiting))
    if cancel_waiting:
        click.echo(f"given up: {told['events']} events and {told['deliveries']} deliveries")
    click.echo("engines go on within 2 s")


@restore.command()
@connected
def hold(settings: Settings) -> None:
    """Let engines that start from now on hold back, as on a database that was restored."""
    with_database(settings, lambda db, _: call_restored(db))
    click.echo("engines that start now send nothing until `restore accept`")


def _count(number: int) -> str:
    return f"{number}" if number < COUNTED_MAX else f"{number} or more"
