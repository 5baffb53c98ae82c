"""Guard: who may come in at all.

A browser on this machine can be led to send requests here by any page that it shows, so the name
that was asked for has to be ours (DNS rebinding), and a cookie alone opens nothing.
"""

import asyncio
import time
from collections import OrderedDict
from http import HTTPStatus

from aiohttp import web

from aetherflow_hooks.db import Database
from aetherflow_hooks.manage import sessions
from aetherflow_hooks.manage.tokens import Access, access_of
from aetherflow_hooks.web.problems import Problem

FAILURE_SECONDS_MIN = 0.05
FAILURE_SECONDS_MAX = 2.0
FORGOTTEN_SECONDS = 60.0
ADDRESSES_MAX = 10_000
WAITING_MAX = 100  # failures that are being kept waiting

_UNAUTHORIZED = (
    "a token is needed: Authorization: Bearer af_…, as `aetherflow-hooks token add` made it"
)
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'"
)
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Hosts:
    """The names that this server goes by."""

    def __init__(self, names: tuple[str, ...], port: int) -> None:
        """Take names with or without a port; without one, this server's is meant, or none."""
        self._names = {
            it for name in names for it in ([name] if _has_port(name) else [name, f"{name}:{port}"])
        }

    def check(self, request: web.BaseRequest) -> None:
        """Make sure that a request is meant for us.

        Raises:
            Problem: 421, it asks for another host.
        """
        asked = request.headers.getall("Host", [])
        target = request._message.path  # noqa: SLF001  as it was asked, absolute or not
        if len(asked) != 1 or asked[0].lower() not in self._names or not target.startswith("/"):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "this server does not go by that name: `web.hosts` has those that it goes by",
            )


class Doorman:
    """Finds out who somebody is, and keeps those waiting who guess."""

    def __init__(self, database: Database) -> None:
        """Look tokens up in a database."""
        self._database = database
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting = 0

    async def admit(self, request: web.BaseRequest) -> Access:
        """Tell what the token of a request opens.

        Raises:
            Problem: 401, it opens nothing, told the later the more often somebody is wrong; 429,
                very many are wrong at once.
        """
        access = await access_of(self._database, presented(request))
        if access is None:
            await self._fail(request.remote or "")
            raise Problem(
                HTTPStatus.UNAUTHORIZED, _UNAUTHORIZED, headers={"WWW-Authenticate": "Bearer"}
            )
        return access

    async def log_in(self, request: web.BaseRequest, token: str) -> str | None:
        """Give the key of a session for a token that somebody typed; None: it opens nothing.

        Raises:
            Problem: 429, very many are wrong at once.
        """
        key = await sessions.log_in(self._database, token.encode("utf-8", "surrogateescape"))
        if key is None:
            await self._fail(request.remote or "")
        return key

    async def log_out(self, key: str) -> None:
        """End a session."""
        await sessions.log_out(self._database, key)

    async def visitor(self, kind: str, key: str) -> Access | None:
        """Tell what the key of a log-in or of a link opens; None: nothing."""
        return await sessions.session_access(self._database, kind, key)

    async def is_still_in(self, request: web.BaseRequest) -> bool:
        """Tell whether the token of a request that was let in opens something still."""
        return await access_of(self._database, presented(request)) is not None

    async def _fail(self, address: str) -> None:
        """Keep somebody waiting, twice as long each time."""
        now = time.monotonic()
        failures, last_at = self._failures.pop(address, (0, 0.0))
        failures = failures + 1 if now < last_at + FORGOTTEN_SECONDS else 1
        self._failures[address] = failures, now
        if len(self._failures) > ADDRESSES_MAX:
            self._failures.popitem(last=False)
        if self._waiting >= WAITING_MAX:
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too many requests come with wrong tokens",
                headers={"Retry-After": str(round(FAILURE_SECONDS_MAX))},
            )
        self._waiting += 1
        try:
            seconds = FAILURE_SECONDS_MIN * 2 ** min(failures - 1, 10)
            await asyncio.sleep(min(seconds, FAILURE_SECONDS_MAX))
        finally:
            self._waiting -= 1


def harden(response: web.StreamResponse) -> None:
    """Tell browsers to do nothing with an answer that it is not meant for."""
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = "AetherFlow-Hooks"


def presented(request: web.BaseRequest) -> bytes:
    """Give the token of a request as it was sent; empty: there is none, or more than one."""
    given = request.headers.getall("Authorization", [])
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.encode("utf-8", "surrogateescape") if scheme.lower() == "bearer" else b""


def _has_port(name: str) -> bool:
    return name.rpartition(":")[2].isdigit() and not name.endswith("]")
