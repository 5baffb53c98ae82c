"""event: what was emitted, and what became of it."""

from datetime import datetime

import click

from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    limit_option,
    print_fields,
    print_json,
    print_page,
    print_rows,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.events import (
    cancel_event,
    expunge_event,
    list_events,
    show_event,
)

SHORT = ("id", "type", "tenant", "channels", "data_bytes", "emitted_at")
DELIVERY_SHORT = ("id", "state", "attempts", "due_at", "last_status", "last_error")


@click.group()
def event() -> None:
    """Events: what was emitted."""


@event.command("list")
@click.option("--type", "pattern", help="Only these: user.joined, or user.*")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--channel", help="Only those on this channel.")
@click.option("--since", type=MOMENT, help="Emitted at this time, UTC, or later.")
@click.option("--until", type=MOMENT, help="Emitted earlier.")
@click.option("--before", metavar="ID", help="Go on behind this event.")
@limit_option
@as_json
@connected
def list_(
    settings: Settings,
    pattern: str | None,
    tenant: str | None,
    channel: str | None,
    since: datetime | None,
    until: datetime | None,
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List events, the newest first."""
    page = with_database(
        settings,
        lambda db, _: list_events(
            db,
            before=before,
            since=utc(since),
            until=utc(until),
            tenant=tenant,
            pattern=pattern,
            channel=channel,
            rows_max=limit,
        ),
    )
    print_page(page, SHORT, as_json=as_json)


@event.command()
@click.argument("event_id", metavar="ID")
@click.option("--after", metavar="ID", help="Tell of the endpoints behind this one.")
@as_json
@connected
def show(settings: Settings, event_id: str, after: str | None, as_json: bool) -> None:
    """Print an event with its data, and what became of it at each endpoint."""
    found = with_database(settings, lambda db, _: show_event(db, event_id, after=after))
    if as_json:
        print_json(found)
        return
    deliveries, more = found.pop("deliveries"), found.pop("after")
    print_fields(found)
    click.echo()
    print_rows(deliveries, DELIVERY_SHORT, as_json=False)
    if more is not None:
        click.echo(f"There may be more: --after {more}", err=True)


@event.command()
@click.argument("event_id", metavar="ID")
@connected
def cancel(settings: Settings, event_id: str) -> None:
    """Let an event go to nobody that is scheduled for later."""
    with_database(settings, lambda db, _: cancel_event(db, event_id))
    click.echo(f"{event_id} cancelled")


@event.command()
@click.argument("event_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def expunge(settings: Settings, event_id: str, yes: bool) -> None:
    """Delete the data of an event, and the answers to it, for good; that it happened stays."""
    if not yes:
        click.confirm(f"Delete the data of {event_id} for good?", abort=True, err=True)
    with_database(settings, lambda db, _: expunge_event(db, event_id))
    click.echo(f"{event_id} expunged")
