"""The Postgres of a run, in all the ways in which it can be mistreated."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg

from aetherflow_hooks import migrate
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from tests.conftest import settings_for

SETTINGS = {
    "synchronous_commit": "on",  # what is not on disk at the time of a crash is lost
    "fsync": "off",  # but that of the machine, which does not crash here
    "max_connections": "60",
    "max_wal_size": "64MB",
    "min_wal_size": "32MB",
}


class Cluster:
    """A server of its own, with a database for each run."""

    def __init__(self, base: Path, disk: Path | None) -> None:
        """Keep the server in `base`, which is on a small `disk` of its own or on any."""
        self.base = base
        self.disk = disk
        self._server = EmbeddedPostgres(
            base, settings=SETTINGS, initdb_args=["--no-sync", "--wal-segsize=1"]
        )

    async def start(self) -> None:
        """Start the server and make the database that all others are copies of."""
        await self._server.start()
        async with self.admin() as admin:
            await admin.execute("create database template_hooks")
        await migrate(settings_for(self.dsn("template_hooks")))

    async def stop(self) -> None:
        """Stop the server for good."""
        await self._server.stop()

    def dsn(self, name: str) -> str:
        """Give the way to a database."""
        return self._server.dsn(name)

    @asynccontextmanager
    async def admin(self, name: str = "postgres") -> AsyncIterator[asyncpg.Connection]:
        """Connect to a database, for a moment."""
        connection = await asyncpg.connect(self.dsn(name), timeout=20, command_timeout=20)
        try:
            yield connection
        finally:
            connection.terminate()

    async def make(self, name: str) -> None:
        """Make a migrated database."""
        async with self.admin() as admin:
            await admin.execute(f"create database {name} template template_hooks")

    async def drop(self, name: str) -> None:
        """Drop a database, whoever is in it."""
        async with self.admin() as admin:
            await admin.execute(f"drop database {name} with (force)")

    def processes(self) -> list[int]:
        """Give the ids of the server's processes, the first of all first."""
        with suppress(OSError, ValueError):
            first = int((self.base / "data" / "postmaster.pid").read_text().split()[0])
            found = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", str(first)],
                capture_output=True,
                text=True,
                check=False,
            )
            return [first, *map(int, found.stdout.split())]
        return []

    def crash(self) -> None:
        """Kill all of the server at once."""
        self._signal(signal.SIGKILL)

    async def freeze(self, seconds: float) -> None:
        """Let every process of the server stand still."""
        self._signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            self._signal(signal.SIGCONT)

    async def fill_disk(self, seconds: float) -> None:
        """Leave no room on the disk for a while."""
        assert self.disk is not None
        filler = self.disk / "filler"
        try:
            with suppress(OSError), filler.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 65_536)
            await asyncio.sleep(seconds)
        finally:
            filler.unlink(missing_ok=True)

    async def revive(self) -> None:
        """See to it that the server runs."""
        for _ in range(20):
            with suppress(Exception):
                await self._server.start(20)
                async with self.admin():
                    return
            await asyncio.sleep(0.1)
        await self._server.start()

    def _signal(self, number: int) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)
