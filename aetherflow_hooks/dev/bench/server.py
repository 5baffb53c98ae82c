"""Server: a Postgres with its usual durability, and for each turn a database of our own in it.

A given server keeps its settings, and nothing of it is touched: only the databases
`aetherflow_bench_<pid>_<n>` are made and dropped. Ours has a data folder that is thrown away.
Dropping a database ends with a checkpoint, so every turn begins right behind one.
"""

import contextlib
import itertools
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import migrate
from aetherflow_hooks.dev.bench.process import parent_of
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.errors import DatabaseUnavailable

APPLICATION_NAME = "aetherflow-bench"
TOLD = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size", "jit")
PRELOADED = {"shared_preload_libraries": "pg_stat_statements"}
WITHOUT_LIMITS = {"command_timeout": None, "timeout": 30}


@dataclass(slots=True)
class Scratch:
    """A database for one turn."""

    dsn: str
    settings: Settings  # of an engine that works on it
    connection: Any  # the bench's own
    has_statements: bool  # whether the server counts them
    postmaster: int | None  # its process, where that is one of this machine's

    async def connect(self) -> Any:
        """Make one more connection of the bench's; whoever asked closes it."""
        return await connect(self.dsn)


class Server:
    """Use as `async with Server(…) as server:`."""

    def __init__(self, settings: Settings, folder: Path, dsn: str | None) -> None:
        """Use the Postgres of `dsn`, else an embedded one with its data below `folder`."""
        self._settings = settings
        self._dsn = dsn
        self._embedded = None if dsn else EmbeddedPostgres(folder / "pg", settings=PRELOADED)
        self._names = (f"aetherflow_bench_{os.getpid()}_{number}" for number in itertools.count())
        self._stack = AsyncExitStack()
        self._admin: Any = None
        self.postmaster: int | None = None

    @asynccontextmanager
    async def database(self, *, migrated: bool = True) -> AsyncIterator[Scratch]:
        """Make a database, with our schema in it unless said otherwise; drop it at the end."""
        name = next(self._names)
        await self._admin.execute(f'create database "{name}"')
        try:
            dsn = self._named(name)
            settings = self._settings.with_dsn(dsn)
            connection = await connect(dsn)
            try:
                counts = await _count_statements(connection)
                if migrated:
                    await migrate(settings)
                yield Scratch(dsn, settings, connection, counts, self.postmaster)
            finally:
                await connection.close(timeout=5)
        finally:
            await self._admin.execute(f'drop database "{name}" with (force)')

    async def facts(self) -> dict[str, str]:
        """Tell what the figures depend on."""
        facts = {
            "version": (await self._admin.fetchval("show server_version")).split()[0],
            "server": "embedded" if self._embedded else "given",
        }
        for name in TOLD:
            facts[name] = await self._admin.fetchval("select current_setting($1, true)", name)
        return facts

    def _named(self, database: str) -> str:
        if self._embedded is not None:
            return self._embedded.dsn(database)
        assert self._dsn is not None
        return urlunsplit(urlsplit(self._dsn)._replace(path=f"/{database}"))

    async def __aenter__(self) -> Self:
        dsn = self._dsn
        try:
            if self._embedded is not None:
                dsn = (await self._stack.enter_async_context(self._embedded)).dsn()
            assert dsn is not None
            self._admin = await connect(dsn)
            self._stack.push_async_callback(self._admin.close)
            self.postmaster = await self._find_postmaster()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _find_postmaster(self) -> int | None:
        """Find the parent of our backend; None where the server is on another machine."""
        backend, is_local = await self._admin.fetchrow(
            "select pg_backend_pid(), coalesce(inet_server_addr() <<= '127.0.0.0/8', true)"
        )
        found = parent_of(backend) if is_local else None
        # Behind a loopback port there may be a container, whose process ids are not ours.
        return found[0] if found and found[1].startswith("postgres") else None


async def connect(dsn: str) -> Any:
    """Make a connection of the bench's own.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached, or does not let us in.
    """
    try:
        return await asyncpg.connect(
            dsn, server_settings={"application_name": APPLICATION_NAME}, **WITHOUT_LIMITS
        )
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise DatabaseUnavailable(f"Postgres cannot be reached: {error}") from error


async def _count_statements(connection: Any) -> bool:
    """Tell whether statements are counted; the view that tells of them is made here."""
    with contextlib.suppress(asyncpg.PostgresError):  # not there, not preloaded or not allowed
        await connection.execute("create extension if not exists pg_stat_statements")
        await connection.fetchval("select count(*) from pg_stat_statements")
        return True
    return False
