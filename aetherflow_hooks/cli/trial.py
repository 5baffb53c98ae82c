"""endpoint test: send something now, and see what comes back."""

import sys
from typing import Any

import click

from aetherflow_hooks.cli.session import as_json, connected, plain, print_json, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.flow.post import Post
from aetherflow_hooks.manage.trial import DATA, try_endpoint
from aetherflow_hooks.rules.addresses import nets_at


@click.command("test")
@click.argument("endpoint_id", metavar="ID")
@click.option("--type", "event_type", help="The event's type; else one that the endpoint wants.")
@click.option("--data", default=DATA, show_default=True, help="A JSON object.")
@as_json
@connected
def try_(
    settings: Settings, endpoint_id: str, event_type: str | None, data: str, as_json: bool
) -> None:
    """Send an event to an endpoint now, in any state, and show the request and the answer.

    Nothing of it is stored. The exit code is 1 if the endpoint did not take it.
    """

    async def work(database: Database, named: Settings) -> dict[str, Any]:
        post = Post(named.post, named.egress_rules(), named.proxy())
        await post.open(nets_at(await database.server_places()))
        try:
            return await try_endpoint(
                database,
                endpoint_id,
                settings=named,
                try_out=post.try_out,
                event_type=event_type,
                data=data,
            )
        finally:
            await post.close()

    told = with_database(settings, work)
    told["response"] = told["response"].decode("utf-8", "backslashreplace")
    if as_json:
        print_json(told)
    else:
        _print_trial(told)
    if told["error"] is not None:
        sys.exit(1)


def _print_trial(told: dict[str, Any]) -> None:
    request = told["request"]
    click.echo(f"POST {plain(told['url'])}")
    for name, value in request["headers"].items():
        click.echo(f"{plain(name)}: {plain(value)}")
    click.echo(f"\n{plain(request['body'])}\n")
    answer = told["outcome"] if told["status"] is None else f"answered {told['status']}"
    click.echo(f"{answer} after {told['duration_ms']} ms")
    if told["status"] is None:
        click.echo(plain(told["error"]))
    if told["response"]:
        click.echo()
        for line in told["response"].splitlines():
            click.echo(plain(line))
