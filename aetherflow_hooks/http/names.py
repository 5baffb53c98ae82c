"""Names: looked up side by side, so that a slow one keeps only its own endpoints waiting.

The system's resolver has no deadline, and the threads that asyncio and uvloop lend it are few: some
names whose servers do not answer would stop every lookup, and thereby every new connection. Here a
name is looked up once, however many wait for it; those give up after a while, though the thread
cannot. Names that have had an answer have threads that others cannot take from them, and of the
others one tenant's take half at the most. What was found, or was not, is remembered for some
seconds; where a name's servers fail, what was found last serves for an hour (RFC 8767).
"""

import asyncio
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from aiohttp.abc import AbstractResolver, ResolveResult

KNOWN_LOOKUPS_MAX = 32  # at once, of names that have had an answer
NEW_LOOKUPS_MAX = 32  # of others
NEW_LOOKUPS_OF_TENANT_MAX = 16
LOOKUP_SECONDS_MAX = 5.0
FOUND_SECONDS = 10.0  # how long an answer is used
STALE_SECONDS_MAX = 3600.0  # and where its servers fail
FAILED_SECONDS = 5.0  # how long a name is not asked for again
HUNG_SECONDS = 60.0  # and one that took longer than anybody waits
NAMES_REMEMBERED = 10_000
ADDRESSES_MAX = 8  # of one name; the others are not tried


Addresses = Sequence[tuple[int, str]]  # each with its family

_NO_DATA = getattr(socket, "EAI_NODATA", socket.EAI_NONAME)


class _Answer(NamedTuple):
    """What came of a lookup."""

    until: float  # monotonic seconds
    addresses: Addresses
    error: OSError | None

    @property
    def is_answer(self) -> bool:
        """Whether the name's servers have spoken, be it that there is no such name."""
        return self.error is None or self.error.errno in (socket.EAI_NONAME, _NO_DATA)


class _Lookup:
    """A lookup under way, for whoever asks for its name meanwhile."""

    def __init__(self) -> None:
        self.waiting = 0
        self.began = asyncio.Event()  # a thread is at it
        self.task: asyncio.Task[_Answer]


