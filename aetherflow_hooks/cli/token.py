"""token: what opens the API and the dashboard."""

from datetime import datetime

import click

from aetherflow_hooks.cli.session import (
    MOMENT,
    as_json,
    connected,
    print_json,
    print_rows,
    utc,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.tokens import Scope, add_token, list_tokens, revoke_token

SHORT = ("id", "name", "scope", "tenant", "state", "expires_at", "last_used_at")


@click.group()
def token() -> None:
    """Tokens: what opens the API and the dashboard."""


@token.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice([str(scope) for scope in Scope]),
    default=str(Scope.READ),
    show_default=True,
    help="read looks, write changes too, admin decides over tokens too.",
)
@click.option("--tenant", help="Only what is of this tenant is there for it.")
@click.option("--expires-at", type=MOMENT, help="It opens nothing from this time on, UTC.")
@as_json
@connected
def add(
    settings: Settings,
    name: str,
    scope: str,
    tenant: str | None,
    expires_at: datetime | None,
    as_json: bool,
) -> None:
    """Make a token for somebody, and print it: this once, for it is kept nowhere."""
    made = with_database(
        settings,
        lambda db, _: add_token(db, name, Scope(scope), tenant=tenant, expires_at=utc(expires_at)),
    )
    if as_json:
        print_json(made)
    else:
        click.echo(made["token"])


@token.command("list")
@as_json
@connected
def list_(settings: Settings, as_json: bool) -> None:
    """List tokens, without what opens anything."""
    print_rows(with_database(settings, lambda db, _: list_tokens(db)), SHORT, as_json=as_json)


@token.command()
@click.argument("token_id", metavar="ID")
@connected
def revoke(settings: Settings, token_id: str) -> None:
    """Take a token back: it opens nothing from now on."""
    with_database(settings, lambda db, _: revoke_token(db, token_id))
    click.echo(f"{token_id} revoked")
