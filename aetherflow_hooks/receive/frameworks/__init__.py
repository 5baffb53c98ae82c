"""Frameworks: a request of theirs in, an answer of ours out.

Each module has one function, `endpoint`, which makes what the framework calls a view, a route or a
handler of Hooks or of an Inbox. It takes the body raw, before anything is parsed, and no more of it
than one can have.
"""

from collections.abc import Mapping
from typing import Protocol

from aetherflow_hooks.receive.hooks import Answer


class Receives(Protocol):
    """Hooks, or an Inbox."""

    @property
    def body_bytes_max(self) -> int:
        """Tell how much is read of a request."""

    @property
    def is_awaited(self) -> bool:
        """Tell which of the two is to be used, where a framework has both."""

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Give what to answer."""

    def receive_sync(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Give what to answer, where nothing is awaited."""
