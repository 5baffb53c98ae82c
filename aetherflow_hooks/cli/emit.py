"""emit: an event from a shell."""

from collections.abc import Sequence
from datetime import datetime

import click

from aetherflow_hooks.cli.session import connected, standard_input, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.events import emit_event


@click.command()
@click.argument("event_type", metavar="TYPE")
@click.argument("data", default="{}", metavar="[JSON or -]")
@click.option("--tenant", default="", help="The owner of the event.")
@click.option("--idempotency-key", help="Emit only if no event of this key is there yet.")
@click.option("--deliver-at", help="Not to be sent before: 2030-01-31T12:00:00Z.")
@click.option("--expires-at", help="Not to be sent after.")
@click.option("--ordering-key", help="Endpoints with an order get those of one key in turn.")
@click.option(
    "--channel", "channels", multiple=True, help="A channel that it is on; of several, each."
)
@click.option("--validate", is_flag=True, help="Only if the data fits the schema of the type.")
@connected
def emit(
    settings: Settings,
    event_type: str,
    data: str,
    tenant: str,
    idempotency_key: str | None,
    deliver_at: str | None,
    expires_at: str | None,
    ordering_key: str | None,
    channels: Sequence[str],
    validate: bool,
) -> None:
    """Emit an event and print its id. Data is a JSON object, or - to read it from stdin."""
    text = standard_input() if data == "-" else data
    times = [_moment(deliver_at), _moment(expires_at)]

    async def work(database: Database, _: Settings) -> str:
        return await emit_event(
            database,
            event_type,
            text,
            tenant=tenant,
            idempotency_key=idempotency_key,
            ordering_key=ordering_key,
            channels=channels,
            validate=validate,
            deliver_at=times[0],
            expires_at=times[1],
        )

    click.echo(with_database(settings, work))


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputRefused(f"{text!r} is not a time such as 2030-01-31T12:00:00Z") from None
    if moment.tzinfo is None:
        raise InputRefused(f"{text!r} has no time zone; a Z at its end stands for UTC")
    return moment
