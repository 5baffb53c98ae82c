"""Connections: made through the guard, kept within a tenant, used again while they are clean.

aiohttp's connector keeps them and speaks TLS, its parser reads answers. What is used of their inner
parts is named by `parts_are_there`.
"""

import asyncio
import errno
import functools
import os
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage

from aetherflow_hooks.http.exchange import BlockedError, Exchange, PreventedError, failed
from aetherflow_hooks.http.names import Addresses, Names
from aetherflow_hooks.rules.addresses import Closed, Egress, why_closed
from aetherflow_hooks.rules.proxy import Proxy

READ_BYTES = 65_536  # of a connection at once
SLICE_BYTES = 4_096  # that go through the parser at once: some hundred of the shortest answers
HEAD_BYTES_MAX = 524_288  # of an answer beside its body, with whatever comes before and within
UNSEEN_SECONDS = 0.02  # what came longer ago has been read, unless the loop stood still meanwhile
EMPTY_LINE = b"\r\n\r\n"  # with the end of the line before it: the end of a head
INTERIM_MAX = 20  # answers that are not the final one (RFC 9110, 15.2)

# Told the name whose addresses are closed in part, and of each of those which rule closes it.
OnMixed = Callable[[str, list[str]], None]


class Connections(NamedTuple):
    """How many there are."""

    busy: int
    idle: int
    opened: int  # since the start


_NO_TRACES: list[Any] = []
_NO_TIMEOUT = aiohttp.ClientTimeout()  # the deadline is the exchange's


@dataclass(slots=True)
class _Connecting:
    """Whose connection is being made, and what came of the addresses that it was to go to.

    With several addresses the errors of all of them are folded into one that tells nothing, so a
    refusal is noted here as well.
    """

    tenant: str
    is_by_proxy: bool
    tried: set[str] = field(default_factory=set)
    refused: list[Closed] = field(default_factory=list)


_connecting: ContextVar[_Connecting] = ContextVar("_connecting")


@contextmanager
def connecting_for(tenant: str, *, is_by_proxy: bool = False) -> Iterator[None]:
    """Make connections for a tenant; all of them to the proxy, where it is by that.

    Raises:
        BlockedError: every address was refused.
        PreventedError: the proxy cannot be reached.
    """
    connecting = _Connecting(tenant, is_by_proxy)
    _connecting.set(connecting)
    try:
        yield
    except (aiohttp.ClientProxyConnectionError, aiohttp.ClientConnectorDNSError) as error:
        if not is_by_proxy:  # which resolves the names of endpoints itself
            raise
        why = error.os_error.strerror or error.os_error
        raise PreventedError(f"the proxy cannot be reached: {why}") from error
    except OSError as error:
        if connecting.refused and not connecting.tried and not isinstance(error, TimeoutError):
            raise BlockedError(connecting.refused[0]) from error
        raise


