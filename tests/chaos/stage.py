"""A stage: a database of its own, a receiver, endpoints, and engines that come and go."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg

from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint, set_endpoint_state
from aetherflow_hooks.model import EndpointState
from tests.chaos.cluster import Cluster
from tests.chaos.engines import EngineProcess
from tests.conftest import settings_for


class Stage:
    """What every run has."""

    def __init__(self, name: str, cluster: Cluster, folder: Path, **engine_settings: str) -> None:
        """Prepare; engines get `engine_settings` beside those that make all of them quick."""
        self.cluster = cluster
        self.dsn = cluster.dsn(name)
        self.receiver = Receiver()
        self.engines: list[EngineProcess] = []
        self.stopping = asyncio.Event()
        self.has_clocks = False  # whether engines have clocks that can be set
        self._name = name
        self._folder = folder
        self._engine_settings = engine_settings

    @asynccontextmanager
    async def set_up(self) -> AsyncIterator[None]:
        """Make the database and let the receiver listen; leave nothing behind."""
        await self.cluster.make(self._name)
        try:
            async with self.receiver:
                yield
        finally:
            for engine in self.engines:
                engine.thaw()
                engine.kill()
            await self.cluster.drop(self._name)

    async def add(self, url: str, **new: Any) -> dict[str, Any]:
        """Add an endpoint."""
        settings = settings_for(self.dsn)
        async with Database(settings.database) as database:
            return await add_endpoint(database, NewEndpoint(url=url, **new), settings=settings)

    async def set_state(self, endpoint_id: str, state: str) -> None:
        """Make an endpoint active or paused, as an operator does."""
        settings = settings_for(self.dsn)
        async with Database(settings.database) as database:
            await set_endpoint_state(database, endpoint_id, EndpointState(state))

    def start_engine(self) -> EngineProcess:
        """Start one more engine."""
        log = self._folder / f"{self._name}-{len(self.engines)}.log"
        engine = EngineProcess(self.dsn, log, has_clock=self.has_clocks, **self._engine_settings)
        self.engines.append(engine)
        return engine

    def running(self) -> list[EngineProcess]:
        """Give the engines that have not ended."""
        return [engine for engine in self.engines if engine.exit_code is None]

    async def supervise(self) -> None:
        """Start an engine anew that could not start because Postgres was away, as systemd does."""
        seen = 0
        while not self.stopping.is_set():
            if sum(engine.exit_code == 1 for engine in self.engines) > seen:
                seen += 1
                self.start_engine()
            await asyncio.sleep(0.2)

    async def ended(self, engines: list[EngineProcess], seconds_max: float = 20) -> None:
        """Ask engines to stop, and wait until they have."""
        for engine in engines:
            if engine.exit_code is None:
                engine.ask_to_stop()
        async with asyncio.timeout(seconds_max):
            while any(engine.exit_code is None for engine in engines):
                await asyncio.sleep(0.02)

    async def value(self, sql: str, *values: object) -> Any:
        """Ask the database for one value."""
        async with self.cluster.admin(self._name) as admin:
            return await admin.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[asyncpg.Record]:
        """Ask the database for rows."""
        async with self.cluster.admin(self._name) as admin:
            return list(await admin.fetch(sql, *values))

    async def until(self, sql: str, *values: object, seconds_max: float = 60) -> None:
        """Wait until a query gives something true."""
        async with asyncio.timeout(seconds_max), self.cluster.admin(self._name) as admin:
            while not await admin.fetchval(sql, *values):
                await asyncio.sleep(0.05)

    def logs(self) -> list[Path]:
        """Give the logs of the engines."""
        return sorted(self._folder.glob(f"{self._name}-*.log"))
