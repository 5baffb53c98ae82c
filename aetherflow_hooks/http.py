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
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
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
class _Trail:
    """What one attempt met on its way.

    With several addresses the errors of all of them are folded into one that tells nothing, so a
    blocked one is noted here as well.
    """

    tenant: str
    blocked: list[str] = field(default_factory=list)


_trail: ContextVar[_Trail] = ContextVar("_trail")


class _Request(ClientRequest):
    """A request whose connection is shared within its tenant only."""

    @functools.cached_property
    def connection_key(self) -> ConnectionKey:
        # No proxy is used, so the place of its headers is free for the tenant.
        return super().connection_key._replace(proxy_headers_hash=hash(_trail.get().tenant))


class _Connector(aiohttp.TCPConnector):
    """Hands out a kept connection only if it has been silent and is not too old.

    An answer that nobody asked for, lying on an idle connection, would be taken for the answer to
    the next request, which would then not even be sent (aiohttp issue 13656).
    """

    def __init__(self, *, connection_seconds_max: float, **options: Any) -> None:
        super().__init__(**options)
        self._seconds_max = connection_seconds_max

    async def _create_connection(self, *args: Any, **kwargs: Any) -> ResponseHandler:
        protocol = await super()._create_connection(*args, **kwargs)
        protocol.aetherflow_made_at = time.monotonic()  # type: ignore[attr-defined]
        return protocol

    async def _get(self, key: ConnectionKey, traces: Any) -> Any:
        idle = self._conns.get(key)
        while idle and self._is_spent(idle[0][0]):  # the one that would be handed out
            idle.popleft()[0].close()
        return await super()._get(key, traces)

    def _is_spent(self, protocol: Any) -> bool:
        age_seconds: float = time.monotonic() - protocol.aetherflow_made_at
        return protocol.should_close or age_seconds > self._seconds_max


