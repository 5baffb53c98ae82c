"""Live: attempts as they are recorded, to whoever listens; server-sent events.

Takes    what was recorded lately, by whichever engine, once a second while somebody listens.
Hands on each attempt once to each listener that it is for.
Holds    who reads too slowly misses some, and is told how many; nobody waits for anybody. Of more
         than a look gives, those that ended first are missed.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import HooksError
from aetherflow_hooks.manage.attempts import latest_attempts

LOOK_SECONDS = 1.0
MARGIN_SECONDS = 5.0  # from the end of an attempt until it is recorded, mostly
ROWS_MAX = 2_000  # in one look
SEEN_MAX = 20_000
WAITING_MAX = 1_000  # attempts that a listener has not read yet
LISTENERS_MAX = 500
LISTENERS_OF_ONE_MAX = 10


class Listener:
    """Somebody who listens: what waits for them, and how much they have missed."""

    def __init__(
        self, who: str, tenant: str | None, endpoint_id: str | None, attempts_max: int
    ) -> None:
        """Listen to one tenant's attempts, or one endpoint's; None: to all.

        So many wait for them at most.
        """
        self.who = who
        self._attempts_max = attempts_max
        # of all that are recorded; those of one may be few among many
        self.looked_max = ROWS_MAX if tenant or endpoint_id else attempts_max
        self._tenant = tenant
        self._endpoint_id = endpoint_id
        self._waiting: deque[dict[str, Any]] = deque()
        self._missed = 0
        self._wake = asyncio.Event()
        self.is_over = False  # nothing more will come

    def end(self) -> None:
        """Let nothing more come."""
        self.is_over = True
        self._wake.set()

    def offer(self, attempt: dict[str, Any]) -> None:
        """Take an attempt, if it is for them."""
        if self._tenant not in (None, attempt["tenant"]):
            return
        if self._endpoint_id not in (None, attempt["endpoint_id"]):
            return
        if len(self._waiting) >= self._attempts_max:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(attempt)
        self._wake.set()

    async def take(self, seconds_max: float) -> tuple[list[dict[str, Any]], int]:
        """Give what waits, the oldest first, and how much was missed; wait if there is nothing."""
        if not self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds_max):
                    await self._wake.wait()
        self._wake.clear()
        taken, missed = list(self._waiting), self._missed
        self._waiting.clear()
        self._missed = 0
        return taken, missed


class Live:
    """Looks at what is recorded for as long as somebody listens."""

    def __init__(self, database: Database, timeout_seconds: float) -> None:
        """Look back for as long as an attempt may take, since it is listed by when it began."""
        self._database = database
        self._back_seconds = timeout_seconds + MARGIN_SECONDS
        self._listeners: set[Listener] = set()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._looking: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()  # one at a time begins or ends to look

    @asynccontextmanager
    async def listening(
        self, who: str, tenant: str | None, endpoint_id: str | None, attempts_max: int = WAITING_MAX
    ) -> AsyncIterator[Listener | None]:
        """Give a listener, who gets what is recorded from now on; None: there are too many.

        The newest `attempts_max` that they have not read yet are kept for them.
        """
        listener = Listener(who, tenant, endpoint_id, attempts_max)
        async with self._beginning:
            theirs = sum(it.who == who for it in self._listeners)
            is_full = theirs >= LISTENERS_OF_ONE_MAX or len(self._listeners) >= LISTENERS_MAX
            if not is_full and self._looking is None:
                await self._look()  # what is there already is nobody's news
                self._looking = asyncio.create_task(
                    self._keep_looking(), name="aetherflow_hooks live"
                )
            if not is_full:
                self._listeners.add(listener)
        if is_full:
            yield None
            return
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            async with self._beginning:
                if not self._listeners and self._looking is not None:
                    looking, self._looking = self._looking, None
                    looking.cancel()
                    await asyncio.gather(looking, return_exceptions=True)
                    self._seen.clear()

    def stop(self) -> None:
        """Send everybody home."""
        for listener in self._listeners:
            listener.end()

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            with suppress(HooksError):  # whoever asks next is told
                await self._look()

    async def _look(self) -> None:
        """Look once, and hand on what was not seen before."""
        rows_max = max((it.looked_max for it in self._listeners), default=ROWS_MAX)
        for attempt in reversed(
            await latest_attempts(self._database, self._back_seconds, rows_max)
        ):
            if attempt["id"] in self._seen:
                continue
            self._seen[attempt["id"]] = None
            for listener in self._listeners:
                listener.offer(attempt)
        while len(self._seen) > SEEN_MAX:
            self._seen.popitem(last=False)
