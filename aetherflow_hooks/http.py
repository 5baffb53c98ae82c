"""HTTP: the way of one request to its answer, over aiohttp's connector and parser.

The connector keeps connections, resolves names and speaks TLS; every socket passes our guard; the
parser reads answers. A request is written straight to its connection, which costs a third of
what aiohttp's session does per request. What that needs of aiohttp's inner parts is used in this
file only, and where a release lacks it the session serves instead.
"""

import asyncio
import functools
import socket
import ssl
import time
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage
from yarl import URL

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.model import Answered, Blocked, NotReached, Outcome, TimedOut
from aetherflow_hooks.rules.addresses import Egress, why_closed
from aetherflow_hooks.rules.retry import retry_after_seconds
from aetherflow_hooks.rules.urls import UrlRefused, parse_url

TARGETS_REMEMBERED = 10_000  # URLs whose first lines stay written
DEADLINE_TICK_SECONDS = 0.05  # how late the end of a deadline may be noticed
READ_BYTES = 65_536  # of a connection at once
JOINED_BYTES_MAX = 65_536  # a body up to this goes out in one write with its head
SENT_TOGETHER_MAX = 8  # a receiver begins with these while the next are made
BROKEN_OFF: Outcome = NotReached("broken off: the engine was stopped")

_NO_TRACES: list[Any] = []
_NO_TIMEOUT = aiohttp.ClientTimeout()  # the deadline is ours


class _BrokenOffError(Exception):
    """Given to a connection whose request is broken off."""


class _BlockedError(OSError):
    """Raised where a socket is made: aiohttp takes only an OSError for a failed connection."""


@dataclass(slots=True)
class _Connecting:
    """Whose connection is being made, and the addresses that were refused to it.

    With several addresses the errors of all of them are folded into one that tells nothing, so a
    refusal is noted here as well.
    """

    tenant: str
    refusals: list[str] = field(default_factory=list)


_connecting: ContextVar[_Connecting] = ContextVar("_connecting")


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request, from its start until its outcome has been told."""

    done: Callable[[Outcome], None]
    timeout_seconds: float
    ends_at: float  # by the loop's clock
    told: Callable[["_Exchange"], None]  # takes it when its answer or its outcome is there
    task: asyncio.Task[Outcome | None] | None = None  # while something is waited for in steps
    protocol: "_Protocol | None" = None  # its connection
    key: ConnectionKey | None = None  # by which the connection is kept
    answer: tuple[RawResponseMessage, aiohttp.StreamReader] | None = None
    is_clean: bool = False  # its connection can serve the next request
    outcome: Outcome | None = None

    def end(self, outcome: Outcome) -> None:
        """Take the outcome, of which nobody knows yet."""
        self.outcome = outcome
        self.told(self)

    def expire(self) -> None:
        """Let whoever waits for the answer see a TimeoutError."""
        if self.answer is not None:
            self.answer[1].set_exception(TimeoutError())
        elif self.protocol is not None:
            self.protocol.set_exception(TimeoutError())
        elif self.task is None:
            self.end(TimedOut(self.timeout_seconds))  # not even sent

    def break_off(self) -> None:
        """Wait no longer."""
        if self.task is not None:
            self.task.cancel()
        elif self.protocol is not None:
            self.protocol.set_exception(_BrokenOffError())
        elif self.outcome is None:
            self.end(BROKEN_OFF)


class _Protocol(ResponseHandler):
    """A connection that tells the exchange under way of its answer, without a task to wait for it.

    Anything that nobody waits for stays in the queue that it inherits, which ends the connection.
    """

    exchange: _Exchange | None = None
    used_until = 0.0  # by the monotonic clock; no request is begun after

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take an answer, of which at least the head has come."""
        exchange = self.exchange
        if exchange is None:
            super().feed_data(data, size)
            return
        status = data[0].code
        if 100 <= status <= 199 and status != 101:  # noqa: PLR2004  RFC 9110, 15.2
            return
        self.exchange = None
        exchange.answer = data
        exchange.told(exchange)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """Take the end of the connection, or a fault in what came over it."""
        super().set_exception(exc, *cause)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end(_failed(exc, exchange.timeout_seconds))


