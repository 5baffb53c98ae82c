"""Client: the way of one request to its answer.

A request is written straight to its connection, which costs a third of what aiohttp's session does
per request. Where a release of aiohttp lacks a part that this needs, the session serves instead.
"""

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_parser import RawResponseMessage
from multidict import CIMultiDict
from yarl import URL

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.http.connections import (
    Connections,
    Connector,
    OnMixed,
    Protocol,
    Request,
    connecting_for,
    parts_are_there,
)
from aetherflow_hooks.http.exchange import BROKEN_OFF, Exchange, answered, failed
from aetherflow_hooks.http.tls import make_tls
from aetherflow_hooks.model import Ended, Outcome
from aetherflow_hooks.rules.addresses import Egress, Net
from aetherflow_hooks.rules.proxy import Proxy
from aetherflow_hooks.rules.urls import parse_url

TARGETS_REMEMBERED = 10_000  # URLs whose first lines stay written
CERTIFICATES_REMEMBERED = 1_000  # of ours, each beside the authorities that are trusted
DEADLINE_TICK_SECONDS = 0.05  # how late the end of a deadline may be noticed
JOINED_BYTES_MAX = 65_536  # a body up to this goes out in one write with its head
SENT_TOGETHER_MAX = 8  # a receiver begins with these while the next are made


class Target(NamedTuple):
    """A URL, ready to be sent to."""

    tenant: str
    request: Request  # what the connector knows a connection by
    key: ConnectionKey
    start: str  # the request line and the headers that are always the same
    is_by_proxy: bool


