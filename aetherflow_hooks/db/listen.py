"""Listener: notifications, as hints that save waiting. Nothing depends on one arriving."""

import asyncio
from collections.abc import Callable
from typing import Any

import asyncpg

from aetherflow_hooks.config import DatabaseSettings
from aetherflow_hooks.db.connections import connect_options, connecting
from aetherflow_hooks.db.pooler import is_pooled
from aetherflow_hooks.db.statements import in_schema
from aetherflow_hooks.errors import ConfigInvalid, DatabaseUnavailable

CHANNEL = "aetherflow.wake"
CHECK_SECONDS = 30.0  # a connection that was cut silently is found out after this
POOLED_SECONDS = 60.0  # until the next look whether a pooler is still there


class Listener:
    """Keeps one connection listening, for as long as `run` runs."""

    def __init__(
        self,
        settings: DatabaseSettings,
        on_wake: Callable[[str], None],
        on_deaf: Callable[[str], None],
    ) -> None:
        """Call `on_wake` with each hint, and with "" whenever some may have been missed.

        `on_deaf` is told why none can come, each time that this is found.
        """
        self._settings = settings
        self._on_wake = on_wake
        self._on_deaf = on_deaf

    async def run(self) -> None:
        """Listen until cancelled; come back after every loss."""
        pause_seconds = 0.1
        while True:
            try:
                await self._listen_once()
            except (ConfigInvalid, DatabaseUnavailable) as error:
                self._on_deaf(str(error))
                pause_seconds = min(pause_seconds * 2, self._settings.retry_seconds_max)
            else:
                pause_seconds = 0.1
            await asyncio.sleep(pause_seconds)

    async def _listen_once(self) -> None:
        """Listen on a new connection until it is lost, unless a pooler would keep all from us."""
        lost = asyncio.Event()
        settings = self._settings
        if settings.listen_dsn:
            settings = settings.model_copy(update={"dsn": settings.listen_dsn})
        async with connecting("database.listen_dsn" if settings.listen_dsn else "database.dsn"):
            if await is_pooled(settings):
                self._on_deaf("a pooler keeps notifications from us")
                await asyncio.sleep(POOLED_SECONDS)
                return
            connection = await asyncpg.connect(settings.dsn, **connect_options(settings))
            try:
                connection.add_termination_listener(lambda _: lost.set())
                await connection.add_listener(
                    in_schema(CHANNEL, self._settings.schema_name), self._heard
                )
                self._on_wake("")
                while not lost.is_set():
                    try:
                        async with asyncio.timeout(CHECK_SECONDS):
                            await lost.wait()
                    except TimeoutError:
                        await connection.execute("select 1")
            finally:
                connection.terminate()

    def _heard(self, _connection: Any, _pid: int, _channel: str, hint: str) -> None:
        self._on_wake(hint)