class _Buffered(asyncio.BufferedProtocol):
    """Reads for a connection, into a buffer that all of a client's connections share.

    Without one, asyncio makes 256 KiB anew for every read, and uvloop for every read over TLS,
    which costs more than the cipher. What is read is taken out at once.
    """

    def __init__(self, protocol: ResponseHandler, buffer: memoryview) -> None:
        self._buffer = buffer
        self._received = protocol.data_received
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._buffer[:nbytes]))


class _Request(ClientRequest):
    """A request whose connection is shared within its tenant only."""

    @functools.cached_property
    def connection_key(self) -> ConnectionKey:
        # No proxy is used, so the place of its headers is free for the tenant.
        return super().connection_key._replace(proxy_headers_hash=hash(_connecting.get().tenant))


class _Connector(aiohttp.TCPConnector):
    """Hands out a kept connection only if it has been silent and is not too old.

    An answer that nobody asked for, lying on an idle connection, would be taken for the answer to
    the next request, which would then not even be sent (aiohttp issue 13656).
    """

    def __init__(
        self,
        *,
        idle_seconds_max: float,
        connection_seconds_max: float,
        is_direct: bool,
        **options: Any,
    ) -> None:
        super().__init__(keepalive_timeout=idle_seconds_max, **options)
        self._factory: Any = functools.partial(_Protocol, loop=self._loop)
        self._idle_seconds_max = idle_seconds_max
        self._seconds_max = connection_seconds_max
        self._is_direct = is_direct
        self._buffer = memoryview(bytearray(READ_BYTES))

    async def _create_connection(self, *args: Any, **kwargs: Any) -> ResponseHandler:
        protocol: Any = await super()._create_connection(*args, **kwargs)
        protocol.used_until = time.monotonic() + self._seconds_max
        if self._is_direct:
            # One parser reads all answers of a connection: making it costs as much as its work.
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        if protocol.transport is not None:
            protocol.transport.set_protocol(_Buffered(protocol, self._buffer))
        return protocol  # type: ignore[no-any-return]

    def take(self, key: ConnectionKey) -> "_Protocol | None":
        """Give a kept connection that can be used, if there is one; close those that cannot."""
        idle = self._conns.get(key)
        if idle is None:
            return None
        now = time.monotonic()
        found: _Protocol | None = None
        while idle and found is None:
            protocol: Any
            protocol, idle_since = idle.popleft()
            if (
                protocol.is_connected()
                and not protocol.should_close
                and now - idle_since <= self._idle_seconds_max
                and now < protocol.used_until
            ):
                found = protocol
                self._acquired.add(protocol)
            else:
                protocol.close()
        if not idle:
            del self._conns[key]
        return found

    async def make(self, target: "_Target") -> "_Protocol":
        """Make a connection, or give one that has become free."""
        connection = await self.connect(target.request, _NO_TRACES, _NO_TIMEOUT)
        protocol, connection._protocol = connection._protocol, None  # noqa: SLF001  else it ends with this object
        assert isinstance(protocol, _Protocol)
        return protocol

    def give_back(self, key: ConnectionKey, protocol: "_Protocol", *, is_clean: bool) -> None:
        """Take a connection back, to be used again if it can be."""
        self._release(key, protocol, should_close=not is_clean)

    async def _get(self, key: ConnectionKey, traces: Any) -> Connection | None:  # noqa: ARG002
        protocol = self.take(key)
        return None if protocol is None else Connection(self, key, protocol, self._loop)


class _Target(NamedTuple):
    """A URL, ready to be sent to."""

    tenant: str
    request: _Request  # what the connector knows a connection by
    key: ConnectionKey
    start: str  # the request line and the headers that are always the same


