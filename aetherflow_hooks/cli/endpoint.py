"""endpoint: the URLs that want events."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from aetherflow_hooks.cli import given as written
from aetherflow_hooks.cli.session import (
    as_json,
    connected,
    from_file,
    limit_option,
    plain,
    print_json,
    print_page,
    with_database,
)
from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage import endpoints, secrets
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.retry import PRESETS

POLLED = "(polled)"  # in place of a URL, in a table
SHORT = ("id", "state", "events", "channels", "tenant", "url")

own_secret = click.option(
    "--secret", help="A secret of your own, in place of a new one; - reads it from stdin."
)
overlap = click.option(
    "--overlap",
    type=float,
    default=secrets.OVERLAP_SECONDS_DEFAULT,
    show_default=True,
    help="Seconds for which the old secret signs along.",
)


COMMON = (  # options of `add` and `update` that need no reading, by the names of what they set
    click.option("--description", help="For people."),
    click.option("--rate", "rate_per_second", type=float, help="POSTs per second."),
    click.option("--burst", type=int, help="POSTs at once after a rest; 1 by default."),
    click.option("--max-in-flight", type=int, help="POSTs under way at once."),
    click.option("--timeout", "timeout_seconds", type=float, help="Seconds for a whole attempt."),
    click.option(
        "--ordering",
        type=click.Choice(endpoints.ORDERINGS),
        help="Send the events of an ordering key one after the other; when one is given up, skip"
        " it, or block the key until it is retried or cancelled.",
    ),
)
RESETS = {
    "rate": "rate_per_second",
    "max-in-flight": "max_in_flight",
    "timeout": "timeout_seconds",
    "retries": "retry_schedule_seconds",
    "filter": "filter",
    "channels": "channels",
    "payload-version": "payload_version",
    "label": "labels",
    "metadata": "metadata",
}
# What is neither set nor by a setting.
EMPTY: dict[str, Any] = {"channels": (), "labels": (), "metadata": {}}
BY_SETTING = ("max_in_flight", "timeout_seconds", "retry_schedule_seconds")
retries_option = click.option(
    "--retries",
    help=f"The pause before each retry in seconds: 10,60,600; or one of {', '.join(PRESETS)}.",
)
header_option = click.option(
    "--header",
    multiple=True,
    help="A header of its own: 'X-Team=payments', or 'Authorization=@FILE' to read its value.",
)


NOTES = (
    click.option("--filter", help="Only events whose data fulfils it: '$.amount > 100'."),
    click.option(
        "--channels",
        callback=lambda _context, _option, text: written.channels(text),
        help="Only events on one of these channels, parted by commas: eu,us.",
    ),
    click.option(
        "--traced/--not-traced", default=None, help="Send traceparent with each request, or do not."
    ),
    click.option("--payload-version", help="Send data as it was up to this version: 2024-06-01."),
    click.option(
        "--label", "labels", multiple=True, help="A word to find it by; of several, each."
    ),
    click.option("--metadata", help="A JSON object of your own: strings and numbers; never sent."),
)


def common_options(command: Any) -> Any:
    """Give a command those options."""
    for option in reversed(COMMON + NOTES):
        command = option(command)
    return command


@click.group()
def endpoint() -> None:
    """Endpoints: URLs that want events."""


@endpoint.command()
@click.argument("url", metavar="[URL]", default="")
@click.option(
    "--poll", "polled", is_flag=True, help="It has no URL, and asks for its events by the API."
)
@click.option("--events", default="*", help="Patterns, parted by commas: user.*,billing.updated.")
@click.option("--tenant", default="", help="The owner; it gets events of the same tenant only.")
@own_secret
@click.option("--ed25519", is_flag=True, help="Sign with a pair of keys: print the public one.")
@header_option
@click.option(
    "--certificate",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A PEM file: a certificate that we show to it (mutual TLS), with its private key.",
)
@retries_option
@common_options
@as_json
@connected
def add(
    settings: Settings,
    as_json: bool,
    url: str,
    polled: bool,
    tenant: str,
    events: str,
    retries: str | None,
    secret: str | None,
    ed25519: bool,
    header: Sequence[str],
    certificate: Path | None,
    metadata: str | None,
    **given: Any,
) -> None:
    """Register URL, or one that is polled; print its id and, this once, its secret.

    What stands in a command can be read by others on this machine: give a secret by stdin, and the
    value of a header by a file.
    """
    new = endpoints.NewEndpoint(
        url=url,
        polled=polled,
        tenant=tenant,
        secret=written.own(secret),
        ed25519=ed25519,
        events=written.patterns(events),
        retry_schedule_seconds=written.pauses(retries),
        headers=written.headers(header),
        certificate=None if certificate is None else from_file("the certificate", certificate),
        metadata=written.metadata(metadata or "{}"),
        **{name: value for name, value in given.items() if value is not None},
    )

    async def work(database: Database, named: Settings) -> dict[str, Any]:
        return await endpoints.add_endpoint(database, new, settings=named)

    added = with_database(settings, work)
    if as_json:
        print_json(added)
    else:
        click.echo(f"id      {added['id']}")
        _print_secret(added["secret"], added["public_keys"][0] if added["public_keys"] else None)
    _warn_of_plain(settings)


@endpoint.command("list")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--label", multiple=True, help="Only those with it; of several, with all of them.")
@click.option("--before", metavar="PLACE", help="Go on where a page has ended.")
@limit_option
@as_json
@connected
def list_(
    settings: Settings,
    tenant: str | None,
    label: Sequence[str],
    before: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List endpoints, in the order of their making."""
    page = with_database(
        settings,
        lambda db, _: endpoints.list_endpoints(
            db, tenant=tenant, labels=label, before=before, rows_max=limit
        ),
    )
    if not as_json:
        rows = [{**row, "url": POLLED if row["polled"] else row["url"]} for row in page.rows]
        page = page._replace(rows=rows)
    print_page(page, SHORT, as_json=as_json)


