"""What all commands share: where the database is, and how rows are printed."""

import asyncio
import functools
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
import tabulate

from aetherflow_hooks.config import Settings, load
from aetherflow_hooks.db import Database, check_schema, migrate
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.pages import ROWS_DEFAULT, ROWS_MAX, Page
from aetherflow_hooks.rules.texts import visible
from aetherflow_hooks.watch import log

Command = Callable[..., Any]
READ_ANEW = "aetherflow_hooks.read_anew"  # of a command's context: what reads its settings again


def connected(command: Command) -> Command:
    """Give a command `--dsn` and `--config`, which reach it as `settings`."""

    @click.option("--dsn", help="Which Postgres; the embedded one where nothing names any.")
    @click.option(
        "--config",
        "file",
        type=click.Path(path_type=Path, dir_okay=False),
        help="A settings file; `config show` tells what may stand in it.",
    )
    @functools.wraps(command)
    def wrapper(*args: Any, dsn: str | None, file: Path | None, **kwargs: Any) -> Any:
        def read() -> Settings:
            return load(file, given={"database": {"dsn": dsn}} if dsn else None)

        settings = read()
        log.set_up(settings.log.level, settings.log.form)
        click.get_current_context().meta[READ_ANEW] = read
        return command(*args, settings=settings, **kwargs)

    return wrapper


as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
limit_option = click.option(
    "--limit",
    type=click.IntRange(1, ROWS_MAX),
    default=ROWS_DEFAULT,
    show_default=True,
    help="At most so many.",
)


MOMENT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])


def utc(moment: datetime | None) -> datetime | None:
    """Take a moment that was written without a zone as UTC."""
    return moment and moment.replace(tzinfo=UTC)


@asynccontextmanager
async def reachable(settings: Settings) -> AsyncIterator[Settings]:
    """Give settings that name a Postgres, with the embedded one running where they named none.

    The embedded one is always migrated, since nobody else is there to do it.
    """
    if settings.database.dsn:
        yield settings
        return
    async with EmbeddedPostgres() as server:
        settings = settings.with_dsn(server.dsn())
        log.log.debug(log.LogEvent.EMBEDDED_STARTED, dsn=server.dsn())
        await migrate(settings)
        yield settings


@asynccontextmanager
async def database_of(settings: Settings) -> AsyncIterator[tuple[Database, Settings]]:
    """Open a database that fits this program."""
    async with reachable(settings) as named:
        await check_schema(named.database)
        async with Database(named.database) as database:
            yield database.acting(f"cli:{_user()}"), named


def _user() -> str:
    """Name whoever runs the command, as the machine knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # an account without a name, as in a container
        return str(os.getuid())


def with_database(settings: Settings, work: Callable[[Database, Settings], Awaitable[Any]]) -> Any:
    """Run `work` on the database of the settings, to its end."""

    async def run() -> Any:
        async with database_of(settings) as (database, named):
            return await work(database, named)

    return asyncio.run(run())


def standard_input() -> str:
    """Give what came on stdin, a text.

    Raises:
        InputRefused: it is not UTF-8.
    """
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise InputRefused(f"what came on stdin is not UTF-8: {error}") from None


def from_file(what: str, file: Path) -> str:
    """Give the text of a file.

    Raises:
        InputRefused: it cannot be read, or is not UTF-8; the message begins with `what`.
    """
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputRefused(f"{what} cannot be read from {str(file)!r}: {error}") from None


def print_rows(rows: Sequence[dict[str, Any]], columns: Sequence[str], *, as_json: bool) -> None:
    """Print rows: all they hold as JSON, or some columns as a table."""
    if as_json:
        print_json(rows)
        return
    table = [[plain(row[column]) for column in columns] for row in rows]
    click.echo(tabulate.tabulate(table, headers=columns, disable_numparse=True))


def print_page(page: Page, columns: Sequence[str], *, as_json: bool) -> None:
    """Print a page's rows, and on stderr how to go on."""
    print_rows(page.rows, columns, as_json=as_json)
    if page.before is not None:
        click.echo(f"There may be more: --before {page.before}", err=True)


def print_fields(found: Mapping[str, Any]) -> None:
    """Print one thing, a line for each of its fields."""
    width = max(len(name) for name in found) + 2
    for name, value in found.items():
        click.echo(f"{name:<{width}}{plain(value)}")


def print_json(value: Any) -> None:
    """Print a value as JSON, indented, every character escaped that a terminal might obey."""
    text = orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode()
    click.echo(
        "".join(
            letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1]
            for letter in text
        )
    )


def plain(value: Any) -> str:
    """Make a value fit for a terminal: no control character of it gets through."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value)
    return visible(json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value))