class Client:
    """The HTTP client of the engine; `open` before use, `close` after."""

    def __init__(self, settings: PostSettings, egress: Egress, *, user_agent: str) -> None:
        """Go where `egress` lets it."""
        self._settings = settings
        self._egress = egress
        self._fixed = {
            "Content-Type": "application/json",
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        }
        self._under_way: set[_Exchange] = set()
        self._unsent: list[tuple[_Exchange, _Target, bytes, bytes]] = []  # with head and body
        self._ended: list[_Exchange] = []  # their outcomes are told together
        self._is_ticking = False
        self._target = functools.lru_cache(TARGETS_REMEMBERED)(self._make_target)
        self._is_direct = settings.direct and parts_are_there()

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        self._loop = asyncio.get_running_loop()
        self._connector = _Connector(
            idle_seconds_max=self._settings.keep_alive_seconds,
            connection_seconds_max=self._settings.connection_seconds_max,
            is_direct=self._is_direct,
            limit=0,  # pace counts
            ssl=_tls(),
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """End every connection."""
        if hasattr(self, "_session"):
            await self._session.close()

    def post(
        self,
        url: str,
        headers: str,
        body: bytes,
        *,
        tenant: str,
        timeout_seconds: float,
        done: Callable[[Outcome], None],
    ) -> None:
        """Make one request and read its answer, all within `timeout_seconds`; then call `done`.

        `headers` are lines, each with its CRLF, that come after those which are always the same.
        The receiver's faults are outcomes, never exceptions. A redirect is an answer, no cookie is
        kept, no proxy of the environment used, and no connection shared between tenants.
        """
        exchange = _Exchange(
            done, timeout_seconds, self._loop.time() + timeout_seconds, self._has_ended
        )
        self._watch(exchange)
        if not self._is_direct:
            self._run(exchange, self._by_session(exchange, url, tenant, headers, body))
            return
        try:
            target = self._target(url, tenant)
            head = f"{target.start}{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        except Exception as error:  # noqa: BLE001  whatever a URL holds, it is an outcome
            exchange.end(_failed(error, timeout_seconds))
            return
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append((exchange, target, head, body))
        if len(self._unsent) == SENT_TOGETHER_MAX:
            self._send()

    def _send(self) -> None:
        """Write requests to their connections, many in a row.

        A receiver on this machine, or the kernel's part of one elsewhere, is woken once for all.
        """
        unsent, self._unsent = self._unsent, []
        for exchange, target, head, body in unsent:
            if exchange.outcome is not None:
                continue  # broken off meanwhile
            try:
                protocol = self._connector.take(target.key)
                if protocol is None:
                    self._run(exchange, self._connect_and_write(exchange, target, head, body))
                else:
                    _write(exchange, protocol, target.key, head, body)
            except Exception as error:  # noqa: BLE001  the others are sent all the same
                exchange.end(_failed(error, exchange.timeout_seconds))

    def break_off(self) -> None:
        """Let everything under way end now; the outcome of what had none yet is `BROKEN_OFF`."""
        for exchange in self._under_way:
            exchange.break_off()

    def _make_target(self, url: str, tenant: str) -> _Target:
        parsed = self._url(url)
        _connecting.set(_Connecting(tenant))
        request = _Request(
            "POST",
            parsed,
            headers=self._fixed,
            loop=self._loop,
            session=self._session,
        )
        lines = [
            f"{name}: {value}\r\n"
            for name, value in request.headers.items()
            if name != "Content-Length"  # of a body that is not there yet
        ]
        start = f"POST {request.url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}"
        return _Target(tenant, request, request.connection_key, start)

    def _url(self, url: str) -> URL:
        """Read a URL by our rules, so that the client has nothing left to interpret."""
        return URL(str(parse_url(url, self._egress)), encoded=True)

    def _has_ended(self, exchange: _Exchange) -> None:
        """Settle an exchange soon, with all others that end in the same moment.

        The same steps for many in a row cost half of what they do one at a time, in between others.
        """
        if not self._ended:
            self._loop.call_soon(self._settle)
        self._ended.append(exchange)

    def _settle(self) -> None:
        ended, self._ended = self._ended, []
        for exchange in ended:
            if exchange not in self._under_way:
                continue  # told before: its answer and the end of its task may come together
            outcome = self._answered(exchange) if exchange.outcome is None else exchange.outcome
            if outcome is None:
                continue
            self._under_way.remove(exchange)
            try:
                try:
                    self._let_go(exchange)
                finally:
                    exchange.done(outcome)
            except Exception as error:  # noqa: BLE001  the others have ended too
                self._loop.call_exception_handler({"message": "a POST's end", "exception": error})

    def _let_go(self, exchange: _Exchange) -> None:
        """Give back the connection of an exchange that has ended, if it has one."""
        protocol, key = exchange.protocol, exchange.key
        if protocol is None or key is None:
            return
        transport: Any = protocol.transport
        # An answer may come before the request is out; what is left of it would be taken for the
        # start of the next one.
        is_clean = (
            exchange.is_clean and transport is not None and not transport.get_write_buffer_size()
        )
        if not is_clean:
            # Not by a close alone: that would wait for a receiver to read all we wrote.
            protocol.exchange = None
            protocol.abort()
        self._connector.give_back(key, protocol, is_clean=is_clean)

    def _answered(self, exchange: _Exchange) -> Outcome | None:
        """Read an answer that is there as a whole, as most are; else read on in a task."""
        assert exchange.answer is not None
        message, content = exchange.answer
        try:
            start = b""
            if not content.at_eof():
                if not content.is_eof():
                    self._run(exchange, self._read_on(exchange, message, content))
                    return None
                start = content.read_nowait(self._settings.response_read_bytes)
            exchange.is_clean = content.at_eof()
            return _answered(message.code, message.headers, start)
        except Exception as error:  # noqa: BLE001  whatever an answer holds, it is an outcome
            return _failed(error, exchange.timeout_seconds)

    def _run(self, exchange: _Exchange, steps: Coroutine[Any, Any, Outcome | None]) -> None:
        """Go on in a task; its outcome is that of the exchange, if it gives one."""
        exchange.task = self._loop.create_task(steps)
        exchange.task.add_done_callback(functools.partial(_has_run, exchange))

    async def _connect_and_write(
        self, exchange: _Exchange, target: _Target, head: bytes, body: bytes
    ) -> None:
        protocol = await self._connect(target, exchange.ends_at)
        _write(exchange, protocol, target.key, head, body)
        if len(protocol):  # it has spoken before it was asked: that is its answer, and its last
            protocol.force_close()
            protocol.feed_data(await protocol.read())

    async def _read_on(
        self, exchange: _Exchange, message: RawResponseMessage, content: aiohttp.StreamReader
    ) -> Outcome:
        start, exchange.is_clean = await self._read(content)
        return _answered(message.code, message.headers, start)

    async def _connect(self, target: _Target, ends_at: float) -> _Protocol:
        connecting = _Connecting(target.tenant)
        _connecting.set(connecting)
        try:
            async with asyncio.timeout_at(ends_at):
                return await self._connector.make(target)
        except OSError as error:
            if connecting.refusals and not isinstance(error, TimeoutError):
                raise _BlockedError(connecting.refusals[0]) from error
            raise

    def _watch(self, exchange: _Exchange) -> None:
        """See to it that a request ends in time.

        One look a few times a second at all that is under way costs less than a timer for each.
        """
        self._under_way.add(exchange)
        if not self._is_ticking:
            self._is_ticking = True
            self._loop.call_later(DEADLINE_TICK_SECONDS, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        for exchange in [it for it in self._under_way if it.ends_at <= now]:
            exchange.expire()
        self._is_ticking = bool(self._under_way)
        if self._is_ticking:
            self._loop.call_later(DEADLINE_TICK_SECONDS, self._look)

    async def _by_session(
        self, exchange: _Exchange, url: str, tenant: str, headers: str, body: bytes
    ) -> Outcome:
        connecting = _Connecting(tenant)
        _connecting.set(connecting)
        try:
            async with self._session.post(
                self._url(url),
                data=body,
                headers={
                    **self._fixed,
                    **dict(line.split(": ", 1) for line in headers.split("\r\n") if line),
                },
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=exchange.timeout_seconds),
            ) as response:
                start, is_whole = await self._read(response.content)
                if not is_whole:
                    response.close()
                return _answered(response.status, response.headers, start)
        except OSError as error:
            if connecting.refusals and not isinstance(error, TimeoutError):
                raise _BlockedError(connecting.refusals[0]) from error
            raise

    async def _read(self, content: aiohttp.StreamReader) -> tuple[bytes, bool]:
        """Read an answer to its end or to the bound; tell whether that was the end.

        A connection that breaks off in the middle leaves the status as it is.
        """
        most = self._settings.response_read_bytes
        start = b""
        try:
            while not content.at_eof():
                if len(start) >= most:
                    return start, False
                start += await content.read(most - len(start))
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
            if isinstance(error, TimeoutError):
                raise
            return start, False
        return start, True

    def _socket(self, address_info: Any) -> socket.socket:
        """Make the socket for an address that may be connected to.

        Every connection comes through here with the numeric address that it is about to use,
        whether the URL named it or a name led to it.
        """
        family, kind, protocol, _, address = address_info
        reason = why_closed(address[0], address[1], self._egress.allowed)
        if reason is not None:
            _connecting.get().refusals.append(reason)
            raise _BlockedError(reason)
        return socket.socket(family, kind, protocol)


def _has_run(exchange: _Exchange, task: asyncio.Task[Outcome | None]) -> None:
    if exchange.task is task:  # else its answer is there, and is being read
        exchange.task = None
    if task.cancelled():
        exchange.end(BROKEN_OFF)
    elif (error := task.exception()) is not None:
        exchange.end(_failed(error, exchange.timeout_seconds))
    elif (outcome := task.result()) is not None:
        exchange.end(outcome)


def _write(
    exchange: _Exchange, protocol: _Protocol, key: ConnectionKey, head: bytes, body: bytes
) -> None:
    exchange.protocol, exchange.key = protocol, key
    transport: Any = protocol.transport
    if transport is None:
        exchange.end(_failed(aiohttp.ServerDisconnectedError(), exchange.timeout_seconds))
        return
    protocol.exchange = exchange
    if len(body) <= JOINED_BYTES_MAX:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(body)


def _answered(status: int, headers: Any, start: bytes) -> Answered:
    if status < 400:  # noqa: PLR2004  there it says nothing to us, and that is most of all
        return Answered(status, None, start)
    value = headers.get("Retry-After")
    return Answered(status, retry_after_seconds(status, value, time.time()), start)


def _failed(error: BaseException, timeout_seconds: float) -> Outcome:
    match error:
        case _BrokenOffError():
            return BROKEN_OFF
        case TimeoutError():
            return TimedOut(timeout_seconds)
        case _BlockedError() | UrlRefused():
            return Blocked(str(error))
        case _:
            return NotReached(_told(error))


def parts_are_there() -> bool:
    """Tell whether this release of aiohttp has the inner parts that are used here."""
    return all(
        hasattr(owner, name)
        for owner, names in (
            (aiohttp.TCPConnector, ("connect", "_get", "_create_connection", "_release")),
            (
                ResponseHandler,
                ("set_response_params", "set_exception", "feed_data", "read", "should_close"),
            ),
            (ClientRequest, ("connection_key",)),
        )
        for name in names
    )


def _tls() -> ssl.SSLContext:
    """Make the context by hand: `create_default_context` would honour SSLKEYLOGFILE."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_default_certs()
    return context


def _told(error: BaseException) -> str:  # noqa: PLR0911  a line for each kind
    """Say what went wrong, without the URL's query or a header: those may hold secrets."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorDNSError():
            return f"its name cannot be resolved: {error.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return f"its answer is not HTTP: {error.message}"
        case aiohttp.ClientOSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the request could not be made: {type(error).__name__}"
