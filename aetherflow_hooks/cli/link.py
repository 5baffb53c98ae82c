"""link: the dashboard for one tenant's customers, for a while."""

import click

from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    print_json,
    print_rows,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.sessions import LINK_SECONDS_DEFAULT, add_link, list_links, revoke_link
from aetherflow_hooks.manage.tokens import Scope

SHORT = ("id", "tenant", "scope", "token_id", "created_at", "expires_at")


@click.group()
def link() -> None:
    """Links: the dashboard for one tenant's customers, for a while."""


@link.command()
@click.argument("tenant")
@click.option(
    "--scope",
    type=click.Choice([str(Scope.READ), str(Scope.WRITE)]),
    default=str(Scope.READ),
    show_default=True,
    help="read looks; write changes endpoints and sends again too.",
)
@click.option(
    "--seconds",
    type=float,
    default=LINK_SECONDS_DEFAULT,
    show_default=True,
    help="How long it opens, a minute to a week.",
)
@as_json
@connected
def add(settings: Settings, tenant: str, scope: str, seconds: float, as_json: bool) -> None:
    """Make a link that shows what is of TENANT, and print where it leads: this once."""
    made = with_database(
        settings, lambda db, _: add_link(db, tenant, scope=Scope(scope), seconds=seconds)
    )
    if as_json:
        print_json(made)
    else:
        click.echo(made["path"])
        click.echo(f"Its id is {made['id']}; it opens until {made['expires_at']}.", err=True)


@link.command("list")
@click.option("--tenant", help="Only those of this tenant.")
@as_json
@connected
def list_(settings: Settings, tenant: str | None, as_json: bool) -> None:
    """List links that have not ended, without what opens them."""
    rows = with_database(settings, lambda db, _: list_links(db, tenant=tenant))
    print_rows(rows, SHORT, as_json=as_json)


@link.command()
@click.argument("link_id", metavar="ID")
@connected
def revoke(settings: Settings, link_id: str) -> None:
    """Take a link back: it opens nothing from now on."""
    with_database(settings, lambda db, _: revoke_link(db, link_id))
    click.echo(f"{link_id} revoked")