class Protocol(ResponseHandler):
    """A connection that tells the exchange under way of its answer, without a task to wait for it.

    Anything that nobody waits for stays in the queue that it inherits, which ends the connection.
    """

    exchange: Exchange | None = None
    used_until = 0.0  # by the monotonic clock; no request is begun after
    received_bytes = 0  # since the request was begun
    interim_answers = 0  # likewise
    head_bytes = 0  # of the first head; 0: it is not all there
    tail = b""  # the last bytes that came
    final: RawResponseMessage | None = None  # the answer's head
    is_deaf = False  # it has said too much, and waits for the end of its deadline

    def begin(self) -> None:
        """Count anew, for the next request."""
        self.received_bytes = self.interim_answers = self.head_bytes = 0
        self.tail, self.final = b"", None

    def receive(self, data: bytes) -> None:
        """Note what came, before it is parsed."""
        seen = self.tail + data
        if not self.head_bytes and (place := seen.find(EMPTY_LINE)) >= 0:
            self.head_bytes = self.received_bytes - len(self.tail) + place + len(EMPTY_LINE)
        self.received_bytes += len(data)
        self.tail = seen[-len(EMPTY_LINE) :]

    def is_at_end(self) -> bool:
        """Tell whether nothing came behind the answer.

        The start of another head would wait in the parser, which tells nobody, and become that of
        the next request's answer. A head that is whole makes an answer of its own, in the queue.
        """
        if self.final is None:
            return True
        length = self.final.headers.get("Content-Length", "0")
        if length == "0" or self.final.chunked:
            return self.tail == EMPTY_LINE
        # Where other answers came before it, it is not worth to find out.
        return (
            not self.interim_answers
            and bool(self.head_bytes)
            and self.received_bytes == self.head_bytes + int(length)
        )

    def listen_no_more(self) -> None:
        """Read no more of an answer without end: it costs nothing, and its sender the deadline."""
        self.is_deaf = True
        transport: Any = self.transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()

    def feed_data(self, data: Any, size: int = 0) -> None:
        """Take an answer, of which at least the head has come."""
        if self.is_deaf:
            return  # it was parsed already, with what was too much
        status = data[0].code
        is_interim = 100 <= status <= 199 and status != 101  # noqa: PLR2004  RFC 9110, 15.2
        if is_interim:
            self.interim_answers += 1
            if self.interim_answers > INTERIM_MAX:
                self.listen_no_more()
                return
        else:
            self.final = data[0]
        exchange = self.exchange
        if exchange is None:
            super().feed_data(data, size)
            return
        if is_interim:
            return
        self.exchange = None
        exchange.answer = data
        exchange.told(exchange)

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Do nothing where nothing was paused: the end of each answer asks for it."""
        if resume_parser or self._reading_paused:
            super().resume_reading(resume_parser)

    def set_exception(self, exc: BaseException, *cause: Any) -> None:
        """Take the end of the connection, or a fault in what came over it."""
        super().set_exception(exc, *cause)
        exchange, self.exchange = self.exchange, None
        if exchange is not None:
            exchange.end(failed(exc, exchange.timeout_seconds))


class Buffered(asyncio.BufferedProtocol):
    """Reads for a connection, into a buffer that all of a client's connections share.

    Without one, asyncio makes 256 KiB anew for every read, and uvloop for every read over TLS,
    which costs more than the cipher. What is read is taken out at once.
    """

    def __init__(self, protocol: Protocol, buffer: memoryview, bytes_max: int) -> None:
        self._protocol = protocol
        self._buffer = buffer
        self._bytes_max = bytes_max
        self._received = protocol.data_received
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Say where to put what is read next."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read, in slices, so that what is too much is not parsed as a whole."""
        protocol = self._protocol
        whole = bytes(self._buffer[:nbytes])
        protocol.receive(whole)
        if protocol.received_bytes > self._bytes_max:
            protocol.listen_no_more()
        if nbytes <= SLICE_BYTES and not protocol.is_deaf:
            self._received(whole)
            return
        for start in range(0, nbytes, SLICE_BYTES):
            if protocol.is_deaf:
                return
            self._received(whole[start : start + SLICE_BYTES])


class Request(ClientRequest):
    """A request whose connection is shared within its tenant only."""

    @functools.cached_property
    def connection_key(self) -> ConnectionKey:
        """Say by what a connection for it is known."""
        # No proxy is used, so the place of its headers is free for the tenant.
        tenant = _connecting.get().tenant
        return super().connection_key._replace(proxy_headers_hash=hash(tenant))


