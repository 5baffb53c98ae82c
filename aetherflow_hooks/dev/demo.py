"""Demo: an engine with its dashboard, a receiver that verifies, and an event of each type."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Self

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.receiver import Received, Receiver
from aetherflow_hooks.engine import start_engine
from aetherflow_hooks.errors import BadSignature
from aetherflow_hooks.manage.endpoints import (
    NewEndpoint,
    add_endpoint,
    delete_endpoint,
    list_endpoints,
)
from aetherflow_hooks.manage.event_types import show_event_type
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.manage.pages import ROWS_MAX
from aetherflow_hooks.manage.tokens import Scope, add_token, revoke_token
from aetherflow_hooks.receive import verify, verify_body
from aetherflow_hooks.rules.topics import CATALOGUE

TENANT = "demo"  # so that its events reach no endpoint of anybody else
ARRIVAL_SECONDS_MAX = 30.0
_DESCRIPTION = "demo of process "


@dataclass(slots=True)
class Arrival:
    """One emitted event and what the receiver saw of it."""

    event: str
    id: str
    signature: str = "did not arrive"
    verified: bool = False
    attempt: int | None = None
    took_ms: float | None = None


class Demo:
    """Use as `async with Demo(settings) as demo:`; the settings name a migrated Postgres."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; entering starts everything."""
        web = settings.web.model_copy(update={"port": settings.web.port or _free_port()})
        self._settings = settings.model_copy(update={"web": web})
        self._stack = AsyncExitStack()
        self._receiver = Receiver(on_request=self._received)
        self._secret = ""
        self._awaited: dict[str, asyncio.Future[tuple[Received, float]]] = {}
        # What came before emit had told its id; None while nothing is being emitted here.
        self._early: dict[str, tuple[Received, float]] | None = None
        self.url = ""
        self.dashboard_url = f"http://127.0.0.1:{web.port}/"
        self.token = ""  # that opens it, until the demo ends
        self.on_arrival: Callable[[Arrival], None] = lambda _: None

    async def emit_all(self) -> list[Arrival]:
        """Emit the example of each type of the catalogue; wait for them and give them in order."""
        self._early = {}
        try:
            return [await self._emit(event_type) for event_type in CATALOGUE]
        finally:
            self._early = None

    async def _emit(self, event_type: str) -> Arrival:
        known = await show_event_type(self._database, event_type)
        event_id = await emit_event(self._database, event_type, known["example"], tenant=TENANT)
        committed_at = time.monotonic()
        arrival = Arrival(event_type, event_id)
        try:
            request, at = await self._arrival_of(event_id)
        except TimeoutError:
            return arrival
        arrival.took_ms = max(0.0, (at - committed_at) * 1000)
        self._judge(arrival, request)
        return arrival

    async def _arrival_of(self, event_id: str) -> tuple[Received, float]:
        if self._early and event_id in self._early:
            return self._early.pop(event_id)
        awaited: asyncio.Future[tuple[Received, float]]
        awaited = self._awaited[event_id] = asyncio.get_running_loop().create_future()
        async with asyncio.timeout(ARRIVAL_SECONDS_MAX):
            return await awaited

    def _received(self, request: Received) -> None:
        now = time.monotonic()
        event_id = request.headers.get("webhook-id", "")
        awaited = self._awaited.pop(event_id, None)
        if awaited is not None and not awaited.done():
            awaited.set_result((request, now))
            return
        if self._early is not None:
            self._early[event_id] = request, now
            return
        arrival = Arrival(request.headers.get("x-aetherflow-event", "?"), event_id)
        self._judge(arrival, request)
        self.on_arrival(arrival)

    def _judge(self, arrival: Arrival, request: Received) -> None:
        """Check both signatures, as a careful receiver would."""
        arrival.attempt = int(request.headers.get("x-aetherflow-attempt", "0"))
        try:
            verify(request.body, request.headers, self._secret)
            verify_body(
                request.body, request.headers.get("x-aetherflow-signature", ""), self._secret
            )
        except BadSignature as error:
            arrival.signature = f"refused: {error}"
        else:
            arrival.signature, arrival.verified = "verified", True

    async def __aenter__(self) -> Self:
        settings = self._settings
        try:
            await self._stack.enter_async_context(self._receiver)
            self._database = await self._stack.enter_async_context(Database(settings.database))
            await self._stack.enter_async_context(start_engine(settings, migrate=True))
            await self._remove_left_over()
            self.url = f"http://127.0.0.1:{self._receiver.port}/webhook"
            added = await add_endpoint(
                self._database,
                NewEndpoint(
                    url=self.url, tenant=TENANT, description=f"{_DESCRIPTION}{os.getpid()}"
                ),
                settings=settings,
            )
            self._stack.push_async_callback(delete_endpoint, self._database, added["id"])
            self._secret = added["secret"]
            made = await add_token(self._database, TENANT, Scope.ADMIN)
            self._stack.push_async_callback(revoke_token, self._database, made["id"])
            self.token = made["token"]
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _remove_left_over(self) -> None:
        """Delete the endpoints of demos that were killed: nobody listens there any more."""
        page = await list_endpoints(self._database, tenant=TENANT, rows_max=ROWS_MAX)
        for row in page.rows:
            if row["description"].startswith(_DESCRIPTION):
                try:
                    os.kill(int(row["description"].removeprefix(_DESCRIPTION)), 0)
                except (ProcessLookupError, ValueError):
                    await delete_endpoint(self._database, row["id"])
                except PermissionError:
                    pass  # it runs, as somebody else


def _free_port() -> int:
    """Give a port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
