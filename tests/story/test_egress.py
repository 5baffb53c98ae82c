"""Egress: the address that is about to be connected decides, whatever a URL or name says."""

import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

import pytest

from aetherflow_hooks import Settings, start_engine
from aetherflow_hooks.http import names
from aetherflow_hooks.http.connections import Connector
from aetherflow_hooks.rules.addresses import CLOSED_REASON, opens_closed, parse_entry
from tests.conftest import World

pytestmark = pytest.mark.usefixtures("each_way")

Answers = Callable[..., None]


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note each address that gets a socket."""
    made: list[str] = []
    make = Connector._socket

    def noted(self: Connector, address_info: Any) -> socket.socket:
        made_socket = make(self, address_info)
        made.append(address_info[4][0])
        return made_socket

    monkeypatch.setattr(Connector, "_socket", noted)
    return made


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Let the system's resolver give a name one list of addresses after the other."""
    scripted: dict[str, list[list[str]]] = {}
    ask = socket.getaddrinfo

    def getaddrinfo(name: str, *rest: Any, **options: Any) -> list[Any]:
        lists = scripted.get(str(name).removesuffix("."))
        if lists is None:
            return ask(name, *rest, **options)
        addresses = lists.pop(0) if len(lists) > 1 else lists[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (it, 0)) for it in addresses]

    def script(name: str, *lists: list[str]) -> None:
        scripted[name] = list(lists)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return script


def production(world: World, **sections: dict[str, Any]) -> Settings:
    """Settings of the strict profile, but for http, which would be refused before all else."""
    settings = world.settings(**sections)
    rules = settings.model_copy(update={"profile": "production"}).egress_rules()
    object.__setattr__(settings, "egress_rules", lambda: rules._replace(https_only=False))
    return settings


