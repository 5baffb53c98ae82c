"""A receiver that does what the URL says: the other side of every test, demo and fault.

Speaks HTTP/1.1 by hand on plain sockets, because what it is for is to break HTTP/1.1, byte by byte.

    async with Receiver() as receiver:
        url = receiver.url("/orders", "500,503;retry-after=2,200")
        ...                                           # something posts to url, three times
        first, second, third = await receiver.wait_for(3, "/orders")

What the steps of a script are and do is told in `script.py`.
"""

import asyncio
import contextlib
import functools
import select
import socket
import ssl as tls
import struct
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote

from aetherflow_hooks.dev.script import Step, Then, answer, plan

HEAD_BYTES_MAX = 64 * 1024  # far above what any sender needs; a runaway one is answered 431
BODY_BYTES_MAX = 64 * 1024 * 1024  # events end at 1 MiB; more is a mistake worth a 413
AHEAD_BYTES_MAX = 1024 * 1024  # sent before the last answer: nobody pipelines that much
BACKLOG = 4096  # connections that may wait to be accepted; a burst must not be refused
UNASKED_AFTER_SECONDS = 0.05  # "later": long enough for the connection to lie in the sender's pool
HANDSHAKE_SECONDS_MAX = 10.0
TLS_GOODBYE_SECONDS_MAX = 1.0  # asyncio would wait 30 s for a peer that never says goodbye
STOP_SECONDS_MAX = 5.0  # aborting takes two turns of the loop; longer is a fault to be seen


@dataclass(frozen=True, slots=True)
class Received:
    """One request, as it came."""

    path: str
    """Without the query, as it stood in the request line."""
    headers: Mapping[str, str]
    """Names in lower case; of several values the last one. Bytes above 127 read as Latin-1."""
    body: bytes
    """As sent; empty where the step did not read it."""
    step: str
    """The step of the script that answered; empty where the script was not understood."""
    connection: int
    """Which TCP connection it came on, counted from 1."""
    began: float
    """When its first byte came: `loop.time()`, seconds, monotonic."""
    unix_seconds: float
    """When it was whole: `time.time()`."""


