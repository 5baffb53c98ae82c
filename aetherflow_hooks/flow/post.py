"""Post: one signed POST, one Outcome.

Takes    a delivery, its endpoint and its event.
Hands on what came of it; the receiver's faults are values, never exceptions.
Holds    every attempt is signed anew, with each secret in force; one deadline over all of it.
"""

import asyncio
import time
from collections.abc import Callable
from importlib.metadata import version

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.http import Client
from aetherflow_hooks.model import (
    Blocked,
    Ended,
    Endpoint,
    Event,
    NotReached,
    Prevented,
    Secret,
    Tried,
    delivery_id,
)
from aetherflow_hooks.rules.addresses import Egress
from aetherflow_hooks.rules.proxy import Proxy
from aetherflow_hooks.rules.signing import Keys, keys_of, signed_lines
from aetherflow_hooks.rules.states import error_of
from aetherflow_hooks.rules.traceparent import read_traceparent
from aetherflow_hooks.watch.log import LogEvent, log

USER_AGENT = f"AetherFlow-Hooks/{version('aetherflow-hooks')}"
UNSIGNED = "the endpoint has no secret in force: nothing can be signed"


class Post:
    """Signs and sends; `open` before use, `close` after."""

    def __init__(self, settings: PostSettings, egress: Egress, proxy: Proxy | None) -> None:
        """Go where `egress` lets it, by the `proxy` if there is one."""
        self._client = Client(
            settings, egress, user_agent=USER_AGENT, proxy=proxy, on_mixed=_tell_mixed
        )
        self.open = self._client.open
        self.close = self._client.close
        self.break_off = self._client.break_off
        self.connections = self._client.connections

    def send(
        self,
        endpoint: Endpoint,
        event: Event,
        delivery: str,
        attempt: int,
        done: Callable[[Ended], None],
        traceparent: str = "",
    ) -> str:
        """Make one attempt of the delivery with that id, and call `done` when it has ended.

        Gives the headers that are ours, lines with their CRLF; empty: nothing can be signed.
        """
        now = time.monotonic()
        keys = [
            secret.keys or _decode(secret)
            for secret in endpoint.secrets
            if secret.until is None or secret.until > now
        ]
        if not keys:
            done(NotReached(UNSIGNED))
            return ""
        headers = signed_lines(
            keys,
            event.body,
            event_id=event.id,
            event_type=event.type,
            delivery=delivery,
            attempt=attempt,
            unix_seconds=int(time.time()),
        )
        if traceparent:
            headers += _traced(traceparent, endpoint.headers)
        self._client.post(
            endpoint.url,
            f"{headers}{endpoint.headers}",
            event.body,
            tenant=endpoint.tenant,
            certificate=endpoint.certificate,
            timeout_seconds=endpoint.timeout_seconds,
            done=done,
        )
        return headers

    async def reach(self, endpoint: Endpoint) -> str | None:
        """Connect to an endpoint and send nothing; say why that did not work, if so."""
        failed = await self._client.reach(
            endpoint.url,
            tenant=endpoint.tenant,
            certificate=endpoint.certificate,
            timeout_seconds=endpoint.timeout_seconds,
        )
        match failed:
            case None | Prevented():
                return failed and failed.reason
            case Blocked():
                return f"{failed.reason}: {failed.detail}"
            case _:
                return error_of(failed)

    async def try_out(self, endpoint: Endpoint, event: Event, attempt: int = 1) -> Tried:
        """Send an event of no delivery as an attempt would be; tell all of it."""
        ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()

        def tell(outcome: Ended) -> None:
            if not ended.done():  # whoever asked may have gone
                ended.set_result(outcome)

        began = time.monotonic()
        delivery = delivery_id(event.id, endpoint.id)
        headers = self.send(endpoint, event, delivery, attempt, tell)
        outcome = await ended
        return Tried(headers, outcome, time.monotonic() - began)


def _decode(secret: Secret) -> Keys:
    """Decode a secret once and not per POST; what it stands for is forgotten with its endpoint."""
    keys = secret.keys = keys_of(secret.value)
    return keys


def _traced(traceparent: str, others: str) -> str:
    """Write the header, unless the endpoint has one of its own, or another hand wrote nonsense."""
    is_there = f"\n{others.lower()}".find("\ntraceparent:") >= 0
    if is_there or read_traceparent(traceparent) is None:
        return ""
    return f"traceparent: {traceparent}\r\n"


def _tell_mixed(name: str, details: list[str]) -> None:
    log.info(LogEvent.POST_MIXED, name=name, left_out=details)
