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
from collections.abc import Awaitable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.model import Answered, Blocked, NotReached, Outcome, TimedOut
from aetherflow_hooks.rules.addresses import Allowed, why_closed
from aetherflow_hooks.rules.retry import retry_after_seconds

TARGETS_REMEMBERED = 10_000  # URLs whose first lines stay written
DEADLINE_TICK_SECONDS = 0.05  # how late the end of a deadline may be noticed
JOINED_BYTES_MAX = 65_536  # a body up to this goes out in one write with its head

_NO_TRACES: list[Any] = []
_NO_TIMEOUT = aiohttp.ClientTimeout()  # the deadline is ours


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
class _UnderWay:
    """A request that waits for its answer, or for the rest of it."""

    ends_at: float  # by the loop's clock
    protocol: ResponseHandler
    content: aiohttp.StreamReader | None = None

    def end(self) -> None:
        """Let whoever waits for it see a TimeoutError."""
        self.protocol.set_exception(TimeoutError())
        if self.content is not None:
            self.content.set_exception(TimeoutError())


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
        self, *, idle_seconds_max: float, connection_seconds_max: float, **options: Any
    ) -> None:
        super().__init__(keepalive_timeout=idle_seconds_max, **options)
        self._idle_seconds_max = idle_seconds_max
        self._seconds_max = connection_seconds_max

    async def _create_connection(self, *args: Any, **kwargs: Any) -> ResponseHandler:
        protocol = await super()._create_connection(*args, **kwargs)
        # One parser reads all answers of a connection: making it costs as much as its work.
        protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        protocol.aetherflow_ends_at = time.monotonic() + self._seconds_max  # type: ignore[attr-defined]
        return protocol

    def kept(self, key: ConnectionKey) -> Connection | None:
        """Give a kept connection that can be used, if there is one; close those that cannot."""
        idle = self._conns.get(key)
        if idle is None:
            return None
        now = time.monotonic()
        found = None
        while idle and found is None:
            protocol: Any
            protocol, idle_since = idle.popleft()
            if (
                protocol.is_connected()
                and not protocol.should_close
                and now - idle_since <= self._idle_seconds_max
                and now < protocol.aetherflow_ends_at
            ):
                found = protocol
            else:
                protocol.close()
        if not idle:
            del self._conns[key]
        if found is None:
            return None
        self._acquired.add(found)
        return Connection(self, key, found, self._loop)

    async def _get(self, key: ConnectionKey, traces: Any) -> Connection | None:  # noqa: ARG002
        return self.kept(key)


class _Target(NamedTuple):
    """A URL, ready to be sent to."""

    tenant: str
    request: _Request  # what the connector knows a connection by
    key: ConnectionKey
    start: str  # the request line and the headers that are always the same


