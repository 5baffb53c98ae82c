"""Post: one signed POST, one Outcome.

Takes    a delivery, its endpoint and its event.
Hands on what came of it; the receiver's faults are values, never exceptions.
Holds    every attempt is signed anew, with each secret in force; one deadline over all of it.
"""

import time
from collections.abc import Callable
from importlib.metadata import version
from weakref import WeakKeyDictionary

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.http import Client
from aetherflow_hooks.model import Delivery, Ended, Endpoint, Event, NotReached, Secret
from aetherflow_hooks.rules.addresses import Egress
from aetherflow_hooks.rules.proxy import Proxy
from aetherflow_hooks.rules.signing import Keys, aetherflow_signature, keys_of, standard_signature
from aetherflow_hooks.watch.log import LogEvent, log

USER_AGENT = f"AetherFlow-Hooks/{version('aetherflow-hooks')}"


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
        # Each is decoded once and not per POST, and forgotten with its endpoint.
        self._keys: WeakKeyDictionary[Secret, Keys] = WeakKeyDictionary()

    def send(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        done: Callable[[Ended], None],
    ) -> None:
        """Make one attempt of a delivery, and call `done` when it has ended."""
        now = time.monotonic()
        keys = [
            self._keys_of(secret)
            for secret in endpoint.secrets
            if secret.until is None or secret.until > now
        ]
        if not keys:
            done(NotReached("the endpoint has no secret in force: nothing can be signed"))
            return
        event_id, event_type, body = event
        unix_seconds = int(time.time())
        # No value can hold the end of a line: types and ids are made of harmless letters.
        headers = (
            f"X-AetherFlow-Signature: {aetherflow_signature(keys[0], body)}\r\n"
            f"X-AetherFlow-Event: {event_type}\r\n"
            f"X-AetherFlow-Delivery: {delivery.id}\r\n"
            f"X-AetherFlow-Attempt: {delivery.attempt}\r\n"
            f"webhook-id: {event_id}\r\n"
            f"webhook-timestamp: {unix_seconds}\r\n"
            f"webhook-signature: {standard_signature(keys, event_id, unix_seconds, body)}\r\n"
            f"{endpoint.headers}"
        )
        self._client.post(
            endpoint.url,
            headers,
            body,
            tenant=endpoint.tenant,
            certificate=endpoint.certificate,
            timeout_seconds=endpoint.timeout_seconds,
            done=done,
        )

    def _keys_of(self, secret: Secret) -> Keys:
        keys = self._keys.get(secret)
        if keys is None:
            keys = self._keys[secret] = keys_of(secret.value)
        return keys


def _tell_mixed(name: str, details: list[str]) -> None:
    log.info(LogEvent.POST_MIXED, name=name, left_out=details)
