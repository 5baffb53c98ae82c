"""Seen before: an event is processed once, though it may come several times.

A delivery is sent again when its answer was lost, so everything may come twice. Whoever processes
an event takes its turn by its id: the turn is NEW for one only, BUSY for those that come meanwhile,
and DONE for all that come after. A turn that ends with an exception was none: the next one is NEW.
"""

import enum
import inspect
import random
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
)
from typing import Any, NamedTuple, Protocol

from aetherflow_hooks.receive.statements import MAKE_ONE_BY_ONE, parts, statements

EVENTS_MAX = 100_000
AGE_SECONDS = 7 * 86_400.0  # more than any sender goes on trying
WORKING_SECONDS = 60  # what holds a turn in Redis for longer has died
FORGET_ONE_IN = 200  # turns in Postgres look for what is too old
FORGOTTEN_MAX = 1_000  # rows then, more than come meanwhile
UNDONE = "the transaction was rolled back within the function, and the event's mark with it"


class Seen(enum.Enum):
    """Whether an event was processed before."""

    NEW = "new"
    BUSY = "busy"  # somebody is processing it now
    DONE = "done"


class Turn(NamedTuple):
    """What whoever asks for an event's turn is told."""

    seen: Seen
    connection: Any = None  # in whose transaction the event is marked, where there is one

    @property
    def is_new(self) -> bool:
        """Tell whether the event is to be processed now."""
        return self.seen is Seen.NEW


class SeenBefore(Protocol):
    """Gives events their turns."""

    @property
    def is_awaited(self) -> bool | None:
        """Tell whether it works by `once`, or by `once_sync`; None: by both."""

    def once(self, event_id: str, /) -> AbstractAsyncContextManager[Turn]:
        """Give an event's turn, which lasts for the block."""

    def once_sync(self, event_id: str, /) -> AbstractContextManager[Turn]:
        """Give an event's turn, where nothing is awaited."""


class SeenInMemory:
    """Remembers in this process: the last `events_max`, for `age_seconds`.

    It forgets with the process, and knows nothing of other processes. It can be used from several
    threads.
    """

    is_awaited = None

    def __init__(self, *, events_max: int = EVENTS_MAX, age_seconds: float = AGE_SECONDS) -> None:
        """Take what bounds it."""
        self._events_max = events_max
        self._age_seconds = age_seconds
        self._lock = threading.Lock()
        self._working: set[str] = set()
        self._done_at: OrderedDict[str, float] = OrderedDict()  # seconds of the monotonic clock

    @contextmanager
    def once_sync(self, event_id: str, /) -> Iterator[Turn]:
        """Give an event's turn, which lasts for the block."""
        seen = self._take(event_id)
        if seen is not Seen.NEW:
            yield Turn(seen)
            return
        try:
            yield Turn(seen)
        except BaseException:
            with self._lock:
                self._working.discard(event_id)
            raise
        self._finish(event_id)

    @asynccontextmanager
    async def once(self, event_id: str, /) -> AsyncIterator[Turn]:
        """Give an event's turn, which lasts for the block."""
        with self.once_sync(event_id) as turn:
            yield turn

    def _take(self, event_id: str) -> Seen:
        with self._lock:
            self._forget()
            if event_id in self._working:
                return Seen.BUSY
            if event_id in self._done_at:
                return Seen.DONE
            self._working.add(event_id)
            return Seen.NEW

    def _finish(self, event_id: str) -> None:
        with self._lock:
            self._working.discard(event_id)
            self._done_at[event_id] = time.monotonic()
            self._forget()

    def _forget(self) -> None:
        oldest_at = time.monotonic() - self._age_seconds
        while self._done_at:
            event_id = next(iter(self._done_at))
            if len(self._done_at) <= self._events_max and self._done_at[event_id] >= oldest_at:
                return
            del self._done_at[event_id]