class Receiver:
    """An HTTP/1.1 server whose answers are written in the URL it is called by.

    Each request is in `received` before its answer is begun, and `on_request` has been called with
    it, on the loop. What `on_request` raises drops that connection and reaches the loop's
    exception handler.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        on_request: Callable[[Received], None] | None = None,
        ssl: tls.SSLContext | None = None,
    ) -> None:
        """Prepare to listen at `host`; port 0 lets the system choose. With `ssl` it is https."""
        self._host = host
        self._ssl = ssl
        self._book = _Book(on_request)
        self._listening: socket.socket | None = None
        self.port = port
        """Where it listens; known once started."""
        self.received: list[Received] = self._book.received
        """Every whole request in the order of arrival."""
        self.refused: list[str] = self._book.refused
        """Why requests were refused that were not HTTP/1.1; those are not in `received`."""

    async def start(self) -> None:
        """Listen; returns when connections are taken. Raises OSError if the port is not free."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listening = socket.create_server(
            (self._host, self.port), family=family, backlog=BACKLOG
        )
        self._listening.setblocking(False)
        self.port = self._listening.getsockname()[1]
        self._book.spawn(self._accept(self._listening))

    async def stop(self) -> None:
        """Close every connection and end every task now, hanging ones too. Again: does nothing."""
        if self._listening is not None:
            await self._book.close()
            self._listening.close()
            self._listening = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    @property
    def connections(self) -> int:
        """TCP connections accepted so far, whether or not a request or a handshake followed."""
        return self._book.accepted

    def url(self, path: str = "/", script: str = "200") -> str:
        """Give the URL that makes `path` answer by `script`; `path` has no query of its own."""
        scheme = "http" if self._ssl is None else "https"
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{scheme}://{host}:{self.port}{path}?do={quote(script, safe=',')}"

    def at(self, path: str) -> list[Received]:
        """Give the requests to `path` so far, in the order of arrival."""
        return list(self._book.by_path.get(path, ()))

    async def wait_for(
        self, count: int, path: str | None = None, *, timeout_seconds: float = 10
    ) -> list[Received]:
        """Wait until `count` requests (to `path`) have come since the start; give all of them.

        Raises TimeoutError after `timeout_seconds`, which says how many came.
        """
        came = self.received if path is None else self._book.by_path.setdefault(path, [])
        if len(came) < count:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._book.enough(came, count)
            except TimeoutError:
                where = "" if path is None else f" to {path}"
                refused = ""
                if self.refused:
                    refused = f", {len(self.refused)} refused: {self.refused[-1]}"
                raise TimeoutError(
                    f"{len(came)} of {count} requests{where} came within {timeout_seconds} s"
                    f" ({len(self.received)} in all{refused})"
                ) from None
        return list(came)

    def open_now(self, path: str) -> int:
        """Count the requests to `path` that are read and not yet answered nor given up.

        That a sender gave up a `deaf` request is noticed on Linux only.
        """
        return self._book.open_now.get(path, 0)

    def open_most(self, path: str) -> int:
        """Tell the highest `open_now` of `path` so far."""
        return self._book.open_most.get(path, 0)

    async def _accept(self, listening: socket.socket) -> None:
        # Accepting by hand counts a TLS connection when it is TCP, and lets stop() end a handshake.
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(listening)
            except OSError:  # no descriptor left, or the peer has gone again
                await asyncio.sleep(0.01)
                continue
            self._book.accepted += 1
            task = self._book.spawn(self._take_in(sock, self._book.accepted))
            task.add_done_callback(functools.partial(_close_if_cancelled, sock))

    async def _take_in(self, sock: socket.socket, number: int) -> None:
        tls_seconds = None if self._ssl is None else HANDSHAKE_SECONDS_MAX
        goodbye_seconds = None if self._ssl is None else TLS_GOODBYE_SECONDS_MAX
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: _Connection(self._book, number),
                sock,
                ssl=self._ssl,
                ssl_handshake_timeout=tls_seconds,
                ssl_shutdown_timeout=goodbye_seconds,
            )
        except OSError:  # a failed or unfinished handshake; TLS errors and timeouts are OSErrors
            sock.close()


def _close_if_cancelled(sock: socket.socket, task: asyncio.Task[None]) -> None:
    # A task that is cancelled before its first step never reaches a clean-up of its own.
    if task.cancelled():
        sock.close()


class _Book:
    """What a receiver knows: who is connected, what came, how far each path's script is."""

    def __init__(self, on_request: Callable[[Received], None] | None) -> None:
        self._on_request = on_request
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[_Connection] = set()
        self._all_gone = asyncio.Event()
        self._awaited: dict[asyncio.Future[None], tuple[list[Received], int]] = {}
        self._step_count: dict[str, int] = {}
        self.hang_ups = _HangUps()
        self.accepted = 0
        self.received: list[Received] = []
        self.by_path: dict[str, list[Received]] = {}
        self.refused: list[str] = []
        self.open_now: dict[str, int] = {}
        self.open_most: dict[str, int] = {}

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def connected(self, connection: "_Connection") -> None:
        self._connections.add(connection)
        self._all_gone.clear()

    def gone(self, connection: "_Connection") -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_gone.set()

    async def close(self) -> None:
        # Connections first: an aborted one reads no more, so it starts no new task.
        for connection in self._connections:
            connection.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        async with asyncio.timeout(STOP_SECONDS_MAX):
            while self._connections:
                for connection in self._connections:
                    connection.abort()
                await self._all_gone.wait()
        self.hang_ups.close()

    def step_now(self, path: str, steps: Sequence[Step]) -> Step:
        return steps[min(self._step_count.get(path, 0), len(steps) - 1)]

    def take_step(self, path: str, steps: Sequence[Step]) -> Step:
        step = self.step_now(path, steps)
        self._step_count[path] = self._step_count.get(path, 0) + 1
        return step

    def enter(self, request: Received) -> None:
        path = request.path
        self.open_now[path] = now = self.open_now.get(path, 0) + 1
        self.open_most[path] = max(now, self.open_most.get(path, 0))
        self.received.append(request)
        self.by_path.setdefault(path, []).append(request)
        for waiter, (came, count) in self._awaited.items():
            if len(came) >= count and not waiter.done():
                waiter.set_result(None)
        if self._on_request is not None:
            self._on_request(request)

    def leave(self, path: str) -> None:
        self.open_now[path] -= 1

    async def enough(self, came: list[Received], count: int) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._awaited[waiter] = (came, count)
        try:
            await waiter
        finally:
            del self._awaited[waiter]


