"""listen: live events, sent to a program on this machine; no tunnel, and nothing is changed."""

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from datetime import UTC
from typing import Any

import click
import orjson

from aetherflow_hooks.cli.given import patterns
from aetherflow_hooks.cli.run import stop_on_signals
from aetherflow_hooks.cli.session import connected, database_of, plain
from aetherflow_hooks.config import Settings
from aetherflow_hooks.dev.listen import Feed, FromApi, FromDatabase, Program, Relay, Sent, Source
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.model import Answered, Prevented
from aetherflow_hooks.rules.signing import NEW_KEY_BYTES, check_secret, new_secret
from aetherflow_hooks.rules.states import error_of
from aetherflow_hooks.rules.topics import is_pattern

REPLAY_MAX = 1_000
LINE = "{:>5}  {:<8}  {:<30}  {:<28}  {}"
HEAD = LINE.format("#", "emitted", "event", "id", "answer")
RESPONSE_CHARACTERS_MAX = 200


@click.command()
@click.option("--forward-to", metavar="URL", help="http://localhost:3000/webhook, or a port.")
@click.option("--events", default="*", show_default=True, help="Only these: user.joined,user.*")
@click.option("--tenant", help="Only this tenant's.")
@click.option("--channel", help="Only those on this channel.")
@click.option(
    "--replay-last",
    type=click.IntRange(0, REPLAY_MAX),
    default=0,
    help="Begin with the last so many of those that were emitted before.",
)
@click.option("--print", "prints", is_flag=True, help="Print each body, and what was answered.")
@click.option("--secret", help="Sign with this one; else with one that is made now.")
@click.option(
    "--token",
    envvar="AETHERFLOW_TOKEN",
    help="Read through the API with it, and not in the database. Better: $AETHERFLOW_TOKEN.",
)
@click.option(
    "--api",
    "api_url",
    metavar="URL",
    envvar="AETHERFLOW_API",
    help="Where the API is, or $AETHERFLOW_API; else where `web` of the settings has it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object a line.")
@connected
def listen(
    settings: Settings,
    forward_to: str | None,
    events: str,
    tenant: str | None,
    channel: str | None,
    replay_last: int,
    prints: bool,
    secret: str | None,
    token: str | None,
    api_url: str | None,
    as_json: bool,
) -> None:
    """Send live events to a program on this machine, signed, and show what it answers.

    An event is sent when it is emitted, one after the other in that order. What is answered is
    shown and nothing is tried again, unless the connection was lost. Who is away, the program or
    the engine, is waited for. On a terminal, a number and Enter sends that event again, and Enter
    alone the last one.
    """
    if forward_to is None and not prints:
        raise click.UsageError("Say where to, with --forward-to URL, or --print what comes.")
    wanted = patterns(events)
    for pattern in wanted:
        if not is_pattern(pattern):
            raise InputRefused(f"{pattern!r} chooses no events: write a type, or user.*")
    signs_with = check_secret(secret) if secret else new_secret(secrets.token_bytes(NEW_KEY_BYTES))
    program = None if forward_to is None else Program(forward_to, signs_with, settings.post)

    async def carry() -> None:
        async with AsyncExitStack() as stack:
            if program is not None:
                await stack.enter_async_context(program)
            source = await stack.enter_async_context(
                _source(settings, token=token, api_url=api_url, tenant=tenant, channel=channel)
            )
            relay = Relay(
                source,
                Feed(source, wanted),
                program,
                on_sent=_shows(as_json=as_json, prints=prints),
                on_note=_note,
            )
            if program is not None:
                _note(f"Events go to {program.url}, signed with {signs_with}")
            stack.enter_context(_keyboard(relay))
            await relay.run(replay_last)

    async def run() -> None:
        stopping = stop_on_signals()
        carrying = asyncio.create_task(carry())
        stops = asyncio.create_task(stopping.wait())
        await asyncio.wait({carrying, stops}, return_when=asyncio.FIRST_COMPLETED)
        stops.cancel()
        carrying.cancel()
        with suppress(asyncio.CancelledError):
            await carrying

    asyncio.run(run())


