"""Post: one signed POST, one Outcome.

Takes    a delivery, its endpoint and its event.
Hands on what came of it; the receiver's faults are values, never exceptions.
Holds    one deadline over the whole attempt; no redirect is followed, no cookie kept, no proxy of
         the environment used; no socket leads to an address that is closed to us.
"""

import functools
import socket
import ssl
import time
from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import aiohttp
from aiohttp.client_reqrep import ClientRequest, ConnectionKey
from yarl import URL

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.model import (
    Answered,
    Blocked,
    Delivery,
    Endpoint,
    Event,
    NotReached,
    Outcome,
    TimedOut,
)
from aetherflow_hooks.rules.addresses import Allowed, why_closed
from aetherflow_hooks.rules.retry import retry_after_seconds
from aetherflow_hooks.rules.signing import aetherflow_signature, keys_of, standard_signature

USER_AGENT = f"AetherFlow-Hooks/{version('aetherflow-hooks')}"
SECRETS_REMEMBERED = 10_000  # their keys, so that one is decoded once and not per POST

_keys_of = functools.lru_cache(SECRETS_REMEMBERED)(keys_of)


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

    @property
    def connection_key(self) -> ConnectionKey:
        # No proxy is used, so the place of its headers is free for the tenant.
        return super().connection_key._replace(proxy_headers_hash=hash(_trail.get().tenant))


class _Connector(aiohttp.TCPConnector):
    """Hands out a kept connection only if it has been silent.

    An answer that nobody asked for, lying on an idle connection, would be taken for the answer to
    the next request, which would then not even be sent (aiohttp issue 13656).
    """

    async def _get(self, key: ConnectionKey, traces: Any) -> Any:
        idle = self._conns.get(key)
        while idle and idle[0][0].should_close:  # the one that would be handed out
            idle.popleft()[0].close()
        return await super()._get(key, traces)


class Post:
    """The HTTP client of the engine; `open` before use, `close` after."""

    def __init__(self, settings: PostSettings, allowed: Sequence[Allowed]) -> None:
        """Go to public addresses and to those `allowed`."""
        self._settings = settings
        self._allowed = allowed
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Make the session; nothing is connected yet."""
        connector = _Connector(
            limit=0,  # pace counts
            keepalive_timeout=self._settings.keep_alive_seconds,
            ssl=_tls(),
            socket_factory=self._socket,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            request_class=_Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """End every connection."""
        if self._session is not None:
            await self._session.close()

    async def send(self, endpoint: Endpoint, delivery: Delivery, event: Event) -> Outcome:
        """Make one attempt of a delivery."""
        trail = _Trail(endpoint.tenant)
        _trail.set(trail)
        headers = self._headers(endpoint, delivery, event)
        if headers is None:
            return NotReached("no secret of the endpoint is in force: it cannot be signed")
        try:
            return await self._exchange(endpoint, headers, event.body)
        except TimeoutError:
            return TimedOut(endpoint.timeout_seconds)
        except Exception as error:  # noqa: BLE001  whatever a URL or an answer does, it is an outcome
            if trail.blocked:
                return Blocked(trail.blocked[0])
            return NotReached(_told(error))

    def _headers(
        self, endpoint: Endpoint, delivery: Delivery, event: Event
    ) -> dict[str, str] | None:
        now = time.monotonic()
        keys = [
            _keys_of(secret.value)
            for secret in endpoint.secrets
            if secret.until is None or secret.until > now
        ]
        if not keys:
            return None
        unix_seconds = int(time.time())
        return {
            "Content-Type": "application/json",
            "User-Agent": USER_AGENT,
            "Accept-Encoding": "identity",
            "X-AetherFlow-Signature": aetherflow_signature(keys[0], event.body),
            "X-AetherFlow-Event": event.type,
            "X-AetherFlow-Delivery": delivery.id,
            "X-AetherFlow-Attempt": str(delivery.attempt),
            "webhook-id": event.id,
            "webhook-timestamp": str(unix_seconds),
            "webhook-signature": standard_signature(keys, event.id, unix_seconds, event.body),
        }

    async def _exchange(self, endpoint: Endpoint, headers: dict[str, str], body: bytes) -> Outcome:
        assert self._session is not None, "open() comes first"
        async with self._session.post(
            URL(endpoint.url, encoded=True),
            data=body,
            headers=headers,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=endpoint.timeout_seconds),
        ) as response:
            start = await self._read(response)
            return Answered(
                response.status,
                retry_after_seconds(
                    response.status, response.headers.get("Retry-After"), time.time()
                ),
                start,
            )

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        """Read an answer to its end or to the bound, where we hang up.

        A connection that breaks off in the middle leaves the status as it is.
        """
        most = self._settings.response_read_bytes
        start = bytearray()
        try:
            while len(start) < most:
                chunk = await response.content.read(most - len(start))
                if not chunk:
                    return bytes(start)
                start += chunk
        except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
            if isinstance(error, TimeoutError):
                raise
        response.close()
        return bytes(start)

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
        case aiohttp.ClientResponseError():
            return f"its answer is not HTTP: {error.message}"
        case aiohttp.ClientOSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the request could not be made: {type(error).__name__}"