class _Target(NamedTuple):
    """A URL, ready to be sent to."""

    url: URL
    request: _Request  # what the connector knows a connection by
    start: bytes  # the request line and the headers that are always the same


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
        self._deadlines = _Deadlines()
        self._target = functools.lru_cache(TARGETS_REMEMBERED)(self._make_target)
        self._exchange = (
            self._write_and_read if settings.direct and parts_are_there() else self._by_session
        )

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        self._connector = _Connector(
            connection_seconds_max=self._settings.connection_seconds_max,
            limit=0,  # pace counts
            keepalive_timeout=self._settings.keep_alive_seconds,
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

    async def post(
        self, url: str, headers: str, body: bytes, *, tenant: str, timeout_seconds: float
    ) -> Outcome:
        """Make one request and read its answer, all within `timeout_seconds`.

        `headers` are lines, each with its CRLF, that come after those which are always the same.
        The receiver's faults are outcomes, never exceptions. A redirect is an answer, no cookie is
        kept, no proxy of the environment used, and no connection shared between tenants.
        """
        trail = _Trail(tenant)
        _trail.set(trail)
        try:
            with self._deadlines.within(timeout_seconds):
                return await self._exchange(self._target(url, tenant), headers, body)
        except TimeoutError:
            return TimedOut(timeout_seconds)
        except Exception as error:  # noqa: BLE001  whatever a URL or an answer does, it is an outcome
            if trail.blocked:
                return Blocked(trail.blocked[0])
            return NotReached(_told(error))

    def _make_target(self, url: str, tenant: str) -> _Target:  # noqa: ARG002  tenant: in the key
        parsed = URL(url, encoded=True)
        request = _Request(
            "POST",
            parsed,
            headers=self._fixed,
            loop=asyncio.get_running_loop(),
            session=self._session,
        )
        _ = request.connection_key  # made now, while the trail is that of the tenant
        lines = [
            f"{name}: {value}\r\n"
            for name, value in request.headers.items()
            if name != "Content-Length"  # of a body that is not there yet
        ]
        start = f"POST {request.url.raw_path_qs} HTTP/1.1\r\n{''.join(lines)}"
        return _Target(parsed, request, start.encode())

    async def _write_and_read(self, target: _Target, headers: str, body: bytes) -> Outcome:
        connection = await self._connector.connect(target.request, _NO_TRACES, _NO_TIMEOUT)
        is_clean = False
        try:
            protocol = connection.protocol
            transport = connection.transport
            if protocol is None or transport is None:
                raise aiohttp.ServerDisconnectedError
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
            head = b"%bContent-Length: %d\r\n%b\r\n" % (target.start, len(body), headers.encode())
            if len(body) <= JOINED_BYTES_MAX:
                transport.write(head + body)
            else:
                transport.write(head)
                transport.write(body)
            while True:
                message, payload = await protocol.read()
                if not 100 <= message.code <= 199 or message.code == 101:  # noqa: PLR2004  RFC 9110, 15.2
                    break
            start, is_whole = await self._read(payload)
            # An answer may come before the request is out; what is left of it would be taken for
            # the start of the next one.
            is_clean = is_whole and not transport.get_write_buffer_size()
            return self._answered(message.code, message.headers, start)
        finally:
            if is_clean:
                connection.release()
            else:
                connection.close()

    async def _by_session(self, target: _Target, headers: str, body: bytes) -> Outcome:
        async with self._session.post(
            target.url,
            data=body,
            headers={
                **self._fixed,
                **dict(line.split(": ", 1) for line in headers.split("\r\n") if line),
            },
            allow_redirects=False,
            timeout=_NO_TIMEOUT,
        ) as response:
            start, is_whole = await self._read(response.content)
            if not is_whole:
                response.close()
            return self._answered(response.status, response.headers, start)

    @staticmethod
    def _answered(status: int, headers: Any, start: bytes) -> Answered:
        value = headers.get("Retry-After")
        return Answered(status, value and retry_after_seconds(status, value, time.time()), start)

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
            _trail.get().blocked.append(reason)
            raise _BlockedError(reason)
        return socket.socket(family, kind, protocol)


class _Deadlines:
    """Ends what takes too long.

    One look a few times a second at all that is under way costs less than a timer for each.
    """

    def __init__(self) -> None:
        self.ends: dict[asyncio.Task[Any], float] = {}  # by the loop's clock
        self.late: set[asyncio.Task[Any]] = set()
        self._is_ticking = False

    def within(self, seconds: float) -> "_Deadline":
        """Give a context that is left by TimeoutError, at the latest a tick after `seconds`."""
        if not self._is_ticking:
            self._is_ticking = True
            asyncio.get_running_loop().call_later(DEADLINE_TICK_SECONDS, self._look)
        return _Deadline(self, seconds)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task in [task for task, end in self.ends.items() if end <= now]:
            del self.ends[task]
            self.late.add(task)
            task.cancel()
        if self.ends:
            loop.call_later(DEADLINE_TICK_SECONDS, self._look)
        else:
            self._is_ticking = False


class _Deadline:
    """One deadline of the running task."""

    __slots__ = ("_deadlines", "_seconds", "_task")

    def __init__(self, deadlines: _Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._deadlines.ends[task] = asyncio.get_running_loop().time() + self._seconds

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._deadlines.ends.pop(self._task, None) is not None:
            return
        self._deadlines.late.discard(self._task)
        # Whoever else has cancelled the task as well is to have his way.
        if self._task.uncancel() == 0 and kind is asyncio.CancelledError:
            raise TimeoutError


def parts_are_there() -> bool:
    """Tell whether this release of aiohttp has the inner parts that are used here."""
    return all(
        hasattr(owner, name)
        for owner, names in (
            (aiohttp.TCPConnector, ("connect", "_get", "_create_connection")),
            (ResponseHandler, ("set_response_params", "read", "should_close")),
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