class Client:
    """The HTTP client of the engine; `open` before use, `close` after."""

    def __init__(
        self, settings: PostSettings, allowed: Sequence[Allowed], *, user_agent: str
    ) -> None:
        """Go to public addresses and to those `allowed`."""
        self._settings = settings
        self._allowed = allowed
        self._fixed = {
            "Content-Type": "application/json",
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        }
        self._under_way: set[_UnderWay] = set()
        self._is_ticking = False
        self._target = functools.lru_cache(TARGETS_REMEMBERED)(self._make_target)
        self._exchange = (
            self._write_and_read if settings.direct and parts_are_there() else self._by_session
        )

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        self._loop = asyncio.get_running_loop()
        self._connector = _Connector(
            idle_seconds_max=self._settings.keep_alive_seconds,
            connection_seconds_max=self._settings.connection_seconds_max,
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
        self, url: str, headers: str, body: bytes, *, tenant: str, timeout_seconds: float
    ) -> Awaitable[Outcome]:
        """Make one request and read its answer, all within `timeout_seconds`.

        `headers` are lines, each with its CRLF, that come after those which are always the same.
        The receiver's faults are outcomes, never exceptions. A redirect is an answer, no cookie is
        kept, no proxy of the environment used, and no connection shared between tenants.
        """
        return self._exchange(url, tenant, headers, body, timeout_seconds)

    def _make_target(self, url: str, tenant: str) -> _Target:
        parsed = URL(url, encoded=True)
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

    async def _write_and_read(  # noqa: C901, PLR0912  a frame for each part would cost a tenth
        self, url: str, tenant: str, headers: str, body: bytes, timeout_seconds: float
    ) -> Outcome:
        connection: Connection | None = None
        under_way: _UnderWay | None = None
        is_clean = False
        try:
            target = self._target(url, tenant)
            ends_at = self._loop.time() + timeout_seconds
            connection = self._connector.kept(target.key)
            if connection is None:
                connection = await self._connect(target, ends_at)
            protocol = connection.protocol
            transport = connection.transport
            if protocol is None or transport is None:
                raise aiohttp.ServerDisconnectedError  # noqa: TRY301  told like any other
            under_way = _UnderWay(ends_at, protocol)
            self._watch(under_way)
            head = f"{target.start}{headers}Content-Length: {len(body)}\r\n\r\n".encode()
            if len(body) <= JOINED_BYTES_MAX:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            while True:
                message, content = await protocol.read()
                status: int = message.code
                if not 100 <= status <= 199 or status == 101:  # noqa: PLR2004  RFC 9110, 15.2
                    break
            if content.at_eof():
                start, is_whole = b"", True
            else:
                under_way.content = content
                start, is_whole = await self._read(content)
            # An answer may come before the request is out; what is left of it would be taken for
            # the start of the next one.
            is_clean = is_whole and not transport.get_write_buffer_size()
            return _answered(status, message.headers, start)
        except Exception as error:  # noqa: BLE001  whatever a URL or an answer does, it is an outcome
            return _failed(error, timeout_seconds)
        finally:
            if under_way is not None:
                self._under_way.discard(under_way)
            if connection is not None:
                if is_clean:
                    connection.release()
                else:
                    # Not by a close alone: that would wait for a receiver to read all we wrote.
                    if connection.protocol is not None:
                        connection.protocol.abort()
                    connection.close()

    async def _connect(self, target: _Target, ends_at: float) -> Connection:
        connecting = _Connecting(target.tenant)
        _connecting.set(connecting)
        try:
            async with asyncio.timeout_at(ends_at):
                return await self._connector.connect(target.request, _NO_TRACES, _NO_TIMEOUT)
        except OSError as error:
            if connecting.refusals and not isinstance(error, TimeoutError):
                raise _BlockedError(connecting.refusals[0]) from error
            raise

    def _watch(self, under_way: _UnderWay) -> None:
        """See to it that a request ends in time.

        One look a few times a second at all that is under way costs less than a timer for each.
        """
        self._under_way.add(under_way)
        if not self._is_ticking:
            self._is_ticking = True
            self._loop.call_later(DEADLINE_TICK_SECONDS, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        for under_way in [it for it in self._under_way if it.ends_at <= now]:
            self._under_way.discard(under_way)
            under_way.end()
        self._is_ticking = bool(self._under_way)
        if self._is_ticking:
            self._loop.call_later(DEADLINE_TICK_SECONDS, self._look)

    async def _by_session(
        self, url: str, tenant: str, headers: str, body: bytes, timeout_seconds: float
    ) -> Outcome:
        connecting = _Connecting(tenant)
        _connecting.set(connecting)
        try:
            async with self._session.post(
                URL(url, encoded=True),
                data=body,
                headers={
                    **self._fixed,
                    **dict(line.split(": ", 1) for line in headers.split("\r\n") if line),
                },
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_seconds),
            ) as response:
                start, is_whole = await self._read(response.content)
                if not is_whole:
                    response.close()
                return _answered(response.status, response.headers, start)
        except Exception as error:  # noqa: BLE001  whatever a URL or an answer does, it is an outcome
            if connecting.refusals and not isinstance(error, TimeoutError):
                return Blocked(connecting.refusals[0])
            return _failed(error, timeout_seconds)

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
        reason = why_closed(address[0], address[1], self._allowed)
        if reason is not None:
            _connecting.get().refusals.append(reason)
            raise _BlockedError(reason)
        return socket.socket(family, kind, protocol)


def _answered(status: int, headers: Any, start: bytes) -> Answered:
    if status < 400:  # noqa: PLR2004  there it says nothing to us, and that is most of all
        return Answered(status, None, start)
    value = headers.get("Retry-After")
    return Answered(status, retry_after_seconds(status, value, time.time()), start)


def _failed(error: Exception, timeout_seconds: float) -> Outcome:
    match error:
        case TimeoutError():
            return TimedOut(timeout_seconds)
        case _BlockedError():
            return Blocked(str(error))
        case _:
            return NotReached(_told(error))


def parts_are_there() -> bool:
    """Tell whether this release of aiohttp has the inner parts that are used here."""
    return all(
        hasattr(owner, name)
        for owner, names in (
            (aiohttp.TCPConnector, ("connect", "_get", "_create_connection")),
            (ResponseHandler, ("set_response_params", "set_exception", "read", "should_close")),
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


def _told(error: Exception) -> str:  # noqa: PLR0911  a line for each kind
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