class Client:
    """The HTTP client of the engine; `open` before use, `close` after."""

    def __init__(
        self,
        settings: PostSettings,
        egress: Egress,
        *,
        user_agent: str,
        proxy: Proxy | None = None,
        on_mixed: OnMixed = lambda _name, _details: None,
    ) -> None:
        """Go where `egress` lets it, by a `proxy` where there is one."""
        self._settings = settings
        self._egress = egress
        self._proxy = proxy
        self._on_mixed = on_mixed
        self._fixed = {
            "Content-Type": "application/json",
            "User-Agent": user_agent,
            "Accept-Encoding": "identity",
        }
        self._under_way: set[Exchange] = set()
        self._unsent: list[tuple[Exchange, Target, bytes, bytes]] = []  # with head and body
        self._ended: list[Exchange] = []  # their outcomes are told together
        self._is_ticking = False
        self._target = functools.lru_cache(TARGETS_REMEMBERED)(self._make_target)
        self._tls = functools.lru_cache(CERTIFICATES_REMEMBERED)(make_tls)
        self._is_direct = settings.direct and parts_are_there()

    async def open(self, denied: Iterable[Net] = ()) -> None:
        """Make the session; nothing is connected yet, and nothing will be to what is `denied`."""
        self._egress = self._egress._replace(denied=(*self._egress.denied, *denied))
        self._loop = asyncio.get_running_loop()
        self._connector = Connector(
            self._egress,
            self._proxy,
            idle_seconds_max=self._settings.keep_alive_seconds,
            connection_seconds_max=self._settings.connection_seconds_max,
            body_bytes_max=self._settings.response_read_bytes,
            is_direct=self._is_direct,
            on_mixed=self._on_mixed,
            limit=0,  # pace counts
            ssl=self._tls(""),
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            request_class=Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=["Accept"],
            trust_env=False,
        )

    async def close(self) -> None:
        """End every connection."""
        if hasattr(self, "_session"):
            await self._session.close()
            await self._connector.names.close()

    def connections(self) -> Connections:
        """Count connections."""
        return self._connector.count()

    def post(
        self,
        url: str,
        headers: str,
        body: bytes,
        *,
        tenant: str,
        timeout_seconds: float,
        done: Callable[[Ended], None],
        certificate: str = "",
    ) -> None:
        """Make one request and read its answer, all within `timeout_seconds`; then call `done`.

        `headers` are lines, each with its CRLF, that come after those which are always the same.
        A server that asks who calls is shown the `certificate`, a PEM with its key. The receiver's
        faults are outcomes, never exceptions. A redirect is an answer, no cookie is kept, no proxy
        of the environment used, and no connection shared between tenants.
        """
        exchange = Exchange(
            done, timeout_seconds, self._loop.time() + timeout_seconds, self._has_ended
        )
        self._under_way.add(exchange)
        if not self._is_ticking:
            self._watch()
        if not self._is_direct:
            self._run(exchange, self._by_session(exchange, url, tenant, headers, body, certificate))
            return
        try:
            target = self._target(url, tenant, certificate)
            head = f"{target.start}{headers}Content-Length: {len(body)}\r\n\r\n".encode()
        except Exception as error:  # noqa: BLE001  whatever a URL holds, it is an outcome
            exchange.end(failed(error, timeout_seconds))
            return
        if not self._unsent:
            self._loop.call_soon(self._send)
        self._unsent.append((exchange, target, head, body))
        if len(self._unsent) == SENT_TOGETHER_MAX:
            self._send()

    async def reach(
        self, url: str, *, tenant: str, timeout_seconds: float, certificate: str = ""
    ) -> Ended | None:
        """Connect as `post` would, and send nothing; tell how it failed, if it did."""
        try:
            target = self._target(url, tenant, certificate)
            protocol = await self._connect(target, self._loop.time() + timeout_seconds)
        except Exception as error:  # noqa: BLE001  whatever a URL holds, it is an outcome
            return failed(error, timeout_seconds)
        self._connector.give_back(target.key, protocol, is_clean=False)
        return None

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
                exchange.end(failed(error, exchange.timeout_seconds))

    def break_off(self) -> None:
        """Let everything under way end now; the outcome of what had none yet is `BROKEN_OFF`."""
        for exchange in self._under_way:
            exchange.break_off()

    def _make_target(self, url: str, tenant: str, certificate: str) -> Target:
        parsed, proxy = self._way(url)
        with connecting_for(tenant):
            request = Request(
                "POST",
                parsed,
                headers={**self._fixed, **_spoken_to(proxy, parsed)},
                loop=self._loop,
                session=self._session,
                ssl=self._tls(certificate),
                **_by(proxy),
            )
            key = request.connection_key
        lines = [
            f"{name}: {value}\r\n"
            for name, value in request.headers.items()
            # of a body that is not there yet; and that we take anything, which is said by silence
            if name not in ("Content-Length", "Accept")
        ]
        is_plain_by_proxy = proxy is not None and not request.is_ssl()
        place = str(parsed) if is_plain_by_proxy else parsed.raw_path_qs  # RFC 9112, 3.2.2
        start = f"POST {place} HTTP/1.1\r\n{''.join(lines)}"
        return Target(tenant, request, key, start, proxy is not None)

    def _way(self, url: str) -> tuple[URL, Proxy | None]:
        """Read a URL by our rules, and say whether it is reached by the proxy.

        The rules were asked when it was registered, but the settings may have changed since, or
        another hand have written the row; and the client has nothing left to interpret.
        """
        parsed = parse_url(url, self._egress)
        proxy = self._proxy
        if proxy is not None and not proxy.serves(parsed.host, parsed.port):
            proxy = None
        return URL(str(parsed), encoded=True), proxy

    def _has_ended(self, exchange: Exchange) -> None:
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

    def _let_go(self, exchange: Exchange) -> None:
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

    def _answered(self, exchange: Exchange) -> Ended | None:
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
            return answered(message.code, message.headers, start)
        except Exception as error:  # noqa: BLE001  whatever an answer holds, it is an outcome
            return failed(error, exchange.timeout_seconds)

    def _run(self, exchange: Exchange, steps: Coroutine[Any, Any, Ended | None]) -> None:
        """Go on in a task; its outcome is that of the exchange, if it gives one."""
        exchange.task = self._loop.create_task(steps)
        exchange.task.add_done_callback(functools.partial(_has_run, exchange))

    async def _connect_and_write(
        self, exchange: Exchange, target: Target, head: bytes, body: bytes
    ) -> None:
        protocol = await self._connect(target, exchange.ends_at)
        _write(exchange, protocol, target.key, head, body)
        if len(protocol):  # it has spoken before it was asked: that is its answer, and its last
            protocol.force_close()
            protocol.feed_data(await protocol.read())

    async def _read_on(
        self, exchange: Exchange, message: RawResponseMessage, content: aiohttp.StreamReader
    ) -> Outcome:
        start, exchange.is_clean = await self._read(content)
        return answered(message.code, message.headers, start)

    async def _connect(self, target: Target, ends_at: float) -> Protocol:
        with connecting_for(target.tenant, is_by_proxy=target.is_by_proxy):
            async with asyncio.timeout_at(ends_at):
                return await self._connector.make(target.request)

    def _watch(self) -> None:
        """See to it that requests end in time.

        One look a few times a second at all that is under way costs less than a timer for each.
        """
        now = self._loop.time()
        for exchange in [it for it in self._under_way if it.ends_at <= now]:
            exchange.expire()
        self._is_ticking = bool(self._under_way)
        if self._is_ticking:
            self._loop.call_later(DEADLINE_TICK_SECONDS, self._watch)

    async def _by_session(
        self,
        exchange: Exchange,
        url: str,
        tenant: str,
        headers: str,
        body: bytes,
        certificate: str,
    ) -> Outcome:
        parsed, proxy = self._way(url)
        with connecting_for(tenant, is_by_proxy=proxy is not None):
            async with self._session.post(
                parsed,
                data=body,
                ssl=self._tls(certificate),
                **_by(proxy),
                headers={
                    **self._fixed,
                    **_spoken_to(proxy, parsed),
                    **dict(line.split(": ", 1) for line in headers.split("\r\n") if line),
                },
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=exchange.timeout_seconds),
            ) as response:
                start, is_whole = await self._read(response.content)
                if not is_whole:
                    response.close()
                return answered(response.status, response.headers, start)

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


