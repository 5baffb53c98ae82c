"""Names: what a resolver does that hangs, lies or floods touches nobody else's lookups."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import pytest_asyncio

from aetherflow_hooks.http import names
from aetherflow_hooks.http.names import LOOKUPS_MAX, LOOKUPS_OF_TENANT_MAX, Names

PUBLIC = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 0))


class Resolver:
    """The system's resolver, as a test wants it: names that begin with `slow` hang until told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.answers: dict[str, list[Any]] = {}

    def getaddrinfo(self, name: str, *_: Any, **__: Any) -> list[Any]:
        self.asked.append(name)
        if name.startswith("slow"):
            self.go_on.wait(30)
        if name.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self.answers.get(name, [PUBLIC])


@pytest_asyncio.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resolver]:
    scripted = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", scripted.getaddrinfo)
    yield scripted
    scripted.go_on.set()


class Lookups:
    """Names, and the tenant for whom the next one is looked up."""

    def __init__(self, *, absolute: bool = False) -> None:
        self.tenant = "a"
        self.names = Names(absolute=absolute, tenant=lambda: self.tenant)

    async def addresses(self, host: str) -> list[str]:
        return [found["host"] for found in await self.names.resolve(host, 443)]


async def test_names_that_hang_keep_no_other_tenant_waiting(resolver: Resolver) -> None:
    lookups = Lookups()
    hanging = [
        asyncio.create_task(lookups.addresses(f"slow{n}.example")) for n in range(3 * LOOKUPS_MAX)
    ]
    await asyncio.sleep(0)
    lookups.tenant = "b"
    assert await lookups.addresses("quick.example") == ["93.184.216.34"]
    assert len(resolver.asked) == LOOKUPS_OF_TENANT_MAX + 1
    resolver.go_on.set()
    assert [await it for it in hanging] == [["93.184.216.34"]] * len(hanging)


async def test_who_waits_gives_up_and_the_name_is_asked_for_once(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 0.05)
    lookups = Lookups()
    for _ in range(2):
        with pytest.raises(socket.gaierror, match=r"no answer within 0\.05 s"):
            await lookups.addresses("slow.example")
    assert resolver.asked == ["slow.example"]
    monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 5)
    waiting = asyncio.create_task(lookups.addresses("slow.example"))
    await asyncio.sleep(0)
    resolver.go_on.set()
    assert await waiting == ["93.184.216.34"]
    assert resolver.asked == ["slow.example"]


async def test_an_answer_is_used_for_a_while_and_so_is_a_failure(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = Lookups()
    now = 1000.0
    monkeypatch.setattr(names, "time", SimpleNamespace(monotonic=lambda: now))
    for _ in range(2):
        await lookups.addresses("a.example")
        with pytest.raises(socket.gaierror, match="not known"):
            await lookups.addresses("none.example")
    assert resolver.asked == ["a.example", "none.example"]
    now += names.FAILED_SECONDS
    with pytest.raises(socket.gaierror):
        await lookups.addresses("none.example")
    await lookups.addresses("a.example")
    assert resolver.asked == ["a.example", "none.example", "none.example"]
    now += names.FOUND_SECONDS
    resolver.answers["a.example"] = [(*PUBLIC[:4], ("10.1.2.3", 0))]
    assert await lookups.addresses("a.example") == ["10.1.2.3"]


async def test_of_many_addresses_some_are_tried(resolver: Resolver) -> None:
    resolver.answers["many.example"] = [
        (*PUBLIC[:4], (f"93.184.{n // 250}.{n % 250}", 0)) for n in range(500)
    ]
    assert len(await Lookups().addresses("many.example")) == names.ADDRESSES_MAX


async def test_a_name_is_absolute_where_nothing_private_is_allowed(resolver: Resolver) -> None:
    await Lookups(absolute=True).addresses("a.example")
    await Lookups(absolute=False).addresses("a.example")
    assert resolver.asked == ["a.example.", "a.example"]


async def test_a_name_that_is_none_has_no_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> list[Any]:
        raise UnicodeError("label too long")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with pytest.raises(socket.gaierror, match="no such name"):
        await Lookups().addresses("a" * 64 + ".example")


async def test_a_few_names_are_remembered(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "NAMES_REMEMBERED", 2)
    lookups = Lookups()
    for host in ("a.example", "b.example", "c.example", "b.example", "a.example"):
        await lookups.addresses(host)
    assert resolver.asked == ["a.example", "b.example", "c.example", "a.example"]


async def test_closing_waits_for_no_lookup(resolver: Resolver) -> None:
    lookups = Lookups()
    waiting = asyncio.create_task(lookups.addresses("slow.example"))
    while not resolver.asked:
        await asyncio.sleep(0)
    await lookups.names.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
