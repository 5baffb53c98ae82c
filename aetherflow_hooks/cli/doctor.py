"""doctor: what is wrong, and what cures it."""

import asyncio
import sys

import click

from aetherflow_hooks.cli.session import as_json, connected, plain, print_json, reachable
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.flow.post import Post
from aetherflow_hooks.manage.doctor import CHECKS, Fault, diagnose
from aetherflow_hooks.rules.addresses import nets_at


@click.command()
@as_json
@connected
def doctor(settings: Settings, as_json: bool) -> None:
    """Look for what is wrong with the database, this machine and the endpoints, and name the cure.

    Nothing is changed, and endpoints are connected to without a request. The exit code is 1 if
    anything was found.
    """
    faults = asyncio.run(_diagnose(settings))
    if as_json:
        print_json([fault._asdict() for fault in faults])
    else:
        _print(faults)
    if faults:
        sys.exit(1)


async def _diagnose(settings: Settings) -> list[Fault]:
    async with reachable(settings) as named:
        post = Post(named.post, named.egress_rules(), named.proxy())
        async with Database(named.database) as database:
            await post.open(nets_at(await database.server_places()))
        try:
            return await diagnose(named, reach=post.reach)
        finally:
            await post.close()


def _print(faults: list[Fault]) -> None:
    for fault in faults:
        weight = "serious" if fault.is_serious else "look at"
        click.echo(f"{weight}  {fault.check}: {plain(fault.found)}")
        click.echo(f"   cure  {plain(fault.cure)}")
    serious = sum(fault.is_serious for fault in faults)
    click.echo(f"{len(CHECKS)} checks; serious: {serious}, to look at: {len(faults) - serious}")
