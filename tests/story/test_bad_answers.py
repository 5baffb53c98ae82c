"""The table of bad answers: what a receiver may say, byte for byte, and what is recorded of it."""

import asyncio
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from tests.conftest import World

pytestmark = pytest.mark.usefixtures("each_way")

NO_HTTP = "its answer is not HTTP"


class Told(NamedTuple):
    """What is recorded of an answer."""

    outcome: str
    status: int | None
    error: str = ""  # how it begins

    def is_by(self, row: Any) -> bool:
        """Tell whether an attempt's row says so."""
        said = (row["error"] or "").startswith(self.error) and bool(row["error"]) == bool(
            self.error
        )
        return said and (row["outcome"], row["status"]) == self[:2]


GARBAGE = Told("not_reached", None, NO_HTTP)
GONE = Told("not_reached", None, "it closed the connection")


def head(status: str, *headers: str, body: str = "") -> bytes:
    """Make an answer of text."""
    lines = [f"HTTP/1.1 {status}", *headers, "", body]
    return "\r\n".join(lines).encode("latin-1")


def answered(status: int) -> Told:
    """Say what is recorded of a whole answer."""
    return Told("answered", status, "" if 200 <= status < 300 else f"answered {status}")


DELIVERED = answered(200)
LENGTH_0 = "Content-Length: 0"
ROWS: dict[str, tuple[bytes, Told]] = {
    **{
        f"R-01 {code}": (head(f"{code} x", "Location: {target}", LENGTH_0), answered(code))
        for code in (301, 302, 303)
    },
    **{
        f"R-02 {code}": (head(f"{code} x", "Location: {target}", LENGTH_0), answered(code))
        for code in (307, 308)
    },
    "R-03": (head("302 Found", LENGTH_0), answered(302)),
    "R-04 a": (head("302 Found", "Location: http://[::1", LENGTH_0), answered(302)),
    "R-04 b": (head("302 Found", "Location: javascript:alert(1)", LENGTH_0), answered(302)),
    "R-05": (head("302 Found", "Location: {self}", LENGTH_0), answered(302)),
    "R-06": (head("200 OK", "Content-Length: 2", body="ok"), DELIVERED),
    "R-07 a": (head("204 No Content"), answered(204)),
    "R-07 b": (head("202 Accepted", LENGTH_0), answered(202)),
    "R-07 c": (head("299 x", LENGTH_0), answered(299)),
    "R-08 a": (head("204 No Content", "Content-Length: 2", body="ok"), GARBAGE),
    "R-08 b": (head("304 Not Modified", "Content-Length: 2", body="ok"), GARBAGE),
    "R-09": (head("101 Switching Protocols", "Upgrade: x", "Connection: upgrade"), answered(101)),
    "R-10 000": (head("000 x", LENGTH_0), GARBAGE),
    "R-10 099": (head("099 x", LENGTH_0), GARBAGE),
    "R-10 600": (head("600 x", LENGTH_0), GARBAGE),
    "R-10 999": (head("999 x", LENGTH_0), GARBAGE),
    "R-11 a": (head("2000 x", LENGTH_0), GARBAGE),
    "R-11 b": (head("-1 x", LENGTH_0), GARBAGE),
    "R-11 c": ("HTTP/1.1 20\u0660 OK\r\n\r\n".encode(), GARBAGE),
    "R-12 a": (b"SSH-2.0-OpenSSH_9.2\r\n", GARBAGE),
    "R-12 b": (b"<html>hello</html>\r\n\r\n", GARBAGE),
    "R-12 c": (b"HTTP/9.9 200 OK\r\n\r\n", GARBAGE),
    "R-13": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", DELIVERED),
    "R-14 a": (b"", GONE),
    "R-14 b": (b"HTTP/1.1 2", GONE),
    "R-15": (head("200 OK", "Content-Length: 100", body="hello"), DELIVERED),
    "R-16 a": (head("200 OK", "Content-Length: 2", "Content-Length: 3", body="okk"), GARBAGE),
    "R-16 b": (head("200 OK", "Content-Length: -1"), GARBAGE),
    "R-16 c": (head("200 OK", "Content-Length: " + "9" * 23), GARBAGE),
    "R-16 d": (
        head("200 OK", "Content-Length: 2", "Transfer-Encoding: chunked", body="0\r\n\r\n"),
        GARBAGE,
    ),
    "R-17": (head("200 OK", "Transfer-Encoding: bogus", body="x"), DELIVERED),
    **{
        f"R-18 {size[:3]}": (
            head("200 OK", "Transfer-Encoding: chunked", body=f"{size}\r\nx\r\n"),
            GARBAGE,
        )
        for size in ("ZZ", "-5", "F" * 17)
    },
    "R-20": (head("200 OK", "X: \xff\xfe", LENGTH_0), DELIVERED),
    "R-21": (head("200 \xff\x1b[2J", LENGTH_0), DELIVERED),
    "R-22": (head("200 OK", "Content-Length: 5", body="\x00\x1b\xff\xfe!"), DELIVERED),
    "R-23 a": (head("200 OK", "Content-Type: text/plain; charset=rot13", LENGTH_0), DELIVERED),
    "R-23 b": (head("200 OK", "Content-Type: text/plain; charset=idna", LENGTH_0), DELIVERED),
    "R-24 a": (head("200 OK", "X: " + "x" * 9000, LENGTH_0), GARBAGE),
    "R-24 b": (head("200 OK", *[f"X{n}: 1" for n in range(1000)], LENGTH_0), GARBAGE),
    "R-24 c": (
        head(
            "200 OK",
            "Transfer-Encoding: chunked",
            body="0\r\n" + "".join(f"X{n}: 1\r\n" for n in range(1000)) + "\r\n",
        ),
        GARBAGE,
    ),
    "R-24 d": (head("200 " + "x" * 9000, LENGTH_0), GARBAGE),
    "R-25 a": (head("200 OK", "X: a\x00b", LENGTH_0), GARBAGE),
    "R-25 b": (head("200 OK", "X : 1", LENGTH_0), GARBAGE),
    "R-26 a": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", DELIVERED),
    "R-26 b": (head("200 OK", "X: a", " folded", LENGTH_0), DELIVERED),
    "R-27 a": (head("200 OK", "Content-Encoding: gzip", "Content-Length: 2", body="no"), DELIVERED),
    "R-27 b": (head("200 OK", "Content-Encoding: br", "Content-Length: 2", body="no"), DELIVERED),
    "R-27 c": (head("200 OK", "Content-Encoding: ?", "Content-Length: 2", body="no"), DELIVERED),
    "R-29": (head("500 x", LENGTH_0) + head("200 OK", LENGTH_0), answered(500)),
}