class SeenInPostgres:
    """Remembers in the receiver's own Postgres, in the transaction of the work itself.

    `source` opens transactions: an asyncpg pool, a pool of psycopg_pool, an Engine or sessionmaker
    of SQLAlchemy (awaited or not), or django.db.connection. The connection of an event's turn is
    the one in whose transaction the event is marked, so that what is done there is done once: both
    are committed or neither, whenever the process dies.

    `table_sql` makes the table, which `create` and `create_sync` run; rows are deleted after
    `age_seconds`.
    """

    def __init__(
        self,
        source: Any,
        *,
        table: str = "aetherflow_seen",
        age_seconds: float = AGE_SECONDS,
    ) -> None:
        """Take what opens transactions, and the table, which may be named with its schema.

        Raises:
            InputRefused: no transaction comes from `source`, or the table's name is none.
        """
        from aetherflow_hooks import drivers  # noqa: PLC0415  who has no Postgres loads none of it

        self._drivers = drivers
        self._source = source
        self._age_seconds = age_seconds
        self.is_awaited = drivers.is_awaited(source)
        self._sql = statements("seen", table)
        self.table_sql = self._sql["table"]

    async def create(self) -> None:
        """Make the table, unless it is there."""
        async with self._drivers.transaction(self._source) as connection:
            for statement in (MAKE_ONE_BY_ONE, *parts(self.table_sql)):
                await self._drivers.fetch(connection, statement)

    def create_sync(self) -> None:
        """Make the table, unless it is there."""
        with self._drivers.transaction_sync(self._source) as connection:
            for statement in (MAKE_ONE_BY_ONE, *parts(self.table_sql)):
                self._drivers.fetch_sync(connection, statement)

    @asynccontextmanager
    async def once(self, event_id: str, /) -> AsyncIterator[Turn]:
        """Give an event's turn, in a transaction that lasts for the block."""
        async with self._drivers.transaction(self._source) as connection:
            fetch = self._drivers.fetch
            if not (await fetch(connection, self._sql["lock"], event_id))[0][0]:
                turn = Turn(Seen.BUSY)
            elif not await fetch(connection, self._sql["mark"], event_id):
                turn = Turn(Seen.DONE)
            else:
                turn = Turn(Seen.NEW, connection)
                if _is_time_to_forget():
                    await fetch(connection, self._sql["forget"], self._age_seconds, FORGOTTEN_MAX)
            yield turn
            if turn.is_new and not await fetch(connection, self._sql["still"], event_id):
                raise RuntimeError(UNDONE)

    @contextmanager
    def once_sync(self, event_id: str, /) -> Iterator[Turn]:
        """Give an event's turn, in a transaction that lasts for the block."""
        with self._drivers.transaction_sync(self._source) as connection:
            fetch = self._drivers.fetch_sync
            if not fetch(connection, self._sql["lock"], event_id)[0][0]:
                turn = Turn(Seen.BUSY)
            elif not fetch(connection, self._sql["mark"], event_id):
                turn = Turn(Seen.DONE)
            else:
                turn = Turn(Seen.NEW, connection)
                if _is_time_to_forget():
                    fetch(connection, self._sql["forget"], self._age_seconds, FORGOTTEN_MAX)
            yield turn
            if turn.is_new and not fetch(connection, self._sql["still"], event_id):
                raise RuntimeError(UNDONE)


def _is_time_to_forget() -> bool:
    return random.randrange(FORGET_ONE_IN) == 0  # noqa: S311  no secret


class SeenInRedis:
    """Remembers in Redis (or what speaks like it), for several processes.

    `client` is a `redis.asyncio.Redis` or a `redis.Redis`. Marking an event and the work itself are
    no one transaction: who dies between them leaves an event that is processed again,
    `working_seconds` later. Use SeenInPostgres where that is not good enough.
    """

    def __init__(
        self,
        client: Any,
        *,
        prefix: str = "aetherflow:seen:",
        age_seconds: float = AGE_SECONDS,
        working_seconds: float = WORKING_SECONDS,
    ) -> None:
        """Take a client, what its keys begin with, and for how long they stay."""
        self._client = client
        self._prefix = prefix
        self._age_ms = int(age_seconds * 1000)
        self._working_ms = int(working_seconds * 1000)
        # Of a cluster's client, and of those that speak like Redis, too.
        self.is_awaited = inspect.iscoroutinefunction(client.execute_command)

    @asynccontextmanager
    async def once(self, event_id: str, /) -> AsyncIterator[Turn]:
        """Give an event's turn, which lasts for the block."""
        key, mine = self._prefix + event_id, secrets.token_bytes(16).hex()
        if not await self._client.set(key, mine, nx=True, px=self._working_ms):
            yield Turn(_seen(await self._client.get(key)))
            return
        try:
            yield Turn(Seen.NEW)
        except BaseException:
            if _text(await self._client.get(key)) == mine:  # it may have been for too long
                await self._client.delete(key)
            raise
        await self._client.set(key, Seen.DONE.value, px=self._age_ms)

    @contextmanager
    def once_sync(self, event_id: str, /) -> Iterator[Turn]:
        """Give an event's turn, which lasts for the block."""
        key, mine = self._prefix + event_id, secrets.token_bytes(16).hex()
        if not self._client.set(key, mine, nx=True, px=self._working_ms):
            yield Turn(_seen(self._client.get(key)))
            return
        try:
            yield Turn(Seen.NEW)
        except BaseException:
            if _text(self._client.get(key)) == mine:
                self._client.delete(key)
            raise
        self._client.set(key, Seen.DONE.value, px=self._age_ms)


def _seen(held: bytes | str | None) -> Seen:
    return Seen.DONE if _text(held) == Seen.DONE.value else Seen.BUSY


def _text(held: bytes | str | None) -> str | None:
    return held.decode() if isinstance(held, bytes) else held
