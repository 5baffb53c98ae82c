"""Attempts as they are recorded, to whoever listens."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest

from aetherflow_hooks.manage.tokens import Scope, revoke_token
from aetherflow_hooks.web import live
from aetherflow_hooks.web.api import attempts
from aetherflow_hooks.web.live import Listener
from tests.conftest import until
from tests.web.conftest import PREFIX, Api, Client


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "ALIVE_SECONDS", 0.2)


class Heard:
    """What a listener has been told."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    async def next(self) -> tuple[str, dict[str, object]]:
        """Give the next event that says something."""
        async with asyncio.timeout(15):
            while True:
                block = (await self._content.readuntil(b"\n\n")).decode()
                if block != ":\n\n":
                    name, data = block.strip().split("\n")
                    return name.removeprefix("event: "), orjson.loads(data.removeprefix("data: "))

    async def ended(self) -> None:
        """Wait until nothing more comes."""
        async with asyncio.timeout(15):
            await self._content.read()


@asynccontextmanager
async def listening(client: Client, **query: str) -> AsyncIterator[Heard]:
    headers = {"Authorization": f"Bearer {client.token}"}
    url = f"{client.base}{PREFIX}/attempts/stream"
    async with client._session.get(url, headers=headers, params=query) as answer:
        assert answer.status == 200, await answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.content.readuntil(b"\n\n") == b":\n\n"
        yield Heard(answer.content)


async def test_attempts_are_told_once_each_to_those_whom_they_concern(api: Api) -> None:
    ours = await api.world.endpoint("/ours", "500,200", tenant="ours", retry_schedule_seconds=[0])
    await api.world.endpoint("/theirs", tenant="theirs")
    await api.world.emit(tenant="ours")  # before anybody listens
    await api.world.settled()
    admin, tenant = await api.client(), await api.client(Scope.READ, "ours")
    async with listening(admin) as all_, listening(tenant) as own:
        ids = [await api.world.emit(tenant=it) for it in ("theirs", "ours")]
        heard = [await all_.next() for _ in range(2)]
        assert {name for name, _ in heard} == {"attempt"}
        assert {it["event_id"] for _, it in heard} == set(ids)
        name, only = await own.next()
        assert (name, only["event_id"], only["status"]) == ("attempt", ids[1], 200)
        async with listening(admin, endpoint_id=ours["id"]) as of_one:
            last = await api.world.emit(tenant="ours")
            for listener in (all_, own, of_one):
                assert (await listener.next())[1]["event_id"] == last
    query = {"tenant": "theirs"}
    (await tenant("GET", "/attempts/stream", params=query)).problem(404)


async def test_what_took_long_is_told_among_many_that_did_not(api: Api) -> None:
    """They are told as they end, and listed by when they began."""
    added = await api.world.endpoint()
    recorded = (
        "insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, started_at,"
        " duration_ms, outcome, verdict)"
        " select aetherflow.shard_of($1), $1, 'evt_' || lpad(to_hex($2 + n), 24, '0'), 1,"
        " now() - make_interval(secs => $4 / 1000.0), $4, 'timed_out', 'retry'"
        " from generate_series(1, $3) as n"
    )
    async with listening(await api.client(), limit="20") as heard:
        await api.world.connection.execute(recorded, added["id"], 0, 100, 10)
        while (await heard.next())[0] == "missed":
            pass
        await api.world.connection.execute(recorded, added["id"], 1_000, 1, 8_000)
        while (await heard.next())[1].get("duration_ms") != 8_000:  # or none comes in time
            pass


async def test_many_who_come_and_go_at_once_leave_nothing_behind(api: Api) -> None:

    async def come_and_go(client: Client) -> None:
        async with listening(client):
            pass

    for _ in range(3):
        client = await api.client(Scope.READ)
        await asyncio.gather(*(come_and_go(client) for _ in range(8)))

    async def looking() -> bool:
        return any(it.get_name() == "aetherflow_hooks live" for it in asyncio.all_tasks())

    async def nobody() -> bool:
        return not await looking()

    await until(nobody, "nobody looks any more")


async def test_whose_token_is_revoked_hears_nothing_more(api: Api) -> None:
    client = await api.client(Scope.READ)
    async with listening(client) as heard:
        await revoke_token(api.world.database, str(client.token).split("_")[1])
        await heard.ended()


async def test_nobody_listens_too_often(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "LISTENERS_OF_ONE_MAX", 1)
    client, other = await api.client(Scope.READ), await api.client(Scope.READ)
    async with listening(client):
        (await client("GET", "/attempts/stream")).problem(503, "too many are listening")
        async with listening(other):
            pass


async def test_a_stop_sends_listeners_home(api: Api) -> None:
    client = await api.client(Scope.READ)
    async with listening(client) as heard:
        began = asyncio.get_running_loop().time()
        await api.engine.stop()
        await heard.ended()
        assert asyncio.get_running_loop().time() - began < live.LOOK_SECONDS + 1


async def test_who_reads_slowly_is_told_what_was_missed() -> None:
    listener = Listener("x", None, None, live.WAITING_MAX)
    for n in range(live.WAITING_MAX + 3):
        listener.offer({"tenant": "", "endpoint_id": "", "n": n})
    taken, missed = await listener.take(0)
    assert (len(taken), missed, taken[0]["n"]) == (live.WAITING_MAX, 3, 3)
    assert await listener.take(0) == ([], 0)