@asynccontextmanager
async def _source(
    settings: Settings,
    *,
    token: str | None,
    api_url: str | None,
    tenant: str | None,
    channel: str | None,
) -> AsyncIterator[Source]:
    """Open what events are read from: the API where there is a token, else the database."""
    if token is None:
        async with database_of(settings) as (database, _):
            yield FromDatabase(database, tenant=tenant, channel=channel)
        return
    if api_url is None:
        if not settings.web.port:
            raise InputRefused("where the API is has to be told: --api https://hooks.example.com")
        scheme = "https" if settings.web.certificate_file else "http"
        host = f"[{settings.web.host}]" if ":" in settings.web.host else settings.web.host
        api_url = f"{scheme}://{host}:{settings.web.port}"
    async with FromApi(api_url, token, tenant=tenant, channel=channel) as source:
        yield source


def _note(text: str) -> None:
    click.echo(plain(text), err=True)


def _shows(*, as_json: bool, prints: bool) -> Callable[[Sent], None]:
    """Give what prints an event and its answer: a row of a table, or a JSON object a line."""
    if as_json:
        return lambda sent: click.echo(orjson.dumps(_told(sent, prints=prints)))
    head = iter([HEAD])

    def show(sent: Sent) -> None:
        for line in head:
            click.echo(line)
        told = _told(sent, prints=prints)
        at = sent.emitted.emitted_at.astimezone(UTC)
        click.echo(
            plain(
                LINE.format(
                    told["number"], f"{at:%H:%M:%S}", told["type"], told["id"], _answer(told)
                )
            )
        )
        if prints and told["body"] is not None:
            click.echo(f"       {plain(told['body'])}")
        if prints and told["response"]:
            click.echo(f"       -> {plain(told['response'][:RESPONSE_CHARACTERS_MAX])}")

    return show


def _told(sent: Sent, *, prints: bool) -> dict[str, Any]:
    ended = None if sent.tried is None else sent.tried.ended
    answered = ended if isinstance(ended, Answered) else None
    error = None
    if sent.event is None:
        error = "not sent: its data is there no more"
    elif isinstance(ended, Prevented):
        error = ended.reason
    elif ended is not None and answered is None:
        error = error_of(ended)
    told = {
        "number": sent.number,
        "id": sent.emitted.id,
        "type": sent.emitted.type,
        "tenant": sent.emitted.tenant,
        "emitted_at": sent.emitted.emitted_at.isoformat(),
        "attempt": sent.attempt,
        "status": None if answered is None else answered.status,
        "error": error,
        "duration_ms": None if sent.tried is None else round(sent.tried.seconds * 1000),
    }
    if prints:
        told["body"] = None if sent.event is None else sent.event.body.decode()
        told["response"] = (
            None if answered is None else answered.response.decode("utf-8", "backslashreplace")
        )
    return told


def _answer(told: dict[str, Any]) -> str:
    """Say in a few words how it went."""
    if told["error"] is not None or told["duration_ms"] is None:
        return told["error"] or ""
    attempt = f", attempt {told['attempt']}" if told["attempt"] > 1 else ""
    return f"{told['status']} in {told['duration_ms']} ms{attempt}"


@contextmanager
def _keyboard(relay: Relay) -> Iterator[None]:
    """Let whoever sits at a terminal ask for an event to be sent again."""
    if not sys.stdin.isatty():
        yield
        return
    stdin = sys.stdin.fileno()

    def read() -> None:
        with suppress(OSError):  # it is not the terminal of this session
            if os.tcgetpgrp(stdin) != os.getpgrp():
                return  # it runs in the background: who reads there would be stopped
        given = os.read(stdin, 1024)
        if not given:  # Ctrl-D
            loop.remove_reader(stdin)
            return
        text = given.decode("utf-8", "replace").strip()
        if text and not text.isdecimal():
            _note("A number and Enter send that event again; Enter alone, the last one.")
        elif not relay.resend(int(text) if text else None):
            _note("There is no such event to be sent again.")

    loop = asyncio.get_running_loop()
    loop.add_reader(stdin, read)
    try:
        yield
    finally:
        loop.remove_reader(stdin)