class Names(AbstractResolver):
    """Looks up names for aiohttp's connector."""

    def __init__(
        self,
        *,
        is_local: Callable[[str], bool],
        tenant: Callable[[], str],
        choose: Callable[[str, int, Addresses], Addresses],
    ) -> None:
        """Prepare; `tenant` says for whom a name is looked up, `choose` which addresses to try.

        A name that is not local is asked for as it stands: no search list of this machine and no
        short name that it knows can lead it elsewhere.
        """
        self._is_local = is_local
        self._tenant = tenant
        self._choose = choose
        self._places_known = asyncio.Semaphore(KNOWN_LOOKUPS_MAX)
        self._places_new = asyncio.Semaphore(NEW_LOOKUPS_MAX)
        self._places_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way: dict[str, _Lookup] = {}
        self._answers: OrderedDict[str, _Answer] = OrderedDict()
        self._found: OrderedDict[str, _Answer] = OrderedDict()  # the last that had addresses

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a name, the best first.

        Raises:
            OSError: it has none, or the answer takes too long.
        """
        answer = self._answers.get(host)
        if answer is None or answer.until <= time.monotonic():
            answer = await self._asked(host)
        if not answer.is_answer:
            answer = self._stale(host) or answer
        if answer.error is not None:
            # Another one each time: whoever raises it writes his way into it.
            raise type(answer.error)(*answer.error.args)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=of_family,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for of_family, address in self._choose(host, port, answer.addresses)
            if family in (socket.AF_UNSPEC, of_family)
        ]

    async def close(self) -> None:
        """Wait for no lookup any more."""
        for lookup in self._under_way.values():
            lookup.task.cancel()

    async def _asked(self, host: str) -> _Answer:
        """Wait for a lookup's answer; a while, from when a thread is at it."""
        lookup = self._under_way.get(host)
        if lookup is None:
            lookup = self._under_way[host] = _Lookup()
            lookup.task = asyncio.create_task(self._look_up(host, self._tenant(), lookup))
        lookup.waiting += 1
        try:
            beginning = asyncio.ensure_future(lookup.began.wait())
            try:
                await asyncio.wait([beginning, lookup.task], return_when=asyncio.FIRST_COMPLETED)
            finally:
                beginning.cancel()
            async with asyncio.timeout(LOOKUP_SECONDS_MAX):
                return await asyncio.shield(lookup.task)
        except TimeoutError:
            late = f"no answer within {LOOKUP_SECONDS_MAX:g} s"
            return _failed(socket.gaierror(socket.EAI_AGAIN, late), 0.0)
        finally:
            lookup.waiting -= 1
            if not lookup.waiting and not lookup.began.is_set():
                # Nobody is left to tell, and no thread is at it yet.
                self._forget(host, lookup)
                lookup.task.cancel()

    async def _look_up(self, host: str, tenant: str, lookup: _Lookup) -> _Answer:
        try:
            if host in self._found:
                async with self._places_known:
                    answer = await self._answer(host, lookup)
            else:
                places = self._places_of.get(tenant)
                if places is None:
                    places = asyncio.Semaphore(NEW_LOOKUPS_OF_TENANT_MAX)
                    self._places_of[tenant] = places
                async with places, self._places_new:
                    answer = await self._answer(host, lookup)
        finally:
            self._forget(host, lookup)
        _remember(self._answers, host, answer)
        if answer.error is None:
            _remember(self._found, host, answer)
        elif answer.is_answer:
            self._found.pop(host, None)
        return answer

    async def _answer(self, host: str, lookup: _Lookup) -> _Answer:
        lookup.began.set()
        loop = asyncio.get_running_loop()
        asked: asyncio.Future[_Answer] = loop.create_future()
        name = host if self._is_local(host) or host.endswith(".") else f"{host}."
        # Not an executor's: the end of the process would wait for its threads.
        threading.Thread(target=_ask, args=(name, loop, asked), daemon=True).start()
        return await asked

    def _forget(self, host: str, lookup: _Lookup) -> None:
        if self._under_way.get(host) is lookup:
            del self._under_way[host]

    def _stale(self, host: str) -> _Answer | None:
        found = self._found.get(host)
        if found is None or found.until + STALE_SECONDS_MAX < time.monotonic():
            return None
        return found


def _remember(answers: OrderedDict[str, _Answer], host: str, answer: _Answer) -> None:
    answers[host] = answer
    answers.move_to_end(host)
    if len(answers) > NAMES_REMEMBERED:
        answers.popitem(last=False)


def _failed(error: OSError, seconds: float) -> _Answer:
    return _Answer(time.monotonic() + seconds, [], error)


def _ask(name: str, loop: asyncio.AbstractEventLoop, asked: asyncio.Future[_Answer]) -> None:
    """Ask the system for a name's addresses, which takes as long as that wants."""
    began = time.monotonic()
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        addresses = [(family, str(address[0])) for family, _, _, _, address in found]
        answer = _Answer(time.monotonic() + FOUND_SECONDS, addresses[:ADDRESSES_MAX], None)
    except OSError as error:
        has_hung = time.monotonic() - began > LOOKUP_SECONDS_MAX
        answer = _failed(error, HUNG_SECONDS if has_hung else FAILED_SECONDS)
    except Exception as error:  # noqa: BLE001  a name is too long, or memory too short
        none = socket.gaierror(socket.EAI_NONAME, f"no such name: {type(error).__name__}")
        answer = _failed(none, FAILED_SECONDS)
    try:
        loop.call_soon_threadsafe(_tell, asked, answer)
    except RuntimeError:
        return  # the loop has ended meanwhile


def _tell(asked: asyncio.Future[_Answer], answer: _Answer) -> None:
    if not asked.done():
        asked.set_result(answer)
