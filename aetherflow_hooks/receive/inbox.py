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
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Self, TypeAlias, TypeVar

from aetherflow_hooks.receive.hooks import FAILED, STORED, Answer, Hooks, is_cancelled
from aetherflow_hooks.receive.table import CLAIM_SECONDS, Asked, Claimed, Stored, Table, Waiting
from aetherflow_hooks.receive.webhook import AnyWebhook

CONCURRENCY = 10
RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0, 3_600.0)
KEEP_SECONDS = 7 * 86_400.0  # what is done: more than any sender goes on trying
GATHER_SECONDS = 0.01  # what comes, or becomes free, within it is of one claim
CLAIM_MAX = 10  # what is claimed together begins one after the other, within GATHER_SECONDS
POLL_SECONDS = 1.0  # for what others have stored, and what is to be tried again
STORE_MAX = 500  # events in one statement
STORE_BYTES_MAX = 8 * 1024 * 1024  # of their bodies, but for the last one
FORGET_SECONDS = 60.0
PAUSE_SECONDS_MAX = 30.0  # while Postgres cannot be reached
ERROR_CHARACTERS_MAX = 1_000
DIED = "each try ended without a result: the process died, or was held up for long"

logger = logging.getLogger("aetherflow_hooks.receive")

KeyOf: TypeAlias = Callable[[AnyWebhook], str | None]
T = TypeVar("T")


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
        self._hooks = hooks
        self._table = Table(table, source, hooks)
        self._key = key or (lambda _webhook: None)
        self._concurrency = concurrency
        self._retry_seconds = tuple(retry_seconds)
        self._keep_seconds = keep_seconds
        self.table_sql = self._table.sql
        self.is_awaited = self._table.is_awaited
        self.body_bytes_max = hooks.body_bytes_max
        self._unstored: list[tuple[Stored, asyncio.Future[None]]] = []
        self._storing: asyncio.Task[None] | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._running: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0  # of the process that it runs in
        self._woken = asyncio.Event()

    async def create(self) -> None:
        """Make the table, unless it is there."""
        await self._table.ask(self._table.create())

    def create_sync(self) -> None:
        """Make the table, unless it is there."""
        self._table.ask_sync(self._table.create())

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
            if self._storing is None or self._storing.done():
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
            self._table.ask_sync(self._table.store([self._row(webhook)]))
        except Exception:
            logger.exception("storing %s %s failed", webhook.type, webhook.id)
            return FAILED
        if self._loop is not None and self._pid == os.getpid():  # else it is of before a fork
            with contextlib.suppress(RuntimeError):  # it has ended meanwhile
                self._loop.call_soon_threadsafe(self._woken.set)
        return STORED

    async def retry_failed(self) -> int:
        """Have everything that failed until now tried again; tell how many that is."""
        now, count = await self._table.ask(self._table.now()), 0
        while some := await self._table.ask(self._table.retry(now)):
            count += some
        return count

    def retry_failed_sync(self) -> int:
        """Have everything that failed until now tried again; tell how many that is."""
        now, count = self._table.ask_sync(self._table.now()), 0
        while some := self._table.ask_sync(self._table.retry(now)):
            count += some
        return count

    async def waiting(self) -> Waiting:
        """Tell how much there is to do."""
        return await self._table.ask(self._table.count())

    def waiting_sync(self) -> Waiting:
        """Tell how much there is to do."""
        return self._table.ask_sync(self._table.count())

    async def __aenter__(self) -> Self:
        """Begin to process.

        Raises:
            InputRefused: the source opens transactions that show what was there when they began.
        """
        self._loop, self._pid = asyncio.get_running_loop(), os.getpid()
        self._woken = asyncio.Event()
        if not self.is_awaited:
            self._threads = ThreadPoolExecutor(self._concurrency + 1, "inbox")
        try:
            await self._ask(self._table.check())
        except BaseException:
            self._end_threads()
            raise
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(_tell_if_it_failed)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Break off what is awaited, which is undone and due at once; let threads end."""
        assert self._running is not None
        self._running.cancel()
        try:
            await asyncio.wait({self._running})
        finally:
            self._loop = None
            if self._threads is not None:
                await asyncio.to_thread(self._end_threads)

    def _end_threads(self) -> None:
        if self._threads is not None:
            self._threads.shutdown()
            self._threads = None

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
            if self._loop is not None:
                with contextlib.suppress(RuntimeError):  # it has ended by itself
                    self._loop.call_soon_threadsafe(leave.set)
            ended.wait()

    def _row(self, webhook: AnyWebhook) -> Stored:
        """Give a row that Postgres can take: one that it cannot would take others along."""
        key = self._key(webhook)
        if key is not None and (not isinstance(key, str) or "\0" in key or not _is_text(key)):
            raise TypeError(f"the key of an event is text or None, and not {key!r}")
        return Stored(webhook.id, webhook.type, key, webhook.delivery, webhook.body.decode())

    async def _store_all(self) -> None:
        """Store what has come, and what comes meanwhile: many by one statement under load."""
        while self._unstored:
            some = self._take_unstored()
            try:
                async with self._table.at_hand() as asking:
                    while some:
                        await asking.ask(self._table.store([row for row, _ in some]))
                        for _, stored in some:
                            if not stored.done():  # else whoever waited has gone
                                stored.set_result(None)
                        self._woken.set()
                        some = self._take_unstored()
            except (Exception, asyncio.CancelledError) as error:  # each of them tells it
                for _, stored in some:
                    if stored.done():
                        continue
                    if isinstance(error, asyncio.CancelledError):
                        stored.cancel()
                    else:
                        stored.set_exception(error)
                if is_cancelled(error):
                    raise

    def _take_unstored(self) -> list[tuple[Stored, asyncio.Future[None]]]:
        """Take what is to be stored by one statement; mostly all that there is."""
        size = count = 0
        while count < min(len(self._unstored), STORE_MAX) and size < STORE_BYTES_MAX:
            size += len(self._unstored[count][0].body)
            count += 1
        some, self._unstored = self._unstored[:count], self._unstored[count:]
        return some

    async def _run(self) -> None:
        """Claim what is due whenever there is a free hand."""
        forget_at = 0.0
        async with asyncio.TaskGroup() as group:
            working: set[asyncio.Task[None]] = set()
            pause = POLL_SECONDS
            while True:
                self._woken.clear()
                free = min(self._concurrency - len(working), CLAIM_MAX)
                claimed: list[Claimed] = []
                try:
                    if free:
                        claimed = await self._ask(self._table.claim(free))
                    pause = POLL_SECONDS
                except Exception:
                    logger.exception("the inbox cannot be read; trying again in %.0f s", pause)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, PAUSE_SECONDS_MAX)
                    continue
                for place, one in enumerate(claimed):
                    after_seconds = GATHER_SECONDS * place / len(claimed)
                    task = group.create_task(self._work(one, after_seconds))
                    working.add(task)
                    task.add_done_callback(working.discard)
                    task.add_done_callback(lambda _: self._woken.set())
                if time.monotonic() >= forget_at:
                    try:
                        is_more = await self._ask(self._table.forget(self._keep_seconds))
                    except Exception:
                        is_more = False
                        logger.exception("the inbox cannot forget what is done for long")
                    forget_at = time.monotonic() + (0 if is_more else FORGET_SECONDS)
                if len(claimed) < free or len(working) >= self._concurrency:
                    # wait_for of Python 3.11 may forget that it was cancelled.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._woken.wait()
                await asyncio.sleep(GATHER_SECONDS)

    async def _work(self, claimed: Claimed, after_seconds: float) -> None:
        """Process an event; whatever comes of it is in the table.

        But not at once: what begins together ends together, and holds up requests meanwhile.
        """
        tries_max = len(self._retry_seconds) + 1
        try:
            if claimed.tries > tries_max:
                await self._ask(self._table.fail(claimed, DIED, wait_seconds=0.0, for_good=True))
                return
            if after_seconds:
                await asyncio.sleep(after_seconds)
            await self._ask(self._table.process(claimed))
        except (Exception, SystemExit, asyncio.CancelledError) as error:
            if is_cancelled(error):
                await asyncio.shield(self._hand_back(claimed))
                raise
            logger.exception("processing %s failed, try %d", claimed.event_id, claimed.tries)
            why = f"{type(error).__name__}: {error}".replace("\0", "")[:ERROR_CHARACTERS_MAX]
            for_good = claimed.tries >= tries_max
            wait = 0.0 if for_good else self._retry_seconds[claimed.tries - 1]
            wait *= random.uniform(0.8, 1.2)  # noqa: S311  so that what failed together is not again
            try:
                await self._ask(
                    self._table.fail(claimed, why, wait_seconds=wait, for_good=for_good)
                )
            except Exception:
                logger.exception("that %s failed cannot be stored", claimed.event_id)

    async def _hand_back(self, claimed: Claimed) -> None:
        try:
            await self._ask(self._table.hand_back(claimed))
        except Exception:
            logger.exception("%s is due again in %.0f s", claimed.event_id, CLAIM_SECONDS)

    async def _ask(self, asked: Asked[T]) -> T:
        if self._threads is None:
            return await self._table.ask(asked)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._table.ask_sync, asked)


def _is_text(text: str) -> bool:
    """Tell whether UTF-8 can hold it: half of a surrogate pair is none."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _tell_if_it_failed(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        logger.critical("nothing of the inbox is processed any more", exc_info=error)