class _Connection(asyncio.Protocol):
    """One TCP connection: reads requests, one after the other, and performs their steps."""

    def __init__(self, book: _Book, number: int) -> None:
        self._book = book
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray()
        self._head: _Head | None = None  # of the request whose body is being read
        self._began = self._latest = 0.0
        self._busy = False  # from a whole request until the next one may be read
        self._refusing = False
        self._open_path: str | None = None
        self._task: asyncio.Task[None] | None = None
        self._unasked: asyncio.TimerHandle | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._book.connected(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        self._book.hang_ups.forget(self._transport)
        self._leave()
        if self._task is not None:
            self._task.cancel()
        if self._unasked is not None:
            self._unasked.cancel()
        self._book.gone(self)

    def eof_received(self) -> None:
        # A sender that gives up closes; the half-closed kind, still listening, posts no hooks.
        if self._busy and not self._refusing:
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        if self._refusing:
            return
        self._latest = self._loop.time()
        if self._head is None and not self._buffer:
            self._began = self._latest
        self._buffer += data
        if not self._busy:
            self._advance()
        elif len(self._buffer) > AHEAD_BYTES_MAX:
            self.abort()

    def abort(self) -> None:
        self._transport.abort()

    # Reading

    def _advance(self) -> None:
        while not self._busy:
            if self._head is None:
                end = self._buffer.find(b"\r\n\r\n")
                if max(end, len(self._buffer) if end < 0 else 0) > HEAD_BYTES_MAX:
                    self._refuse(431, f"more than {HEAD_BYTES_MAX} bytes of headers")
                    return
                if end < 0 or not self._take_head(end):
                    return
            head = cast("_Head", self._head)
            if len(self._buffer) < head.body_bytes:
                return
            body = bytes(self._buffer[: head.body_bytes])
            del self._buffer[: head.body_bytes]
            self._head = None
            self._answer(head, body, self._book.take_step(head.path, head.steps))
            self._began = self._latest  # of what has come of the next request, if anything has

    def _take_head(self, end: int) -> bool:
        """Move the head from the buffer to `_head`; False if there is no body to be read for it."""
        try:
            head = _read_head(self._buffer[:end].decode("latin-1"))
        except _Refused as refused:
            self._refuse(refused.status, str(refused))
            return False
        del self._buffer[: end + 4]
        if self._book.step_now(head.path, head.steps).deaf:
            self._transport.pause_reading()
            self._book.hang_ups.watch(self._transport)
            self._answer(head, b"", self._book.take_step(head.path, head.steps))
            return False
        if head.expects_continue:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._head = head
        return True

    def _refuse(self, status: int, why: str) -> None:
        self._busy = self._refusing = True
        self._buffer.clear()
        self._book.refused.append(why)
        self._transport.write(answer(status, [(b"Connection", b"close")], why.encode()))
        # Closing on unread bytes would reset the connection and destroy the answer on its way.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Answering

    def _answer(self, head: "_Head", body: bytes, step: Step) -> None:
        self._busy = True
        self._open_path = head.path
        self._keep = head.keep
        self._book.enter(
            Received(
                path=head.path,
                headers=head.headers,
                body=body,
                step=step.text,
                connection=self._number,
                began=self._began,
                unix_seconds=time.time(),
            )
        )
        if step.wait_seconds or step.stream is not None:
            self._task = self._book.spawn(self._perform(step))
        else:
            self._transport.write(step.sent)
            self._end(step)

    async def _perform(self, step: Step) -> None:
        await asyncio.sleep(step.wait_seconds)
        self._transport.write(step.sent)
        for piece in step.stream() if step.stream is not None else ():
            await self._writable.wait()
            self._transport.write(piece)
            await asyncio.sleep(step.every_seconds)  # 0 still lets everyone else have a turn
        await self._writable.wait()
        self._task = None
        self._end(step)
        try:
            self._advance()
        except BaseException:  # on_request's; in data_received asyncio drops the connection for it
            self.abort()
            raise

    def _end(self, step: Step) -> None:
        if step.then is Then.HOLD:
            return
        self._leave()
        if step.then is Then.RESET:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.abort()
        elif step.then is Then.CLOSE or not self._keep:
            self._transport.close()
        else:
            self._busy = False
            if step.unasked:
                self._unasked = self._loop.call_later(
                    UNASKED_AFTER_SECONDS, self._speak_unasked, step.unasked
                )

    def _speak_unasked(self, answer: bytes) -> None:
        # During a request it would be that request's answer, and no sender could tell.
        if not self._busy and self._head is None and not self._buffer:
            self._transport.write(answer)

    def _leave(self) -> None:
        if self._open_path is not None:
            self._book.leave(self._open_path)
            self._open_path = None


class _HangUps:
    """Aborts a connection that is not being read when its peer has closed it.

    asyncio sees an end of stream only by reading up to it; epoll can report the end alone.
    """

    def __init__(self) -> None:
        self._epoll: Any = None
        self._descriptors: dict[asyncio.Transport, int] = {}  # TLS forgets its socket before us

    def watch(self, transport: asyncio.Transport) -> None:
        if sys.platform == "linux":
            if self._epoll is None:
                self._epoll = select.epoll()
                asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._look)
            descriptor = transport.get_extra_info("socket").fileno()
            self._descriptors[transport] = descriptor
            self._epoll.register(descriptor, select.EPOLLRDHUP)

    def forget(self, transport: asyncio.Transport) -> None:
        descriptor = self._descriptors.pop(transport, None)
        if descriptor is not None:
            with contextlib.suppress(OSError):  # closing it has unregistered it already
                self._epoll.unregister(descriptor)

    def close(self) -> None:
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _look(self) -> None:
        ended = {descriptor for descriptor, _ in self._epoll.poll(0)}
        for transport, descriptor in list(self._descriptors.items()):
            if descriptor in ended:
                self.forget(transport)
                transport.abort()


