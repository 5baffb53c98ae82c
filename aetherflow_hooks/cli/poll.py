"""endpoint poll: what an endpoint that is polled would be given, to try it out."""

import click

from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    limit_option,
    print_json,
    print_rows,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import NotNow
from aetherflow_hooks.flow.post import USER_AGENT
from aetherflow_hooks.flow.tally import Tally
from aetherflow_hooks.manage import polls
from aetherflow_hooks.manage.endpoints import show_endpoint
from aetherflow_hooks.manage.restore import is_held

COLUMNS = ("id", "type", "attempt", "body")


@click.command()
@click.argument("endpoint_id", metavar="ID")
@limit_option
@click.option(
    "--lease-seconds",
    type=click.IntRange(*polls.LEASE_SECONDS),
    default=polls.LEASE_SECONDS_DEFAULT,
    show_default=True,
    help="What is not acknowledged within is given again.",
)
@click.option(
    "--ack", "cursor", metavar="CURSOR", help="Acknowledge what was given with it, first."
)
@as_json
@connected
def poll(
    settings: Settings,
    endpoint_id: str,
    limit: int,
    lease_seconds: int,
    cursor: str | None,
    as_json: bool,
) -> None:
    """Print what waits for an endpoint that is polled, and how to acknowledge it.

    It counts as given: nobody else is given it before its lease has ended. Programs poll by the
    API.
    """

    async def work(database: Database, named: Settings) -> polls.Polled:
        if await is_held(database, guards=named.engine.restore_guard):
            raise NotNow(polls.HELD)
        shown = polls.polled(await show_endpoint(database, endpoint_id))
        tally = Tally(database)
        try:
            if cursor is not None:
                await polls.acknowledge(database, shown, cursor, on_recorded=tally.saw)
            return await polls.give(
                database,
                shown,
                settings=named,
                user_agent=USER_AGENT,
                deliveries_max=limit,
                lease_seconds=lease_seconds,
                on_recorded=tally.saw,
            )
        finally:
            await tally.write_all()

    told: polls.Polled = with_database(settings, work)
    if as_json:
        print_json(told._asdict())
        return
    print_rows(told.items, COLUMNS, as_json=False)
    if told.cursor is not None:
        click.echo(f"Acknowledge them: --ack {told.cursor}", err=True)