class Connector(aiohttp.TCPConnector):
    """Hands out a kept connection only if it has been silent and is not too old.

    An answer that nobody asked for, lying on an idle connection, would be taken for the answer to
    the next request, which would then not even be sent (aiohttp issue 13656). After a process was
    frozen or its loop stood still, such an answer may lie in the kernel yet.
    """

    def __init__(
        self,
        egress: Egress,
        proxy: Proxy | None,
        *,
        idle_seconds_max: float,
        connection_seconds_max: float,
        body_bytes_max: int,
        is_direct: bool,
        on_mixed: OnMixed,
        **options: Any,
    ) -> None:
        self.names = Names(
            is_local=lambda name: egress.knows(name) or (proxy is not None and name == proxy.host),
            tenant=lambda: "" if _connecting.get().is_by_proxy else _connecting.get().tenant,
            choose=self._open_ones,
        )
        super().__init__(
            keepalive_timeout=idle_seconds_max,
            socket_factory=self._socket,
            resolver=self.names,
            use_dns_cache=False,
            **options,
        )
        self._egress = egress
        self._proxy = proxy
        self._factory: Any = functools.partial(Protocol, loop=self._loop)
        self._idle_seconds_max = idle_seconds_max
        self._seconds_max = connection_seconds_max
        self._is_direct = is_direct
        self._on_mixed = on_mixed
        self._bytes_max = HEAD_BYTES_MAX + body_bytes_max
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._opened = 0

    async def _create_connection(self, *args: Any, **kwargs: Any) -> ResponseHandler:
        protocol: Any = await super()._create_connection(*args, **kwargs)
        self._opened += 1
        protocol.used_until = time.monotonic() + self._seconds_max
        if self._is_direct:
            # One parser reads all answers of a connection: making it costs as much as its work.
            protocol.set_response_params(read_until_eof=True, auto_decompress=False)
        if protocol.transport is not None:
            protocol.transport.set_protocol(Buffered(protocol, self._buffer, self._bytes_max))
        return protocol  # type: ignore[no-any-return]

    def count(self) -> Connections:
        """Count connections."""
        return Connections(len(self._acquired), sum(map(len, self._conns.values())), self._opened)

    def take(self, key: ConnectionKey) -> "Protocol | None":
        """Give a kept connection that can be used, if there is one; close those that cannot."""
        idle = self._conns.get(key)
        if idle is None:
            return None
        now = time.monotonic()
        found: Protocol | None = None
        while idle and found is None:
            protocol: Any
            protocol, idle_since = idle.pop()  # the last first, so that those of a rush go again
            if (
                protocol.is_connected()
                and not protocol.should_close
                and now - idle_since <= self._idle_seconds_max
                and now < protocol.used_until
                and (now - idle_since < UNSEEN_SECONDS or not _has_unread(protocol.transport))
            ):
                found = protocol
                protocol.begin()
                self._acquired.add(protocol)
            else:
                protocol.close()
        if not idle:
            del self._conns[key]
        return found

    async def make(self, request: Request) -> "Protocol":
        """Make a connection, or give one that has become free."""
        connection = await self.connect(request, _NO_TRACES, _NO_TIMEOUT)
        protocol, connection._protocol = connection._protocol, None  # noqa: SLF001  else it ends with this object
        assert isinstance(protocol, Protocol)
        return protocol

    def _release(
        self, key: ConnectionKey, protocol: ResponseHandler, *, should_close: bool = False
    ) -> None:
        is_clean = not isinstance(protocol, Protocol) or protocol.is_at_end()
        super()._release(key, protocol, should_close=should_close or not is_clean)

    def give_back(self, key: ConnectionKey, protocol: "Protocol", *, is_clean: bool) -> None:
        """Take a connection back, to be used again if it can be."""
        is_usual = is_clean and not protocol.should_close and protocol.is_at_end()
        if is_usual and self._cleanup_handle is not None:  # else idle ones would not be closed
            # Where `_release` would put it after five more steps, most of them for others who wait
            # for one; here nobody does, as there is no limit.
            self._acquired.discard(protocol)
            self._conns[key].append((protocol, time.monotonic()))
        else:
            self._release(key, protocol, should_close=not is_clean)

    def _open_ones(self, host: str, port: int, addresses: Addresses) -> Addresses:
        """Leave out the closed addresses of a name that has open ones too, and tell of them.

        On a network with DNS64 every name that has IPv4 addresses only is such a one.
        """
        if _connecting.get().is_by_proxy:
            return addresses  # the proxy's
        closed = [why_closed(address, port, self._egress) for _, address in addresses]
        if all(closed) or not any(closed):
            return addresses
        self._on_mixed(host, [why.detail for why in closed if why is not None])
        return [it for it, why in zip(addresses, closed, strict=True) if why is None]

    def _socket(self, address_info: Any) -> socket.socket:
        """Make the socket for an address that may be connected to.

        Every connection comes through here with the numeric address that it is about to use,
        whether the URL named it or a name led to it. Where one fails, aiohttp begins again with the
        others; each is tried once.
        """
        family, kind, protocol, _, address = address_info
        connecting = _connecting.get()
        closed = why_closed(address[0], address[1], self._egress)
        if connecting.is_by_proxy and self._proxy and address[1] == self._proxy.port:
            closed = None  # the only name that is resolved then is the proxy's
        if closed is not None:
            connecting.refused.append(closed)
            raise BlockedError(closed)
        if address[0] in connecting.tried:
            raise OSError(errno.EHOSTUNREACH, os.strerror(errno.EHOSTUNREACH))
        connecting.tried.add(address[0])
        return socket.socket(family, kind, protocol)

    async def _get(self, key: ConnectionKey, traces: Any) -> Connection | None:  # noqa: ARG002
        protocol = self.take(key)
        return None if protocol is None else Connection(self, key, protocol, self._loop)


def _has_unread(transport: Any) -> bool:
    """Tell whether something came over a connection that was not read yet, be it its end."""
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return bool(poll.poll(0))


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
