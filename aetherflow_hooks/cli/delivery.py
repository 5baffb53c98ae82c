"""delivery: what is under way, done or dead."""

import click

from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    limit_option,
    print_fields,
    print_json,
    print_page,
    print_rows,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.deliveries import (
    cancel_delivery,
    list_deliveries,
    retry_delivery,
    show_delivery,
)
from aetherflow_hooks.rules.states import State

ATTEMPT_SHORT = (
    "attempt",
    "trigger",
    "started_at",
    "duration_ms",
    "verdict",
    "status",
    "error",
    "response",
)


@click.group()
def delivery() -> None:
    """Deliveries: one event for one endpoint each."""


@delivery.command("list")
@click.option("--state", type=click.Choice([str(state) for state in State]), help="Only these.")
@click.option("--endpoint", "endpoint_id", help="Only this endpoint's.")
@click.option("--tenant", help="Only those of this tenant's endpoints.")
@click.option("--before", metavar="PLACE", help="Go on where a page has ended.")
@limit_option
@as_json
@connected
def list_(
    settings: Settings,
    state: str | None,
    endpoint_id: str | None,
    tenant: str | None,
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List what is undelivered, by endpoint; or what is dead or delivered, the last first."""
    page = with_database(
        settings,
        lambda db, _: list_deliveries(
            db,
            state=State(state) if state else None,
            endpoint_id=endpoint_id,
            tenant=tenant,
            before=before,
            rows_max=limit,
        ),
    )
    print_page(page, ("id", "state", "attempts", "due_at", "ended_at", "reason"), as_json=as_json)


@delivery.command()
@click.argument("delivery_id", metavar="ID")
@as_json
@connected
def show(settings: Settings, delivery_id: str, as_json: bool) -> None:
    """Print a delivery with what was sent, and each attempt with the start of a failing answer."""
    found = with_database(settings, lambda db, _: show_delivery(db, delivery_id))
    for attempt in found["history"]:
        response = attempt["response"]
        attempt["response"] = response and response.decode("utf-8", "backslashreplace")
    if as_json:
        print_json(found)
        return
    history, request = found.pop("history"), found.pop("request")
    if request is not None:
        del found["data"]  # it stands in the body
    print_fields(found)
    if request is not None:
        click.echo()
        print_fields({**request["headers"], "body": request["body"]})
    click.echo()
    print_rows(history, ATTEMPT_SHORT, as_json=False)


@delivery.command()
@click.argument("delivery_id", metavar="ID")
@connected
def retry(settings: Settings, delivery_id: str) -> None:
    """Send a delivery as soon as its turn comes, once more where it was delivered."""
    with_database(settings, lambda db, _: retry_delivery(db, delivery_id))
    click.echo(f"{delivery_id} is due")


@delivery.command()
@click.argument("delivery_id", metavar="ID")
@connected
def cancel(settings: Settings, delivery_id: str) -> None:
    """Give up a delivery that waits or has halted; what waits behind it goes on."""
    with_database(settings, lambda db, _: cancel_delivery(db, delivery_id))
    click.echo(f"{delivery_id} cancelled")
