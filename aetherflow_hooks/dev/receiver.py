"""A receiver that does what the URL says: the other side of every test, demo and fault.

Speaks HTTP/1.1 by hand on plain sockets, because what it is for is to break HTTP/1.1, byte by byte.

    async with Receiver() as receiver:
        url = receiver.url("/orders", "500,503;retry-after=2,200")
        ...                                           # something posts to url, three times
        first, second, third = await receiver.wait_for(3, "/orders")

A script is a list of steps separated by commas. The n-th request to a path takes the n-th step, the
last one for ever. A step is a status or a word, then options, each after a semicolon:

    200                     an answer without a body
    503;retry-after=3       any option that is not named below becomes a header of the answer
    200;wait=0.2            0.2 seconds before anything is answered; every step can have it
    200;size=1048576        a body of that many bytes
    200;body=%00%1b%ff      this body; values are percent-decoded once, so "," is %2C and ";" is %3B

    hang                    reads the request and never answers
    deaf                    reads the headers, not the body, and never answers
    drip;every=0.5          headers at once, then one byte of the body every 0.5 seconds without end
    drip-head;every=0.5     a good answer, one byte every 0.5 seconds
    flood                   a chunked body without end, as fast as it is read
    bomb                    64 KiB of gzip that unpack to 64 MiB
    many-headers;count=10000
    endless-103             103 Early Hints without end, as fast as they are read
    close                   closes without an answer
    reset                   the same with a TCP reset
    half                    half a status line, then closes
    short                   promises 100 bytes, sends 5, closes
    garbage                 greets like an SSH server, closes
    twice                   a good answer and right behind it a second one, 500
    later                   a good answer and, 50 ms later on the idle connection, an unasked one

A status below 200 is not a final answer: whoever asked goes on waiting. A script that cannot be
understood is answered 400 with the reason as its body.
"""

import asyncio
import contextlib
import enum
import functools
import itertools
import math
import select
import socket
import ssl as tls
import struct
import sys
import time
import zlib
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, unquote_plus, unquote_to_bytes

HEAD_BYTES_MAX = 64 * 1024  # far above what any sender needs; a runaway one is answered 431
BODY_BYTES_MAX = 64 * 1024 * 1024  # events end at 1 MiB; more is a mistake worth a 413
AHEAD_BYTES_MAX = 1024 * 1024  # sent before the last answer: nobody pipelines that much
BACKLOG = 4096  # connections that may wait to be accepted; a burst must not be refused
UNASKED_AFTER_SECONDS = 0.05  # "later": long enough for the connection to lie in the sender's pool
HANDSHAKE_SECONDS_MAX = 10.0
TLS_GOODBYE_SECONDS_MAX = 1.0  # asyncio would wait 30 s for a peer that never says goodbye
STOP_SECONDS_MAX = 5.0  # aborting takes two turns of the loop; longer is a fault to be seen
BLOCK = b"x" * 65536
MEBIBYTE = 1024 * 1024
BOMB_MEBIBYTES = 64


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

    def step_now(self, path: str, steps: Sequence["_Step"]) -> "_Step":
        return steps[min(self._step_count.get(path, 0), len(steps) - 1)]

    def take_step(self, path: str, steps: Sequence["_Step"]) -> "_Step":
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
        self._transport.write(_answer(status, [(b"Connection", b"close")], why.encode()))
        # Closing on unread bytes would reset the connection and destroy the answer on its way.
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()

    # Answering

    def _answer(self, head: "_Head", body: bytes, step: "_Step") -> None:
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

    async def _perform(self, step: "_Step") -> None:
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

    def _end(self, step: "_Step") -> None:
        if step.then is _Then.HOLD:
            return
        self._leave()
        if step.then is _Then.RESET:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.abort()
        elif step.then is _Then.CLOSE or not self._keep:
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
    steps: Sequence["_Step"]
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
    path, steps = _plan(target)
    wish = headers.get("connection", "").lower()
    return _Head(
        path=path,
        steps=steps,
        headers=headers,
        body_bytes=int(length),
        keep="keep-alive" in wish if version == "HTTP/1.0" else "close" not in wish,
        expects_continue=headers.get("expect", "").lower() == "100-continue",
    )


# Scripts


class _Then(enum.Enum):
    """What becomes of the connection after a step."""

    KEEP = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()
    HOLD = enum.auto()  # it stays open, and the request unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    text: str = ""
    wait_seconds: float = 0.0
    sent: bytes = b""  # at once
    stream: Callable[[], Iterator[bytes]] | None = None  # behind it, in pieces
    every_seconds: float = 0.0  # between the pieces
    then: _Then = _Then.KEEP
    unasked: bytes = b""
    deaf: bool = False


class _NotUnderstood(ValueError):
    """A script that means nothing here."""


