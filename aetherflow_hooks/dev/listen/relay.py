"""Relay: what a feed finds goes to a program, in order, one at a time.

Takes    events as they are found, and those that somebody asks to be sent again.
Hands on each of them with its answer to whoever shows them.
Holds    who is away is waited for, the source and the program alike; an answer of any status ends
         an event, and one to which no answer comes is sent a few times.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from aetherflow_hooks.dev.listen.feed import Feed
from aetherflow_hooks.dev.listen.program import Program
from aetherflow_hooks.dev.listen.sources import AwayError, EventRow, Source
from aetherflow_hooks.model import Event, NotReached, Tried
from aetherflow_hooks.rules.bodies import event_of

LOOK_SECONDS = 0.5
AWAY_SECONDS = 1.0  # between two tries to reach somebody
ATTEMPTS_MAX = 4  # of an event, while the program is there and gives no answer
WAITING_MAX = 10_000  # events; what is more of them is left out, the oldest first
KEPT_MAX = 1_000  # that can be sent again

T = TypeVar("T")


class Sent(NamedTuple):
    """An event, and how it went."""

    number: int  # from 1, in the order in which they were found
    emitted: EventRow
    event: Event | None  # None: its data is there no more, and nothing was sent
    attempt: int
    tried: Tried | None  # None: there is no program, or nothing was sent


class Relay:
    """Carries events, for as long as `run` runs."""

    def __init__(
        self,
        source: Source,
        feed: Feed,
        program: Program | None,
        *,
        on_sent: Callable[[Sent], None],
        on_note: Callable[[str], None],
    ) -> None:
        """Tell `on_sent` of each event, and `on_note` in words who is away and who is back."""
        self._source = source
        self._feed = feed
        self._program = program
        self._on_sent = on_sent
        self._on_note = on_note
        self._waiting: deque[tuple[int, EventRow]] = deque()
        self._again: deque[tuple[int, EventRow]] = deque()
        self._kept: OrderedDict[int, EventRow] = OrderedDict()
        self._attempts: dict[int, int] = {}
        self._found = 0
        self._wake = asyncio.Event()

    async def run(self, replay_last: int = 0) -> None:
        """Carry events until cancelled, after the last few of those that are there already.

        Raises:
            HooksError: the source cannot be read, now and later.
        """
        for event in await self._read(lambda: self._feed.begin(replay_last)):
            self._take(event)
        self._on_note("Listening. Ctrl-C ends it.")
        problem: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._look())
                tasks.create_task(self._send())
        except* Exception as errors:  # noqa: BLE001  the first of them, as it was raised
            problem = errors.exceptions[0]
        if problem is not None:
            raise problem

    def resend(self, number: int | None) -> bool:
        """Send an event again, by its number, or the last one; False: it is not known any more."""
        if number is None:
            number = next(reversed(self._kept), None)
        event = self._kept.get(number or 0)
        if event is None or number is None:
            return False
        self._again.append((number, event))
        self._wake.set()
        return True

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for event in await self._read(self._feed.look):
                self._take(event)
            if self._feed.missed:
                self._on_note("There were more events than can be read at once: some are left out.")

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T:
        """Read at the source, however long it is away."""
        is_told = False
        while True:
            try:
                found = await read()
            except AwayError as error:
                if not is_told:
                    self._on_note(f"Events cannot be read, and are waited for: {error}")
                    is_told = True
                await asyncio.sleep(AWAY_SECONDS)
                continue
            if is_told:
                self._on_note("Events can be read again.")
            return found

    def _take(self, event: EventRow) -> None:
        self._found += 1
        if len(self._waiting) >= WAITING_MAX:
            number, left_out = self._waiting.popleft()
            self._on_note(f"Left out, since too many wait: {number}, {left_out.id}")
        self._waiting.append((self._found, event))
        self._wake.set()

    async def _send(self) -> None:
        while True:
            work = self._again or self._waiting
            if not work:
                self._wake.clear()
                await self._wake.wait()
                continue
            number, emitted = work.popleft()
            event = await self._event(emitted)
            attempt, tried = 0, None
            if event is not None and self._program is not None:
                attempt, tried = await self._sent(self._program, number, event)
            self._kept[number] = emitted
            if len(self._kept) > KEPT_MAX:
                forgotten, _ = self._kept.popitem(last=False)
                self._attempts.pop(forgotten, None)
            self._on_sent(Sent(number, emitted, event, attempt, tried))

    async def _event(self, row: EventRow) -> Event | None:
        """Give an event as it is sent; None: its data is there no more."""
        data = await self._read(lambda: self._source.data(row.id))
        if data is None:
            return None
        return event_of(row.id, row.type, data, int(row.emitted_at.timestamp()))

    async def _sent(self, program: Program, number: int, event: Event) -> tuple[int, Tried]:
        """Send an event until an answer comes, or that is in vain; give the last attempt."""
        attempts = 0
        while True:
            attempts += 1
            attempt = self._attempts[number] = self._attempts.get(number, 0) + 1
            tried = await program.send(event, attempt)
            if not isinstance(tried.ended, NotReached) or attempts >= ATTEMPTS_MAX:
                return attempt, tried
            if not await program.is_there():
                self._on_note(f"Nobody listens at {program.url}, who is waited for.")
                await program.wait_for()
                self._on_note("Somebody listens there again.")
            else:
                await asyncio.sleep(AWAY_SECONDS)
