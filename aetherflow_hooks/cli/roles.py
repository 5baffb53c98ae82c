"""roles: roles of the database that can do one thing each."""

import click

from aetherflow_hooks.cli.session import as_json, connected, print_json, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.manage.rights import make_roles


@click.command()
@click.option(
    "--row-security",
    is_flag=True,
    help="Keep tenants' rows apart for those who read; without it, no longer.",
)
@as_json
@connected
def roles(settings: Settings, row_security: bool, as_json: bool) -> None:
    """Make roles to grant: one can emit and nothing else, one deliver, one read.

    Run it as the owner of the schema, who may make roles, and again after an upgrade.
    """
    names = with_database(settings, lambda db, _: make_roles(db, row_security=row_security))
    if as_json:
        print_json(names)
        return
    for name in names:
        click.echo(name)
