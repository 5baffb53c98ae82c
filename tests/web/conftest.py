"""An engine with its server, and clients with tokens."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest_asyncio

from aetherflow_hooks import Engine
from aetherflow_hooks.manage.tokens import Scope, add_token
from tests.conftest import World

PREFIX = "/api/v1"


def free_port() -> int:
    """Give a port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answered:
    """An answer, read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        """What it says."""
        return orjson.loads(self.body)

    def given(self, status: int = 200) -> Any:
        """What it says, if the status is as it should be."""
        assert self.status == status, (self.status, self.body)
        return self.json if self.body else None

    def problem(self, status: int, told: str = "") -> dict[str, Any]:
        """Why it was refused, which is said as RFC 9457 has it."""
        assert self.status == status, (self.status, self.body)
        assert self.headers["Content-Type"] == "application/problem+json"
        problem: dict[str, Any] = self.json
        assert problem["status"] == status
        assert told in problem["detail"], problem
        return problem


class Client:
    """Somebody with a token, or without; a path is of the API, unless it begins with `//`."""

    def __init__(self, session: aiohttp.ClientSession, base: str, token: str | None) -> None:
        self.base = base
        self.token = token
        self._session = session

    async def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **options: Any
    ) -> Answered:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if body is not None or raw is not None:
            headers["Content-Type"] = "application/json"
        headers |= options.pop("headers", {})
        async with self._session.request(
            method,
            self.base + (path[1:] if path.startswith("//") else PREFIX + path),
            data=raw if body is None else orjson.dumps(body),
            headers=headers,
            allow_redirects=False,
            **options,
        ) as answer:
            return Answered(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **query: Any) -> Any:
        """Ask for something that is there."""
        return (await self("GET", path, params=query)).given()


class Api:
    """The server of a running engine."""

    def __init__(
        self, world: World, session: aiohttp.ClientSession, port: int, engine: Engine | None = None
    ) -> None:
        self.world = world
        self._engine = engine
        self.base = f"http://127.0.0.1:{port}"
        self._session = session

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        assert self._engine is not None
        return self._engine

    async def client(self, scope: Scope = Scope.ADMIN, tenant: str | None = None) -> Client:
        """Give somebody with a token."""
        made = await add_token(self.world.database, "test", scope, tenant=tenant)
        return self.with_token(made["token"])

    def with_token(self, token: str | None) -> Client:
        """Give somebody who has this token, or none."""
        return Client(self._session, self.base, token)


@pytest_asyncio.fixture
async def api(world: World) -> AsyncIterator[Api]:
    port = free_port()
    async with (
        aiohttp.ClientSession() as session,
        world.engine(web={"port": port}, sweep={"every_seconds": 0.2}) as engine,
    ):
        yield Api(world, session, port, engine)
