"""A forward proxy: the way out that an operator names, and no other."""

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from aetherflow_hooks import start_engine
from aetherflow_hooks.rules.addresses import CLOSED_REASON
from tests.authority import Authority
from tests.conftest import World
from tests.story.test_egress import Answers, answers, production, sockets

__all__ = ["answers", "sockets"]  # fixtures

pytestmark = pytest.mark.usefixtures("each_way")

USER = "Basic " + base64.b64encode(b"hooks:canary-password").decode()


class Proxy:
    """Forwards requests and makes tunnels, to this machine whatever the name; notes each."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str | None]] = []  # method, target, Proxy-Authorization
        self.refuse: bytes | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ")
            headers = dict(line.lower().split(": ", 1) for line in lines if line)
            user = next((line[21:] for line in lines if line.lower().startswith("proxy-a")), None)
            self.asked.append((method, target, user))
            if self.refuse is not None:
                writer.write(self.refuse)
                await writer.drain()
                return
            if method == "CONNECT":
                port = int(target.rpartition(":")[2])
                out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_pump(reader, out_writer), _pump(out_reader, writer))
                return
            body = await reader.readexactly(int(headers["content-length"]))
            port = int(headers["host"].rpartition(":")[2])
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", port)
            path = "/" + target.split("/", 3)[3]
            kept = [line for line in lines if line and not line.lower().startswith("proxy-")]
            passed = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
            out_writer.write("\r\n".join(passed).encode("latin-1") + body)
            writer.write((await out_reader.read()).replace(b"Connection: close\r\n", b""))
            out_writer.close()


async def _pump(reader: Any, writer: Any) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    running = Proxy()
    await running.start()
    yield running
    await running.stop()


async def test_case_52_each_goes_its_way(
    world: World, proxy: Proxy, answers: Answers, sockets: list[str], authority: Authority
) -> None:
    answers("two.example", ["127.0.0.1"])
    async with authority.receiver() as secure:
        names = {"/plain": "http://one.example", "/direct": "http://two.example"}
        for path, origin in names.items():
            url = f"{origin}:{world.receiver.port}{path}?a=b%20c"
            await world.endpoint(url=url)
        await world.endpoint(url=f"https://localhost:{secure.port}/tunnel")
        dsn_user = proxy.url.replace("//", "//hooks:canary-password@")
        egress = {"proxy": dsn_user, "no_proxy": ["two.example"]}
        with authority.trusted():
            async with world.engine(egress=egress):
                for _ in range(2):
                    await world.emit()
                    await world.settled()
    assert len(world.receiver.at("/plain")) == 2
    assert len(secure.at("/tunnel")) == 2
    assert len(world.receiver.at("/direct")) == 2
    asked = sorted(set(proxy.asked))
    assert asked == [
        ("CONNECT", f"localhost:{secure.port}", USER),
        ("POST", f"http://one.example:{world.receiver.port}/plain?a=b%20c", USER),
    ]
    for request in (*world.receiver.received, *secure.received):
        assert "proxy-authorization" not in request.headers
        assert request.headers["host"].startswith(("one.example", "two.example", "localhost"))
    assert sockets == ["127.0.0.1"] * 3  # two to the proxy and the one past it; all are kept


async def test_q_19_and_q_20_what_is_closed_is_not_asked_of_the_proxy(
    world: World, proxy: Proxy
) -> None:
    for url in ("http://10.1.2.3/", "http://93.184.216.34:25/", "http://[::ffff:10.1.2.3]/"):
        await world.connection.execute(
            "update aetherflow.endpoints set url = $2 where id = $1",
            (await world.endpoint(retry_schedule_seconds=[]))["id"],
            url,
        )
    await world.endpoint(url="http://93.184.216.34/", retry_schedule_seconds=[])
    proxy.refuse = b"HTTP/1.1 204 No Content\r\n\r\n"
    # The proxy is on a closed address itself, for which no entry is needed.
    async with start_engine(production(world, egress={"proxy": proxy.url})):
        await world.emit()
        await world.settled()
    assert [target for _, target, _ in proxy.asked] == ["http://93.184.216.34/"]
    errors = await world.rows("select error from aetherflow.attempts where outcome = 'blocked'")
    assert [row["error"] for row in errors] == [CLOSED_REASON] * 3


async def test_while_the_proxy_is_down_nothing_is_charged_to_endpoints(
    world: World, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    await world.endpoint(
        url=f"http://one.example:{world.receiver.port}/", retry_schedule_seconds=[]
    )
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    with caplog.at_level(logging.WARNING):
        async with world.engine(egress={"proxy": f"http://127.0.0.1:{port}"}):
            for _ in range(3):
                await world.emit()
            async with asyncio.timeout(10):
                while "post.prevented" not in caplog.text:
                    await asyncio.sleep(0.01)
            server = await asyncio.start_server(proxy._take, "127.0.0.1", port)
            try:
                await world.settled()
            finally:
                server.close()
    assert len(world.receiver.received) == 3
    assert {r.headers["x-aetherflow-attempt"] for r in world.receiver.received} == {"1"}
    assert "the proxy cannot be reached" in caplog.text
    assert await world.value("select count(*) from aetherflow.attempts") == 3


@pytest.mark.parametrize(
    ("status", "outcome", "told"),
    [
        ("403 Forbidden", "blocked", CLOSED_REASON),
        ("407 Proxy Authentication Required", "blocked", CLOSED_REASON),
        ("502 Bad Gateway", "not_reached", "the proxy cannot reach it: 502"),
    ],
)
async def test_what_the_proxy_says_of_a_tunnel_is_told(
    world: World, proxy: Proxy, status: str, outcome: str, told: str
) -> None:
    proxy.refuse = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    await world.endpoint(url="https://one.example/", retry_schedule_seconds=[])
    async with world.engine(egress={"proxy": proxy.url}):
        await world.emit()
        await world.settled()
    row = (await world.rows("select outcome, error from aetherflow.attempts"))[0]
    assert tuple(row) == (outcome, told)


async def test_without_one_a_proxy_of_the_environment_is_not_used(
    world: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, answers: Answers
) -> None:
    answers("one.example", ["127.0.0.1"])
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    await world.endpoint(url=f"http://one.example:{world.receiver.port}/")
    async with world.engine():
        await world.emit()
        await world.settled()
    assert proxy.asked == []
    assert len(world.receiver.received) == 1