def _by(proxy: Proxy | None) -> dict[str, Any]:
    """Say to aiohttp by which proxy a request goes."""
    if proxy is None:
        return {}
    headers = {"Proxy-Authorization": proxy.authorization} if proxy.authorization else None
    return {"proxy": URL(proxy.url), "proxy_headers": CIMultiDict(headers) if headers else None}


def _spoken_to(proxy: Proxy | None, url: URL) -> dict[str, str]:
    """Give the headers for a proxy that reads the request itself, and makes no tunnel."""
    if proxy is None or not proxy.authorization or url.scheme == "https":
        return {}
    return {"Proxy-Authorization": proxy.authorization}


def _has_run(exchange: Exchange, task: asyncio.Task[Ended | None]) -> None:
    if exchange.task is task:  # else its answer is there, and is being read
        exchange.task = None
    if task.cancelled():
        exchange.end(BROKEN_OFF)
    elif (error := task.exception()) is not None:
        exchange.end(failed(error, exchange.timeout_seconds))
    elif (outcome := task.result()) is not None:
        exchange.end(outcome)


def _write(
    exchange: Exchange, protocol: Protocol, key: ConnectionKey, head: bytes, body: bytes
) -> None:
    exchange.protocol, exchange.key = protocol, key
    transport: Any = protocol.transport
    if transport is None:
        exchange.end(failed(aiohttp.ServerDisconnectedError(), exchange.timeout_seconds))
        return
    protocol.exchange = exchange
    if len(body) <= JOINED_BYTES_MAX:
        transport.write(head + body)
    else:
        transport.write(head)
        transport.write(body)