class Receivers:
    """Answers each path with its bytes, then ends the connection; counts the requests of each."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}
        self.port = 0

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def url(self, row: str) -> str:
        return f"http://127.0.0.1:{self.port}/{row.replace(' ', '.')}"

    async def _serve(self, reader: Any, writer: Any) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            request = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            await reader.readexactly(int(request.partition("Content-Length: ")[2].split()[0]))
            row = request.split(" ")[1][1:].replace(".", " ")
            self.requests[row] = self.requests.get(row, 0) + 1
            answer = ROWS[row][0]
            answer = answer.replace(b"{target}", self.url("target").encode())
            writer.write(answer.replace(b"{self}", self.url(row).encode()))
            await writer.drain()
        writer.close()


async def test_each_row_is_recorded_as_what_it_is_and_asked_once(world: World) -> None:
    receivers = Receivers()
    server = await receivers.open()
    for row in ROWS:
        await world.endpoint(url=receivers.url(row), retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    server.close()
    attempts = await world.rows(
        "select e.url, a.* from aetherflow.attempts a join aetherflow.endpoints e"
        " on e.id = a.endpoint_id"
    )
    found = {row["url"].rpartition("/")[2].replace(".", " "): row for row in attempts}
    other = {
        row: (found[row]["outcome"], found[row]["status"], found[row]["error"])
        for row, (_, required) in ROWS.items()
        if not required.is_by(found[row])
    }
    assert other == {}
    assert receivers.requests == dict.fromkeys(ROWS, 1)  # redirects are not followed
    delivered = {row for row, at in found.items() if at["verdict"] == "delivered"}
    assert delivered == {row for row, (_, told) in ROWS.items() if told.status in range(200, 300)}


async def test_r_32_an_answer_before_the_body_is_read_counts(world: World) -> None:
    recorded, ended = asyncio.Event(), asyncio.Event()

    async def serve(reader: Any, writer: Any) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head("200 OK", LENGTH_0))
        await writer.drain()
        await recorded.wait()  # the rest is never read
        writer.transport.abort()
        ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await world.endpoint(url=f"http://127.0.0.1:{port}/")
    async with world.engine():
        await world.emit(data='{"a":"' + "x" * 1_000_000 + '"}')
        await world.settled()
    recorded.set()
    await ended.wait()
    server.close()
    attempt = (await world.rows("select * from aetherflow.attempts"))[0]
    assert answered(200).is_by(attempt), dict(attempt)
