"""Each framework: a server as people run it, and an engine that delivers to it."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import flask
import pytest

from aetherflow_hooks.receive import Hooks, Webhook
from aetherflow_hooks.receive.frameworks.flask import endpoint as flask_endpoint
from tests.conftest import World, until
from tests.django_database import connect
from tests.receive.requests import SECRET, request

PARALLEL = 50
LARGE = '{"x":"' + "x" * 3_000_000 + '"}'
GUNICORN = ["gunicorn", "--worker-class", "gthread", "--threads", "8", "--bind", "127.0.0.1:{port}"]
COMMANDS = {
    "aiohttp": ["tests.receive.servers.on_aiohttp"],
    "fastapi": ["tests.receive.servers.on_fastapi"],
    "flask": [*GUNICORN, "tests.receive.servers.on_flask:application"],
    "django": [*GUNICORN, "tests.receive.servers.on_django:application"],
}
ROOT = Path(__file__).parents[2]


class Server:
    """A receiver's process, on a port of its own."""

    def __init__(self, framework: str, dsn: str, folder: Path) -> None:
        self._command = COMMANDS[framework]
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            self._port: int = taken.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/webhook"
        self._environment = {
            **os.environ,
            "RECEIVER_DSN": dsn,
            "RECEIVER_PORT": str(self._port),
            "RECEIVER_SECRET": SECRET,
            "RECEIVER_FOLDER": str(folder),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        command = [part.format(port=self._port) for part in self._command]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", *command),
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,
        )
        give_up_at = time.monotonic() + 30
        while True:
            assert self._process.returncode is None
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self._port)
            except OSError:
                assert time.monotonic() < give_up_at
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return

    async def ended(self) -> None:
        """Wait until it has died by itself; gunicorn's first process lives on."""
        assert self._process is not None
        if self._command[0] != "gunicorn":
            await asyncio.wait_for(self._process.wait(), 15)

    async def stop(self) -> None:
        if self._process is not None and self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                os.killpg(self._process.pid, signal.SIGKILL)
                await self._process.wait()


@asynccontextmanager
async def served(framework: str, world: World, folder: Path) -> AsyncIterator[Server]:
    await world.connection.execute("create table handled (event_id text)")
    server = Server(framework, world.dsn, folder)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


def each_on_its_own() -> aiohttp.ClientSession:
    """A client that keeps no connection, which a server may end at any moment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(force_close=True, limit=0),
        timeout=aiohttp.ClientTimeout(total=30),
    )


async def post(session: aiohttp.ClientSession, url: str, made: tuple[bytes, dict[str, str]]) -> int:
    body, headers = made
    async with session.post(url, data=io.BytesIO(body), headers=headers) as response:
        await response.read()
        return response.status


@pytest.mark.parametrize("framework", COMMANDS)
async def test_an_event_is_processed_once_whatever_happens(
    framework: str, world: World, tmp_path: Path
) -> None:
    async with served(framework, world, tmp_path) as server, each_on_its_own() as session:
        handled = "select array_agg(event_id order by event_id) from handled"

        # what is not signed is refused, and so is what is too much
        assert await post(session, server.url, request("evt_0", secret="x" * 20)) == 401
        assert await post(session, server.url, (b"{}", {})) == 401
        with contextlib.suppress(aiohttp.ClientError):  # they may hang up before all is sent
            assert await post(session, server.url, request("evt_0", LARGE)) == 413
        assert await world.value(handled) is None

        # many at once, and one later
        wait = request("evt_1", '{"do": "wait"}')
        statuses = await asyncio.gather(*(post(session, server.url, wait) for _ in range(PARALLEL)))
        assert set(statuses) <= {200, 503}
        assert 200 in statuses
        assert await post(session, server.url, wait) == 200
        assert await world.value(handled) == ["evt_1"]

        # an engine tries again where the work failed, and where its answer was lost
        await world.endpoint(url=server.url, secret=SECRET, retry_schedule_seconds=[0.1] * 20)
        async with world.engine():
            well = await world.emit("workflow.completed", '{"workflow": {"id": "wf_1"}}')
            failing = await world.emit("a.b", '{"do": "fail once"}')
            await world.settled()
            dying = await world.emit("a.b", '{"do": "die once"}')

            async def died() -> bool:
                return (tmp_path / "died").exists()

            await until(died)
            await server.ended()
            if framework in ("aiohttp", "fastapi"):
                await server.start()
            await world.settled()
        assert await world.value(handled) == sorted(["evt_1", well, failing, dying])
        assert (
            await world.value(
                "select count(*) from aetherflow.attempts where event_id = $1 and status = 500",
                failing,
            )
            == 1
        )
        assert (
            await world.value(
                "select count(*) from aetherflow.attempts where event_id = $1 and status is null",
                dying,
            )
            >= 1
        )


def test_flask_has_views_of_several_hooks_and_none_that_is_awaited() -> None:
    application = flask.Flask("several")
    for path in ("/one", "/two"):
        application.add_url_rule(path, view_func=flask_endpoint(Hooks(SECRET)), methods=["POST"])
    awaited = Hooks(SECRET)

    @awaited.on("a.b")
    async def handle(_webhook: Webhook[Any]) -> None: ...

    with pytest.raises(TypeError, match="Flask awaits nothing"):
        flask_endpoint(awaited)


async def test_django_has_an_asynchronous_view_where_functions_are(dsn: str) -> None:
    hooks = Hooks(SECRET)
    got: list[str] = []

    @hooks.on("a.b")
    async def handle(webhook: Webhook[Any]) -> None:
        got.append(webhook.id)

    with connect(dsn):
        from django.test import AsyncRequestFactory  # noqa: PLC0415  it wants settings first

        from aetherflow_hooks.receive.frameworks.django import endpoint  # noqa: PLC0415

        view: Any = endpoint(hooks)
        body, headers = request("evt_1")
        made = AsyncRequestFactory().post(
            "/", data=body, content_type="application/json", headers=headers
        )
        assert (await view(made)).status_code == 200
        assert (await view(AsyncRequestFactory().get("/"))).status_code == 405
    assert got == ["evt_1"]
