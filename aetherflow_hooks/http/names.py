"""Names: looked up side by side, so that a slow one keeps only its own endpoints waiting.

The system's resolver has no deadline, and the threads that asyncio and uvloop lend it are few: some
names whose servers do not answer would stop every lookup, and thereby every new connection. Here a
name is looked up once, however many wait for it; those give up after a while, though the thread
cannot; and one tenant's names take half of the threads at the most. What was found, or was not, is
remembered for some seconds.
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

LOOKUPS_MAX = 32  # at once
LOOKUPS_OF_TENANT_MAX = 16
LOOKUP_SECONDS_MAX = 5.0
FOUND_SECONDS = 10.0  # how long an answer is used
FAILED_SECONDS = 5.0  # how long it is not asked for again
NAMES_REMEMBERED = 1_000
ADDRESSES_MAX = 8  # of one name; the others are not tried


class _Answer(NamedTuple):
    """What came of a lookup."""

    until: float  # monotonic seconds
    addresses: Sequence[tuple[int, str]]
    error: OSError | None


class Names(AbstractResolver):
    """Looks up names for aiohttp's connector."""

    def __init__(self, *, absolute: bool, tenant: Callable[[], str]) -> None:
        """Prepare; `tenant` says for whom a name is looked up.

        An `absolute` name is asked for as it stands: no search list of this machine and no short
        name that it knows can lead it elsewhere.
        """
        self._absolute = absolute
        self._tenant = tenant
        self._places = asyncio.Semaphore(LOOKUPS_MAX)
        self._places_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._under_way: dict[str, asyncio.Task[_Answer]] = {}
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Give the addresses of a name, the best first.

        Raises:
            OSError: it has none, or the answer takes too long.
        """
        answer = self._answers.get(host)
        if answer is None or answer.until <= time.monotonic():
            looking = self._under_way.get(host)
            if looking is None:
                looking = self._under_way[host] = asyncio.create_task(
                    self._look_up(host, self._tenant())
                )
            try:
                async with asyncio.timeout(LOOKUP_SECONDS_MAX):
                    answer = await asyncio.shield(looking)
            except TimeoutError:
                late = f"no answer within {LOOKUP_SECONDS_MAX:g} s"
                raise socket.gaierror(socket.EAI_AGAIN, late) from None
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
            for of_family, address in answer.addresses
            if family in (socket.AF_UNSPEC, of_family)
        ]

    async def close(self) -> None:
        """Wait for no lookup any more."""
        for looking in self._under_way.values():
            looking.cancel()

    async def _look_up(self, host: str, tenant: str) -> _Answer:
        places = self._places_of.get(tenant)
        if places is None:
            places = self._places_of[tenant] = asyncio.Semaphore(LOOKUPS_OF_TENANT_MAX)
        try:
            async with places, self._places:
                loop = asyncio.get_running_loop()
                asked: asyncio.Future[_Answer] = loop.create_future()
                # Not an executor's: the end of the process would wait for its threads.
                threading.Thread(
                    target=_ask, args=(host, self._absolute, loop, asked), daemon=True
                ).start()
                answer = await asked
        finally:
            del self._under_way[host]
        self._answers[host] = answer
        self._answers.move_to_end(host)
        if len(self._answers) > NAMES_REMEMBERED:
            self._answers.popitem(last=False)
        return answer


def _ask(
    host: str,
    absolute: bool,
    loop: asyncio.AbstractEventLoop,
    asked: asyncio.Future[_Answer],
) -> None:
    """Ask the system for a name's addresses, which takes as long as that wants."""
    name = f"{host}." if absolute and not host.endswith(".") else host
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        addresses = [(family, str(address[0])) for family, _, _, _, address in found]
        answer = _Answer(time.monotonic() + FOUND_SECONDS, addresses[:ADDRESSES_MAX], None)
    except OSError as error:
        answer = _Answer(time.monotonic() + FAILED_SECONDS, [], error)
    except UnicodeError:  # what this resolver does not take for a name
        none = socket.gaierror(socket.EAI_NONAME, "no such name")
        answer = _Answer(time.monotonic() + FAILED_SECONDS, [], none)
    try:
        loop.call_soon_threadsafe(_tell, asked, answer)
    except RuntimeError:
        return  # the loop has ended meanwhile


def _tell(asked: asyncio.Future[_Answer], answer: _Answer) -> None:
    if not asked.done():
        asked.set_result(answer)