class _Options:
    """The `key=value`s of one step; each is taken out by whoever understands it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._pairs: list[tuple[str, bytes]] = []
        for text in texts:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise _NotUnderstood(f"an option is key=value, not {text!r}")
            self._pairs.append((key, unquote_to_bytes(value)))

    def take(self, key: str) -> bytes | None:
        values = [value for found, value in self._pairs if found == key]
        if len(values) > 1:
            raise _NotUnderstood(f"{key} is given {len(values)} times")
        self._pairs = [pair for pair in self._pairs if pair[0] != key]
        return values[0] if values else None

    def seconds(self, key: str, default: float) -> float:
        value = self.take(key)
        try:
            seconds = default if value is None else float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise _NotUnderstood(f"{key} is a number of seconds, not {value!r}")
        return seconds

    def count(self, key: str, default: int, most: int) -> int:
        value = self.take(key)
        if value is None:
            return default
        if not value.isdigit() or int(value[:20]) > most:
            raise _NotUnderstood(f"{key} is a whole number up to {most}, not {value!r}")
        return int(value)

    def rest(self) -> list[tuple[str, bytes]]:
        rest, self._pairs = self._pairs, []
        return rest


@functools.lru_cache(maxsize=4096)
def _plan(target: str) -> tuple[str, tuple[_Step, ...]]:
    """Split a request's target into its path and the steps of its script."""
    path, _, query = target.partition("?")
    script = "200"
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == "do":
            script = unquote_plus(value)
    try:
        return path, tuple(_read_step(text) for text in script.split(","))
    except _NotUnderstood as problem:
        return path, (_Step(sent=_answer(400, [], f"{problem}\n".encode())),)


def _read_step(text: str) -> _Step:
    word, *texts = text.split(";")
    options = _Options(texts)
    wait_seconds = options.seconds("wait", 0.0)
    if word in _WORDS:
        step = _WORDS[word](options)
    elif len(word) == len("200") and word.isascii() and word.isdigit() and word >= "100":
        step = _status(int(word), options)
    else:
        raise _NotUnderstood(
            f"{word!r} is not a step: it would be a status from 100 to 999, {', '.join(_WORDS)}"
        )
    if unknown := options.rest():
        raise _NotUnderstood(f"{word} has no option {unknown[0][0]!r}")
    return replace(step, text=text, wait_seconds=wait_seconds)


def _status(status: int, options: _Options) -> _Step:
    body = options.take("body")
    size = options.count("size", 0, 2**40)
    if body is not None and size:
        raise _NotUnderstood("a step has body or size, not both")
    headers = [(key.encode(), value) for key, value in options.rest()]
    closes = any(key.lower() == b"connection" and value == b"close" for key, value in headers)
    return _Step(
        sent=_answer(status, headers, body or b"", size),
        stream=functools.partial(_blocks, size) if size else None,
        then=_Then.CLOSE if closes else _Then.KEEP,
    )


def _answer(
    status: int,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    size_to_follow: int = 0,
) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unnamed"
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    lines += [b"%s: %s" % pair for pair in headers]
    named = {name.lower() for name, _ in headers}
    bodiless = status < HTTPStatus.OK or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
    if not bodiless and not named & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % (len(body) or size_to_follow))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _blocks(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: size - start]


def _bytewise(answer: bytes) -> Iterator[bytes]:
    return (answer[place : place + 1] for place in range(len(answer)))


@functools.cache
def _bomb() -> bytes:
    # One mebibyte packed by itself can be repeated: 40 ms of work instead of 400, once, on the loop
    # that the program under test may share.
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(MEBIBYTE)
    packed = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(BOMB_MEBIBYTES):
        checksum = zlib.crc32(zeros, checksum)
    gzip_head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    last_block = b"\x03\x00"
    gzip_tail = struct.pack("<II", checksum, BOMB_MEBIBYTES * MEBIBYTE)
    gzip = gzip_head + packed * BOMB_MEBIBYTES + last_block + gzip_tail
    return _answer(200, [(b"Content-Encoding", b"gzip")], gzip)


def _drip(options: _Options) -> _Step:
    return _Step(
        sent=b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
        stream=lambda: itertools.repeat(b"."),
        every_seconds=options.seconds("every", 0.5),
    )


def _drip_head(options: _Options) -> _Step:
    return _Step(
        stream=functools.partial(_bytewise, _answer(200)),
        every_seconds=options.seconds("every", 0.5),
    )


def _many_headers(options: _Options) -> _Step:
    count = options.count("count", 10_000, 1_000_000)
    return _Step(sent=_answer(200, [(b"X-Many-%d" % n, b"1") for n in range(1, count + 1)]))


_CHUNK = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
_HINTS = 500 * b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

_WORDS: dict[str, Callable[[_Options], _Step]] = {
    "hang": lambda _: _Step(then=_Then.HOLD),
    "deaf": lambda _: _Step(then=_Then.HOLD, deaf=True),
    "drip": _drip,
    "drip-head": _drip_head,
    "flood": lambda _: _Step(
        sent=_answer(200, [(b"Transfer-Encoding", b"chunked")]),
        stream=lambda: itertools.repeat(_CHUNK),
    ),
    "bomb": lambda _: _Step(stream=lambda: iter([_bomb()])),
    "many-headers": _many_headers,
    "endless-103": lambda _: _Step(stream=lambda: itertools.repeat(_HINTS)),
    "close": lambda _: _Step(then=_Then.CLOSE),
    "reset": lambda _: _Step(then=_Then.RESET),
    "half": lambda _: _Step(sent=b"HTTP/1.1 2", then=_Then.CLOSE),
    "short": lambda _: _Step(
        sent=_answer(200, [(b"Content-Length", b"100")], b"12345"), then=_Then.CLOSE
    ),
    "garbage": lambda _: _Step(sent=b"SSH-2.0-x\r\n", then=_Then.CLOSE),
    "twice": lambda _: _Step(sent=_answer(200) + _answer(500, body=b"unasked")),
    "later": lambda _: _Step(sent=_answer(200), unasked=_answer(200, body=b"unasked")),
}