@endpoint.command()
@click.argument("endpoint_id", metavar="ID")
@as_json
@connected
def show(settings: Settings, endpoint_id: str, as_json: bool) -> None:
    """Print all that is known of an endpoint, but for its secret."""
    found = with_database(settings, lambda db, _: endpoints.show_endpoint(db, endpoint_id))
    _print_one(found, as_json=as_json)


@endpoint.command()
@click.argument("endpoint_id", metavar="ID")
@click.option("--url", help="Where to POST.")
@click.option("--events", help="Patterns, in place of those before: user.*,billing.updated.")
@header_option
@click.option("--remove-header", multiple=True, metavar="NAME", help="Take a header away.")
@retries_option
@common_options
@click.option(
    "--reset",
    multiple=True,
    type=click.Choice(list(RESETS)),
    help="Go by the setting again, or by none.",
)
@as_json
@connected
def update(
    settings: Settings,
    endpoint_id: str,
    events: str | None,
    header: Sequence[str],
    remove_header: Sequence[str],
    retries: str | None,
    reset: Sequence[str],
    metadata: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Change an endpoint; what is not named stays as it is."""
    change = {name: value for name, value in given.items() if value not in (None, ())}
    if events is not None:
        change["events"] = written.patterns(events)
    if header or remove_header:
        change["headers"] = written.headers(header) | dict.fromkeys(remove_header)
    if retries is not None:
        change["retry_schedule_seconds"] = written.pauses(retries)
    if metadata is not None:
        change["metadata"] = written.metadata(metadata)
    for name in reset:
        if RESETS[name] in change:
            raise InputRefused(f"--{name} is given and reset at once")
        change[RESETS[name]] = EMPTY.get(RESETS[name])
    if not change:
        raise InputRefused("nothing is to be changed: see --help for what can be")

    async def work(database: Database, named: Settings) -> dict[str, Any]:
        return await endpoints.change_endpoint(
            database, endpoint_id, cast("endpoints.EndpointChange", change), settings=named
        )

    _print_one(with_database(settings, work), as_json=as_json)


@endpoint.command()
@click.argument("endpoint_id", metavar="ID")
@connected
def delete(settings: Settings, endpoint_id: str) -> None:
    """Delete an endpoint; nothing more is sent to it."""
    with_database(settings, lambda db, _: endpoints.delete_endpoint(db, endpoint_id))
    click.echo(f"{endpoint_id} deleted")


@endpoint.command("rotate-secret")
@click.argument("endpoint_id", metavar="ID")
@own_secret
@click.option(
    "--ed25519/--no-ed25519",
    default=None,
    help="Sign with a pair of keys, or with a shared secret; else as before.",
)
@click.option(
    "--wait",
    is_flag=True,
    help="Leave X-AetherFlow-Signature to the old secret until `promote-secret`.",
)
@overlap
@as_json
@connected
def rotate_secret(
    settings: Settings,
    endpoint_id: str,
    secret: str | None,
    ed25519: bool | None,
    wait: bool,
    overlap: float,
    as_json: bool,
) -> None:
    """Give an endpoint a new secret, and print it this once."""
    own = written.own(secret)
    rotated = with_database(
        settings,
        lambda db, _: secrets.rotate_secret(
            db,
            endpoint_id,
            keyring=settings.keyring(),
            secret=own,
            ed25519=ed25519,
            leads=not wait,
            overlap_seconds=overlap,
        ),
    )
    _warn_of_plain(settings)
    if as_json:
        print_json(rotated)
    else:
        _print_secret(rotated["secret"], rotated["public_key"])


@endpoint.command("set-certificate")
@click.argument("endpoint_id", metavar="ID")
@click.argument(
    "pem_file", metavar="[FILE]", required=False, type=click.Path(path_type=Path, dir_okay=False)
)
@connected
def set_certificate(settings: Settings, endpoint_id: str, pem_file: Path | None) -> None:
    """Show an endpoint the certificate of a PEM FILE from now on; without one, none."""
    pem = None if pem_file is None else from_file("the certificate", pem_file)
    with_database(
        settings,
        lambda db, _: secrets.set_certificate(db, endpoint_id, pem, keyring=settings.keyring()),
    )
    click.echo(f"{endpoint_id} is shown {'no certificate' if pem is None else 'its certificate'}")


@endpoint.command("promote-secret")
@click.argument("endpoint_id", metavar="ID")
@overlap
@connected
def promote_secret(settings: Settings, endpoint_id: str, overlap: float) -> None:
    """Make X-AetherFlow-Signature with the secret that waits for it."""
    with_database(
        settings,
        lambda db, _: secrets.promote_secret(db, endpoint_id, overlap_seconds=overlap),
    )
    click.echo(f"{endpoint_id} signs with its new secret")


def _state_command(name: str, state: EndpointState, text: str) -> None:
    @endpoint.command(name, help=text)
    @click.argument("endpoint_id", metavar="ID")
    @connected
    def command(settings: Settings, endpoint_id: str) -> None:
        with_database(settings, lambda db, _: endpoints.set_endpoint_state(db, endpoint_id, state))
        click.echo(f"{endpoint_id} {state}")


_state_command("pause", EndpointState.PAUSED, "Let events wait until `resume`.")
_state_command("resume", EndpointState.ACTIVE, "Send what waits, and what comes.")
_state_command("disable", EndpointState.DISABLED, "Take no events; what waits stays.")
_state_command("enable", EndpointState.ACTIVE, "Take events again.")


def _print_one(found: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        goes_by_setting = value is None and name in BY_SETTING
        click.echo(f"{name:<24}{'(the setting)' if goes_by_setting else plain(value)}")


def _print_secret(secret: str | None, public_key: str | None) -> None:
    if secret is not None:
        click.echo(f"secret  {secret}")
        click.echo("Keep the secret: it is not shown again.", err=True)
    if public_key is not None:
        click.echo(f"public  {public_key}")


def _warn_of_plain(settings: Settings) -> None:
    if settings.profile == "production" and settings.keyring().first is None:
        click.echo(
            "The secret is stored as it is, since there are no keys: see `aetherflow-hooks keys`.",
            err=True,
        )