# Requests


@dataclass(frozen=True, slots=True)
class _Head:
    path: str
    steps: Sequence[Step]
    headers: Mapping[str, str]
    body_bytes: int
    keep: bool
    expects_continue: bool


class _Refused(Exception):
    """Not the HTTP/1.1 that is spoken here; answered with `status`."""

    def __init__(self, status: int, why: str) -> None:
        self.status = status
        super().__init__(why)


def _read_head(text: str) -> _Head:
    request_line, *lines = text.split("\r\n")
    try:
        _method, target, version = request_line.split(" ")
    except ValueError:
        raise _Refused(400, f"not a request line: {request_line[:200]!r}") from None
    if version not in {"HTTP/1.1", "HTTP/1.0"}:
        raise _Refused(505, f"not HTTP/1.1: {request_line[:200]!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise _Refused(400, f"not a header: {line[:200]!r}")
        headers[name.lower()] = value.strip(" \t")
    if "transfer-encoding" in headers:
        raise _Refused(501, "a body in chunks; this receiver takes a Content-Length")
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()):
        raise _Refused(400, f"not a Content-Length: {length[:200]!r}")
    if int(length[:20]) > BODY_BYTES_MAX:
        raise _Refused(413, f"a body of {length[:20]} bytes, over {BODY_BYTES_MAX}")
    path, steps = plan(target)
    wish = headers.get("connection", "").lower()
    return _Head(
        path=path,
        steps=steps,
        headers=headers,
        body_bytes=int(length),
        keep="keep-alive" in wish if version == "HTTP/1.0" else "close" not in wish,
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )
