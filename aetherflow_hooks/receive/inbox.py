"""Inbox: a webhook is stored, answered at once, and processed afterwards.

Store    a verified event into a table of the receiver's own Postgres, once by its id, many by one
         statement where they come together.
Answer   200 when it is committed: nothing that the work takes or breaks reaches the sender.
Process  due events by this process or another one, SKIP LOCKED, each in a transaction of its own:
         the work and the mark that it is done are committed together, or neither. What fails or
         dies is tried again, so many times.
Order    events of one key are processed one after the other, in the order in which they came.
"""

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, TypeAlias, TypeVar

from aetherflow_hooks.receive.hooks import FAILED, STORED, Answer, Hooks
from aetherflow_hooks.receive.statements import parts, statements
from aetherflow_hooks.receive.webhook import AnyWebhook, Webhook, parse

CONCURRENCY = 10
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3_600.0)
KEEP_SECONDS = 7 * 86_400.0  # what is done: more than any sender goes on trying
# Within it a claimed event has begun: whoever claims has a free hand for it already.
CLAIM_SECONDS = 30.0
POLL_SECONDS = 1.0  # for what others have stored, and what is to be tried again
STORE_MAX = 500  # events in one statement
FORGET_SECONDS = 60.0
FORGOTTEN_MAX = 10_000
PAUSE_SECONDS_MAX = 30.0  # while Postgres cannot be reached
ERROR_CHARACTERS_MAX = 1_000
DIED = "each try ended without a result: the process died, or was held up for long"

logger = logging.getLogger("aetherflow_hooks.receive")

KeyOf: TypeAlias = Callable[[AnyWebhook], str | None]
Statement: TypeAlias = tuple[Any, ...]  # the text, and its values
T = TypeVar("T")
Asked: TypeAlias = Generator[Statement | AnyWebhook, Any, T]


class Claimed(NamedTuple):
    """An event that is to be processed now."""

    event_id: str
    key: str | None
    body: str
    delivery: str
    tries: int  # this one among them


class _Stored(NamedTuple):
    """A row that is to be stored."""

    event_id: str
    type: str
    key: str | None
    delivery: str
    body: str


class Waiting(NamedTuple):
    """How much an inbox has to do."""

    waiting: int
    failed: int
    oldest_seconds: float  # since the one that has waited for longest came; 0: none waits


class Inbox:
    """Stores webhooks, answers at once, and has `hooks` process them afterwards.

    `source` opens transactions on the receiver's Postgres, as for SeenInPostgres. A function that
    takes a connection takes the one in whose transaction its event is marked as done. What fails is
    tried again after each of `retry_seconds`, and then left as failed, which `retry_failed` takes
    up again. With `key`, events of the same key are processed one after the other, in the order in
    which they came, and one that is to be tried again holds up its key alone.

    Where things are awaited, run it with `async with inbox:`; else `with inbox.in_thread():`, once
    in each process. Several processes share the work. `table_sql` makes the table, which `create`
    and `create_sync` run.
    """

    def __init__(
        self,
        hooks: Hooks,
        source: Any,
        *,
        key: KeyOf | None = None,
        table: str = "aetherflow_inbox",
        concurrency: int = CONCURRENCY,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        keep_seconds: float = KEEP_SECONDS,
    ) -> None:
        """Take the functions, the source, and what bounds it: `concurrency` events at once.

        The source needs that many connections, and two more. What is done is kept by its id for
        `keep_seconds`, to know it when it comes again.

        Raises:
            InputRefused: no transaction comes from `source`, or the table's name is none.
        """
        from aetherflow_hooks import drivers  # noqa: PLC0415  who has no inbox loads none of it

        self._drivers = drivers
        self._hooks = hooks
        self._source = source
        self._key = key or (lambda _webhook: None)
        self._concurrency = concurrency
        self._retry_seconds = tuple(retry_seconds)
        self._keep_seconds = keep_seconds
        self._sql = statements("inbox", table)
        self.table_sql = self._sql["table"]
        self.is_awaited = drivers.is_awaited(source)
        self.body_bytes_max = hooks.body_bytes_max
        self._unstored: list[tuple[_Stored, asyncio.Future[None]]] = []
        self._storing: asyncio.Task[None] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()

    async def create(self) -> None:
        """Make the table, unless it is there."""
        await self._play(self._create())

    def create_sync(self) -> None:
        """Make the table, unless it is there."""
        self._play_sync(self._create())

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Verify a request, store its event, and give what to answer."""
        if not self.is_awaited:  # it would hold up the loop
            return await asyncio.to_thread(self.receive_sync, body, headers)
        webhook = self._hooks.open(body, headers)
        if isinstance(webhook, Answer):
            return webhook
        try:
            stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._unstored.append((self._row(webhook), stored))
            if self._storing is None:
                self._storing = asyncio.create_task(self._store_all())
            await stored
        except Exception:
            logger.exception("storing %s %s failed", webhook.type, webhook.id)
            return FAILED
        return STORED

    def receive_sync(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Do as `receive` does, where nothing is awaited."""
        webhook = self._hooks.open(body, headers)
        if isinstance(webhook, Answer):
            return webhook
        try:
            self._play_sync(self._store([self._row(webhook)]))
        except Exception:
            logger.exception("storing %s %s failed", webhook.type, webhook.id)
            return FAILED
        loop = self._loop
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(self._woken.set)
        return STORED

    async def retry_failed(self) -> int:
        """Have everything that failed tried again; tell how many that is."""
        return await self._play(self._retry())

    def retry_failed_sync(self) -> int:
        """Have everything that failed tried again; tell how many that is."""
        return self._play_sync(self._retry())

    async def waiting(self) -> Waiting:
        """Tell how much there is to do."""
        return await self._play(self._count())

    def waiting_sync(self) -> Waiting:
        """Tell how much there is to do."""
        return self._play_sync(self._count())

    async def __aenter__(self) -> Self:
        """Begin to process."""
        self._loop = asyncio.get_running_loop()
        self._woken = asyncio.Event()
        if not self.is_awaited:
            self._threads = ThreadPoolExecutor(self._concurrency + 1, "inbox")
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is being processed: it is undone, and due again within CLAIM_SECONDS."""
        assert self._running is not None
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)

    @contextmanager
    def in_thread(self) -> Iterator[Self]:
        """Process in a thread of this process, as long as the block lasts."""
        ended = threading.Event()
        began: Future[asyncio.Event] = Future()

        async def run() -> None:
            leave = asyncio.Event()
            async with self:
                began.set_result(leave)
                await leave.wait()

        def work() -> None:
            try:
                asyncio.run(run())
            except BaseException as error:
                if not began.done():
                    began.set_exception(error)
                raise
            finally:
                ended.set()

        threading.Thread(target=work, name="inbox", daemon=True).start()
        leave = began.result()
        try:
            yield self
        finally:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(leave.set)
            ended.wait()

    def _row(self, webhook: AnyWebhook) -> _Stored:
        return _Stored(
            webhook.id, webhook.type, self._key(webhook), webhook.delivery, webhook.body.decode()
        )

    async def _store_all(self) -> None:
        """Store what has come, and what comes meanwhile: many by one statement under load."""
        while self._unstored:
            some, self._unstored = self._unstored[:STORE_MAX], self._unstored[STORE_MAX:]
            problem: Exception | None = None
            try:
                await self._play(self._store([row for row, _ in some]))
            except Exception as error:  # noqa: BLE001  each of them tells it
                problem = error
            for _, stored in some:
                if stored.done():
                    continue  # whoever waited has gone
                if problem is None:
                    stored.set_result(None)
                else:
                    stored.set_exception(problem)
            self._woken.set()
        self._storing = None

    async def _run(self) -> None:
        """Claim what is due whenever there is a free hand."""
        forget_at = 0.0
        async with asyncio.TaskGroup() as group:
            working: set[asyncio.Task[None]] = set()
            pause = POLL_SECONDS
            while True:
                self._woken.clear()
                free = self._concurrency - len(working)
                claimed: list[Claimed] = []
                try:
                    if free:
                        claimed = await self._ask(self._claim(free))
                    if time.monotonic() >= forget_at:
                        forget_at = time.monotonic() + FORGET_SECONDS
                        await self._ask(self._forget())
                    pause = POLL_SECONDS
                except Exception:
                    logger.exception("the inbox cannot be read; trying again in %.0f s", pause)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, PAUSE_SECONDS_MAX)
                    continue
                for one in claimed:
                    task = group.create_task(self._work(one))
                    working.add(task)
                    task.add_done_callback(working.discard)
                    task.add_done_callback(lambda _: self._woken.set())
                if len(claimed) < free or len(working) >= self._concurrency:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), POLL_SECONDS)

    async def _work(self, claimed: Claimed) -> None:
        """Process an event; whatever comes of it is in the table."""
        tries_max = len(self._retry_seconds) + 1
        try:
            if claimed.tries > tries_max:
                await self._ask(self._fail(claimed, DIED, for_good=True))
                return
            await self._ask(self._process(claimed))
        except Exception as error:
            logger.exception("processing %s failed, try %d", claimed.event_id, claimed.tries)
            why = f"{type(error).__name__}: {error}".replace("\0", "")[:ERROR_CHARACTERS_MAX]
            try:
                for_good = claimed.tries >= tries_max
                await self._ask(self._fail(claimed, why, for_good=for_good))
            except Exception:
                logger.exception("that %s failed cannot be stored", claimed.event_id)

    # Each of these is what one transaction asks, written once for both kinds of sources: a tuple
    # is a statement with its values, and is answered by its rows; a webhook is to be processed.

    def _create(self) -> Asked[None]:
        for statement in parts(self.table_sql):
            yield (statement,)

    def _store(self, rows: Sequence[_Stored]) -> Asked[None]:
        keys = [row.key for row in rows if row.key is not None]
        if keys:
            yield self._sql["lock_keys"], keys
        yield self._sql["store"], *(list(column) for column in zip(*rows, strict=True))
        if keys:
            yield self._sql["release"], keys

    def _claim(self, count: int) -> Asked[list[Claimed]]:
        rows = yield self._sql["claim"], count, CLAIM_SECONDS
        return [Claimed(*row) for row in rows]

    def _process(self, claimed: Claimed) -> Asked[None]:
        begun = yield self._sql["begin"], claimed.event_id, claimed.tries
        if not begun:
            return  # it took so long to begin that somebody else has it
        yield parse(claimed.body.encode(), claimed.event_id, delivery=claimed.delivery)
        yield from self._end(claimed, (self._sql["done"], claimed.event_id))

    def _fail(self, claimed: Claimed, why: str, *, for_good: bool) -> Asked[None]:
        place = min(claimed.tries, len(self._retry_seconds)) - 1
        wait = 0.0 if for_good else self._retry_seconds[place] * random.uniform(0.8, 1.2)  # noqa: S311
        values = (claimed.event_id, claimed.tries, why, wait, for_good)
        yield from self._end(claimed, (self._sql["failed"], *values))

    def _end(self, claimed: Claimed, statement: Statement) -> Asked[None]:
        if claimed.key is not None:
            yield self._sql["lock_keys"], [claimed.key]
        yield statement
        if claimed.key is not None:
            yield self._sql["release"], [claimed.key]

    def _forget(self) -> Asked[None]:
        yield self._sql["forget"], self._keep_seconds, FORGOTTEN_MAX

    def _retry(self) -> Asked[int]:
        keys = [row[0] for row in (yield (self._sql["failed_keys"],))]
        yield self._sql["lock_keys"], keys
        retried = yield (self._sql["retry"],)
        yield self._sql["release"], keys
        return len(retried)

    def _count(self) -> Asked[Waiting]:
        rows = yield (self._sql["waiting"],)
        return Waiting(*rows[0])

    async def _ask(self, asked: Asked[T]) -> T:
        if self._threads is None:
            return await self._play(asked)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._play_sync, asked)

    async def _play(self, asked: Asked[T]) -> T:
        async with self._drivers.transaction(self._source) as connection:
            answer: Any = None
            while True:
                try:
                    step = asked.send(answer)
                except StopIteration as ended:
                    result: T = ended.value
                    return result
                if isinstance(step, Webhook):
                    await self._hooks.process(step, connection)
                    answer = None
                else:
                    answer = await self._drivers.fetch(connection, *step)

    def _play_sync(self, asked: Asked[T]) -> T:
        with self._drivers.transaction_sync(self._source) as connection:
            answer: Any = None
            while True:
                try:
                    step = asked.send(answer)
                except StopIteration as ended:
                    result: T = ended.value
                    return result
                if isinstance(step, Webhook):
                    self._hooks.process_sync(step, connection)
                    answer = None
                else:
                    answer = self._drivers.fetch_sync(connection, *step)
