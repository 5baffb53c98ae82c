"""Sink: a receiver that answers 200 at once, and notes when each request arrived.

A process of its own. It speaks as much HTTP/1.1 as our contenders do: requests with a
Content-Length, one behind the other on kept connections. With `hang` it reads and never answers.

    count   → how many requests there were
    notes   → {webhook-id: seconds of CLOCK_MONOTONIC at its first bytes}, and forgets them
"""

import asyncio
import functools
import importlib.util
import ssl
import sys
import time
from typing import Any, cast

from aetherflow_hooks.dev.bench import talk

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
HEAD_BYTES_MAX = 65_536


class Book:
    """What has arrived, over all connections."""

    def __init__(self, *, notes: bool) -> None:
        """Keep a count; with `notes` also when each webhook-id came first."""
        self.count = 0
        self.arrivals: dict[str, float] | None = {} if notes else None


class Receiving(asyncio.Protocol):
    """One connection."""

    def __init__(self, book: Book, *, hang: bool = False) -> None:
        """Note everything in `book`."""
        self._book = book
        self._hang = hang
        self._buffer = bytearray()
        self._began = 0.0  # when the first bytes of the request being read came

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete by now."""
        if self._hang:
            return
        buffer = self._buffer
        if not buffer:
            self._began = time.monotonic()
        buffer += data
        answers = 0
        while buffer:
            head_end = buffer.find(b"\r\n\r\n")
            if head_end < 0:
                if len(buffer) > HEAD_BYTES_MAX:
                    self._transport.abort()
                break
            head = bytes(buffer[:head_end]).lower()
            end = head_end + 4 + int(_header(head, b"content-length") or 0)
            if len(buffer) < end:
                break
            self._note(head)
            del buffer[:end]
            answers += 1
            self._began = time.monotonic()  # of the next one, where it came in the same piece
        if answers:
            self._transport.write(ANSWER * answers)

    def _note(self, head: bytes) -> None:
        self._book.count += 1
        if self._book.arrivals is not None:
            self._book.arrivals.setdefault(_header(head, b"webhook-id").decode(), self._began)


def _header(head: bytes, name: bytes) -> bytes:
    """Give a header's value out of a head in lower case; nothing where it is not there."""
    _, found, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip() if found else b""


async def main(told: dict[str, Any]) -> None:
    """Serve until the parent ends us: {notes, hang, certificate, key}."""
    book = Book(notes=told.get("notes", False))
    loop = asyncio.get_running_loop()
    make = functools.partial(Receiving, book, hang=told.get("hang", False))
    servers = [await loop.create_server(make, "127.0.0.1", 0, backlog=4096)]
    if told.get("certificate"):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(told["certificate"], told["key"])
        servers.append(await loop.create_server(make, "127.0.0.1", 0, backlog=4096, ssl=context))
    kind = "our own on " + ("uvloop" if "uvloop" in sys.modules else "asyncio")
    talk.collect_no_garbage()
    talk.say({"kind": kind, "ports": [server.sockets[0].getsockname()[1] for server in servers]})
    while (line := await talk.hear()) is not None:
        if line == "count":
            talk.say(book.count)
        elif line == "notes":
            noted, book.arrivals = book.arrivals, {}
            talk.say(noted)


def has_uvloop() -> bool:
    """Tell whether the faster loop is installed."""
    return importlib.util.find_spec("uvloop") is not None


if __name__ == "__main__":
    talk.run(main)
