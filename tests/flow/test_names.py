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
from aetherflow_hooks.http.names import NEW_LOOKUPS_MAX, NEW_LOOKUPS_OF_TENANT_MAX, Names

PUBLIC = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("93.184.216.34", 0))


class Resolver:
    """The system's resolver, as a test wants it: names that begin with `slow` hang until told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go_on = threading.Event()
        self.answers: dict[str, list[Any]] = {}
        self.fails: dict[str, int] = {}

    def getaddrinfo(self, name: str, *_: Any, **__: Any) -> list[Any]:
        name = name.removesuffix(".")
        self.asked.append(name)
        if name.startswith("slow"):
            self.go_on.wait(30)
        if name.startswith("none"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        if name in self.fails:
            raise socket.gaierror(self.fails[name], "as a test wants it")
        return self.answers.get(name, [PUBLIC])


@pytest_asyncio.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Resolver]:
    scripted = Resolver()
    monkeypatch.setattr(socket, "getaddrinfo", scripted.getaddrinfo)
    yield scripted
    scripted.go_on.set()


class Lookups:
    """Names, and the tenant for whom the next one is looked up."""

    def __init__(self) -> None:
        self.tenant = "a"
        self.names = Names(
            is_local=lambda host: "." not in host,
            tenant=lambda: self.tenant,
            choose=lambda _host, _port, addresses: addresses,
        )

    async def addresses(self, host: str) -> list[str]:
        return [found["host"] for found in await self.names.resolve(host, 443)]


async def hang(lookups: Lookups, tenant: str, count: int) -> list[asyncio.Task[list[str]]]:
    """Ask for names that hang, as far as threads reach."""
    lookups.tenant = tenant
    hanging = [
        asyncio.create_task(lookups.addresses(f"slow{n}.{tenant}.example")) for n in range(count)
    ]
    for _ in range(3):
        await asyncio.sleep(0)
    return hanging


async def test_names_that_hang_keep_no_other_tenant_waiting(resolver: Resolver) -> None:
    lookups = Lookups()
    hanging = await hang(lookups, "a", 3 * NEW_LOOKUPS_MAX)
    lookups.tenant = "b"
    assert await lookups.addresses("quick.example") == ["93.184.216.34"]
    assert len(resolver.asked) == NEW_LOOKUPS_OF_TENANT_MAX + 1
    resolver.go_on.set()
    assert [await it for it in hanging] == [["93.184.216.34"]] * len(hanging)


async def test_names_that_hang_keep_no_known_name_waiting(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "FOUND_SECONDS", 0.0)
    lookups = Lookups()
    await lookups.addresses("known.example")
    hanging = [
        task for tenant in ("a", "b", "") for task in await hang(lookups, tenant, NEW_LOOKUPS_MAX)
    ]
    assert await lookups.addresses("known.example") == ["93.184.216.34"]
    assert resolver.asked.count("known.example") == 2
    assert len(resolver.asked) == NEW_LOOKUPS_MAX + 2
    for task in hanging:
        task.cancel()
    await asyncio.wait(hanging)
    resolver.go_on.set()
    assert await lookups.addresses("quick.example") == ["93.184.216.34"]
    # Nobody waits for the others any more, so they are not asked for.
    assert len(resolver.asked) == NEW_LOOKUPS_MAX + 3


async def test_where_a_names_servers_fail_its_last_addresses_serve(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups = Lookups()
    now = 1000.0
    monkeypatch.setattr(names, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(names, "LOOKUP_SECONDS_MAX", 0.05)
    await lookups.addresses("a.example")
    resolver.fails["a.example"] = socket.EAI_AGAIN
    for _ in range(2):
        now += names.FOUND_SECONDS + 1
        assert await lookups.addresses("a.example") == ["93.184.216.34"]
    assert resolver.asked == ["a.example"] * 3
    resolver.fails["a.example"] = socket.EAI_NONAME  # an answer: it is gone
    now += names.FOUND_SECONDS + 1
    with pytest.raises(socket.gaierror):
        await lookups.addresses("a.example")
    await lookups.addresses("b.example")
    resolver.fails["b.example"] = socket.EAI_AGAIN
    now += names.STALE_SECONDS_MAX + names.FOUND_SECONDS + 1
    with pytest.raises(socket.gaierror):
        await lookups.addresses("b.example")


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


async def test_a_name_is_absolute_unless_it_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def getaddrinfo(name: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(name)
        return [PUBLIC]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    await Lookups().addresses("a.example")
    await Lookups().addresses("receiver")
    assert asked == ["a.example.", "receiver"]


@pytest.mark.parametrize("error", [UnicodeError("label too long"), MemoryError(), ValueError()])
async def test_whatever_the_resolver_raises_the_name_has_no_address(
    resolver: Resolver, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(names, "FAILED_SECONDS", 0.0)

    def refuse(*_: Any, **__: Any) -> list[Any]:
        raise error

    lookups = Lookups()
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", refuse)
        with pytest.raises(socket.gaierror, match="no such name"):
            await lookups.addresses("a.example")
    assert await lookups.addresses("a.example") == ["93.184.216.34"]


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
