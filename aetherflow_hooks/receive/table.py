"""Table: what an inbox asks of its table in Postgres.

Each function is what one transaction asks, written once for the sources that are awaited and those
that are not: it yields a tuple, a statement with its values, and is sent its rows; or a webhook,
which is to be processed there and then. Whatever yields an Only asks nothing else, and a driver
that can commits it by itself, which saves two of three ways to Postgres. `ask` and `ask_sync` play
it.
"""

from collections.abc import AsyncIterator, Generator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias, TypeVar

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.receive.hooks import Hooks
from aetherflow_hooks.receive.statements import MAKE_ONE_BY_ONE, parts, statements
from aetherflow_hooks.receive.webhook import AnyWebhook, Webhook, parse

# Within it a claimed event has begun, and nobody else can claim what is being processed. What dies
# is due again when it ends; a function that has taken longer, and then fails, is tried at once.
CLAIM_SECONDS = 60.0
FORGOTTEN_MAX = 10_000
RETRIED_KEYS_MAX = 500  # in one transaction

T = TypeVar("T")
Statement: TypeAlias = tuple[Any, ...]  # the text, and its values
Asked: TypeAlias = Generator[Statement | AnyWebhook, Any, T]


class Only(tuple[Any, ...]):
    """A statement that is all of its transaction."""

    __slots__ = ()


class Claimed(NamedTuple):
    """An event that is to be processed now."""

    event_id: str
    key: str | None
    body: str
    delivery: str
    tries: int  # this one among them


class Stored(NamedTuple):
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


class Table:
    """The table of an inbox, and the transactions about it."""

    def __init__(self, name: str, source: Any, hooks: Hooks) -> None:
        """Take what opens transactions, and who processes events.

        Raises:
            InputRefused: no transaction comes from `source`, or the name is none of a table.
        """
        from aetherflow_hooks import drivers  # noqa: PLC0415  who has no inbox loads none of it

        self._drivers = drivers
        self._source = source
        self._hooks = hooks
        self._statements = statements("inbox", name)
        self.sql = self._statements["table"]
        self.is_awaited = drivers.is_awaited(source)

    def create(self) -> Asked[None]:
        """Make it, unless it is there."""
        for statement in (MAKE_ONE_BY_ONE, *parts(self._statements["table"])):
            yield (statement,)

    def check(self) -> Asked[None]:
        """Make sure that transactions are what all this needs.

        Raises:
            InputRefused: they are not.
        """
        first = yield (self._statements["fitness"],)
        second = yield (self._statements["fitness"],)
        if first[0][1] != "read committed" or first[0][0] != second[0][0]:
            raise InputRefused(
                "an inbox needs transactions that are READ COMMITTED, which is what Postgres has "
                "unless it is told otherwise"
            )

    def store(self, rows: Sequence[Stored]) -> Asked[None]:
        """Store events, those that are not there."""
        keys = [row.key for row in rows if row.key is not None]
        columns = (list(column) for column in zip(*rows, strict=True))
        store = self._statements["store"], *columns
        if not keys:
            yield Only(store)
            return
        yield self._statements["lock_keys"], keys
        yield store
        yield self._statements["release"], keys

    def claim(self, count: int) -> Asked[list[Claimed]]:
        """Take so many events that are due, as far as there are."""
        rows = yield Only((self._statements["claim"], count, CLAIM_SECONDS))
        return [Claimed(*row) for row in rows]

    def process(self, claimed: Claimed) -> Asked[None]:
        """Have an event done, if it is still ours, and process it: both or neither."""
        is_ours = yield self._statements["done"], claimed.event_id, claimed.tries
        if not is_ours:
            return  # it took so long to begin that somebody else has it
        yield parse(claimed.body.encode(), claimed.event_id, delivery=claimed.delivery)
        if claimed.key is not None:
            yield self._statements["lock_keys"], [claimed.key]
            yield self._statements["release"], [claimed.key]

    def fail(
        self, claimed: Claimed, why: str, *, wait_seconds: float, for_good: bool
    ) -> Asked[None]:
        """Have an event tried again after a while, or leave it."""
        failed = (
            self._statements["failed"],
            claimed.event_id,
            claimed.tries,
            why,
            wait_seconds,
            for_good,
        )
        if claimed.key is None:
            yield Only(failed)
            return
        yield self._statements["lock_keys"], [claimed.key]
        yield failed
        yield self._statements["release"], [claimed.key]

    def hand_back(self, claimed: Claimed) -> Asked[None]:
        """Let an event be as if it had not been taken."""
        yield Only((self._statements["hand_back"], claimed.event_id, claimed.tries))

    def forget(self, keep_seconds: float) -> Asked[bool]:
        """Delete what was done long ago; tell whether there may be more."""
        gone = yield self._statements["forget"], keep_seconds, FORGOTTEN_MAX
        return len(gone) == FORGOTTEN_MAX

    def now(self) -> Asked[datetime]:
        """Tell the time."""
        rows = yield (self._statements["now"],)
        now: datetime = rows[0][0]
        return now

    def retry(self, until: datetime) -> Asked[int]:
        """Have some of what failed until then tried again; tell how many: 0, there are no more."""
        keys = [row[0] for row in (yield self._statements["failed_keys"], until, RETRIED_KEYS_MAX)]
        yield self._statements["lock_keys"], keys
        retried = yield self._statements["retry"], until, keys
        yield self._statements["release"], keys
        return len(retried)

    def count(self) -> Asked[Waiting]:
        """Tell how much there is to do."""
        rows = yield (self._statements["waiting"],)
        return Waiting(*rows[0])

    async def ask(self, asked: Asked[T]) -> T:
        """Make a transaction of what is asked; give its result."""
        async with self.at_hand() as asking:
            return await asking.ask(asked)

    @asynccontextmanager
    async def at_hand(self) -> AsyncIterator["Asking"]:
        """Give what makes one transaction after the other, as long as the block lasts."""
        async with self._drivers.at_hand(self._source) as hand:
            yield Asking(hand, self._hooks, self._drivers)

    def ask_sync(self, asked: Asked[T]) -> T:
        """Make a transaction of what is asked, where nothing is awaited; give its result."""
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


class Asking:
    """Makes transactions of what is asked, one after the other."""

    def __init__(self, hand: Any, hooks: Hooks, drivers: Any) -> None:
        self._hand = hand
        self._hooks = hooks
        self._drivers = drivers

    async def ask(self, asked: Asked[T]) -> T:
        """Make a transaction of what is asked; give its result."""
        step = next(asked)
        if isinstance(step, Only):
            return _ended(asked, await self._hand.alone(*step))
        async with self._hand.transaction() as connection:
            while True:
                answer: Any = None
                if isinstance(step, Webhook):
                    await self._hooks.process(step, connection)
                else:
                    answer = await self._drivers.fetch(connection, *step)
                try:
                    step = asked.send(answer)
                except StopIteration as ended:
                    result: T = ended.value
                    return result


def _ended(asked: Asked[T], answer: Any) -> T:
    """Send the answer to what has no further question; give its result."""
    try:
        asked.send(answer)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("nothing follows an Only")