async def test_in_production_loopback_is_blocked_when_connecting(
    world: World, answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    answers("rebound.example", ["127.0.0.1"])
    answers("rebound6.example", ["::ffff:127.0.0.1"])
    for host in ("rebound.example", "rebound6.example"):
        url = f"http://{host}:{world.receiver.port}/"
        await world.endpoint(url=url, retry_schedule_seconds=[])
    with caplog.at_level(logging.INFO):
        async with start_engine(production(world)):
            await world.emit()
            await world.settled()
    assert world.receiver.received == []
    assert world.receiver.connections == 0
    rows = await world.rows("select outcome, error from aetherflow.attempts")
    # Whoever owns the endpoint learns nothing of what his name leads to; the operator does.
    assert [(row["outcome"], row["error"]) for row in rows] == [("blocked", CLOSED_REASON)] * 2
    assert "127.0.0.1 is not a public address" in caplog.text


async def test_what_a_stricter_profile_refuses_is_not_sent_any_more(world: World) -> None:
    for host in ("127.0.0.1", "localhost"):
        url = f"http://{host}:{world.receiver.port}/"
        await world.endpoint(url=url, retry_schedule_seconds=[])
    async with start_engine(production(world)):
        await world.emit()
        await world.settled()
    rows = await world.rows("select outcome, error from aetherflow.attempts")
    assert [(row["outcome"], row["error"]) for row in rows] == [("blocked", CLOSED_REASON)] * 2
    settings = world.settings().model_copy(update={"profile": "production"})
    async with start_engine(settings):
        await world.emit()
        await world.settled()
    errors = await world.rows(
        "select error from aetherflow.attempts order by started_at desc limit 2"
    )
    assert [row["error"] for row in errors] == ["its URL is not allowed any more: scheme"] * 2
    assert world.receiver.connections == 0


async def test_a_06_our_own_postgres_is_not_posted_to(world: World) -> None:
    # The profile lets through all of loopback.
    url = f"http://127.0.0.1:{await world.value('show port')}/"
    await world.endpoint(url=url, retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    rows = await world.rows("select outcome, error from aetherflow.attempts")
    assert [(row["outcome"], row["error"]) for row in rows] == [("blocked", CLOSED_REASON)]


async def test_of_a_name_with_inner_and_outer_addresses_only_the_outer_are_used(
    world: World, answers: Answers, sockets: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    answers("mixed.example", ["10.1.2.3", "127.0.0.1", "169.254.169.254"])
    await world.endpoint(url=f"http://mixed.example:{world.receiver.port}/")
    with caplog.at_level(logging.INFO):
        async with world.engine():
            await world.emit()
            await world.settled()
    assert len(world.receiver.received) == 1
    assert sockets == ["127.0.0.1"]
    assert caplog.text.count("post.mixed") == 1
    assert "169.254.169.254 is not a public address" in caplog.text


async def test_a_mixed_name_whose_outer_address_fails_is_not_called_blocked(
    world: World, answers: Answers, sockets: list[str]
) -> None:
    answers("mixed.example", ["10.1.2.3", "127.0.0.1"])
    await world.endpoint(url="http://mixed.example:9/", retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    row = (await world.rows("select outcome, error from aetherflow.attempts"))[0]
    assert row["outcome"] == "not_reached"
    assert row["error"].startswith("no connection")
    assert sockets == ["127.0.0.1"]


async def test_q_12_of_very_many_addresses_each_of_a_few_is_tried_once(
    world: World, answers: Answers, sockets: list[str]
) -> None:
    answers("many.example", [f"127.0.{n // 250}.{n % 250 + 1}" for n in range(500)])
    await world.endpoint(url="http://many.example:9/", retry_schedule_seconds=[])
    async with world.engine():
        await world.emit()
        await world.settled()
    assert sorted(sockets) == [f"127.0.0.{n}" for n in range(1, names.ADDRESSES_MAX + 1)]


async def test_a_name_that_leads_inside_later_is_blocked_then(
    world: World, answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "FOUND_SECONDS", 0.0)
    answers("rebinding.example", ["127.0.0.1"], ["10.1.2.3"])
    await world.endpoint(
        url=f"http://rebinding.example:{world.receiver.port}/?do=200;connection=close",
        retry_schedule_seconds=[],
    )
    async with world.engine():
        for _ in range(2):
            await world.emit()
            await world.settled()
    assert len(world.receiver.received) == 1
    rows = await world.rows("select outcome, error from aetherflow.attempts order by started_at")
    assert [row["outcome"] for row in rows] == ["answered", "blocked"]
    assert rows[1]["error"] == CLOSED_REASON


async def test_an_allowed_network_is_let_through(world: World) -> None:
    await world.endpoint()
    settings = production(world, egress={"allow": [f"127.0.0.0/8:{world.receiver.port}"]})
    async with start_engine(settings):
        await world.emit()
        await world.settled()
    assert len(world.receiver.received) == 1


@pytest.mark.parametrize(
    ("entry", "opens"),
    [
        ("10.0.0.0/8", True),
        ("0.0.0.0/0:443", True),
        ("[::]/0:443", True),
        ("receiver.internal", True),
        ("93.184.216.0/24", True),  # with the ports that are closed
        ("93.184.216.0/24:443", False),
        ("[2606:4700::]/32:8000-9000", False),
    ],
)
def test_a_05_what_opens_something_is_known(entry: str, opens: bool) -> None:
    assert opens_closed(parse_entry(entry)) is opens


async def test_a_05_a_setting_that_opens_something_is_told_at_the_start(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    settings = production(world, egress={"allow": ["10.0.0.0/8:8080", "93.184.216.0/24:443"]})
    with caplog.at_level(logging.WARNING):
        async with start_engine(settings):
            pass
    assert caplog.text.count("egress.opened") == 1
    assert "10.0.0.0/8:8080" in caplog.text


async def test_b_05_what_this_machine_lacks_is_not_charged_to_the_endpoint(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make, lacking = Connector._socket, 3

    def one_day(self: Connector, address_info: Any) -> socket.socket:
        nonlocal lacking
        if lacking:
            lacking -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        return make(self, address_info)

    monkeypatch.setattr(Connector, "_socket", one_day)
    await world.endpoint(retry_schedule_seconds=[])
    with caplog.at_level(logging.WARNING):
        async with world.engine():
            await world.emit()
            await world.settled()
    (request,) = world.receiver.received
    assert request.headers["x-aetherflow-attempt"] == "1"
    assert await world.value("select count(*) from aetherflow.attempts") == 1
    assert caplog.text.count("post.prevented") == 3
