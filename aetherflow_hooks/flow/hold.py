"""Hold: endpoints for which nothing can be signed, until it can.

Takes    endpoints whose secret, or a header of their own, cannot be read.
Hands on the same, once they can be: a key has come, or a row was put right.
Holds    nothing is sent unsigned or signed with anything else, and no attempt is used up by it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aetherflow_hooks.db import Database
from aetherflow_hooks.model import Endpoint
from aetherflow_hooks.watch.log import LogEvent, log

REASON = "secret_unavailable"  # of the endpoint's state, for people
LOOK_SECONDS = 10.0
IDLE_SECONDS = 600.0  # a bound; `put` wakes us


class Hold:
    """Looks at the held endpoints again and again."""

    def __init__(
        self,
        database: Database,
        *,
        load: Callable[[Iterable[str]], Awaitable[Mapping[str, Endpoint]]],
        read_keys: Callable[[], None],
        hand_on: Callable[[str, Endpoint | None], None],
    ) -> None:
        """Read the keys and `load` endpoints; call `hand_on` with those that are held no longer.

        It gets an endpoint's id, and the endpoint itself unless that is not active any more.
        """
        self._database = database
        self._load = load
        self._read_keys = read_keys
        self._hand_on = hand_on
        self._held: dict[str, Endpoint] = {}
        self._told: set[str] = set()
        self.wake = asyncio.Event()

    def put(self, endpoint: Endpoint) -> None:
        """Hold an endpoint, and say so once."""
        if endpoint.id not in self._held:
            log.error(LogEvent.ENDPOINT_UNSIGNABLE, endpoint=endpoint.id, error=endpoint.unsignable)
        self._held[endpoint.id] = endpoint
        self.wake.set()

    async def turn(self) -> float:
        """Look whether they can be read by now; give the seconds until the next look."""
        if not self._held:
            return IDLE_SECONDS
        for endpoint_id in self._held.keys() - self._told:
            await self._database.rows("set_state_reason", endpoint_id, REASON)
            self._told.add(endpoint_id)
        self._read_keys()
        loaded = await self._load(self._held)
        for endpoint_id in list(self._held):
            endpoint = loaded.get(endpoint_id)
            if endpoint is not None and endpoint.unsignable:
                continue
            await self._database.rows("set_state_reason", endpoint_id, "")
            del self._held[endpoint_id]
            self._told.discard(endpoint_id)
            self._hand_on(endpoint_id, endpoint)
        return LOOK_SECONDS
