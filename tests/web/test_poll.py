"""Polling: consumers that nobody can post to ask for what waits for them."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import aiohttp
import orjson
import pytest

from aetherflow_hooks import start_engine
from aetherflow_hooks.manage import polls
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.manage.tokens import Scope, revoke_token
from aetherflow_hooks.receive.signatures import verify, verify_body
from aetherflow_hooks.web import waiting
from aetherflow_hooks.web.api import poll
from tests.conftest import World, until
from tests.faults.test_engines import engine_process
from tests.web.conftest import Api, Client, free_port

DELIVERED = "select count(*) = $1 from aetherflow.attempts where verdict = 'delivered'"
MADE = "select count(*) = $1 from aetherflow.deliveries"


class Consumer:
    """Somebody who polls for one endpoint."""

    def __init__(self, client: Client, endpoint: dict[str, Any]) -> None:
        self.client = client
        self.id = endpoint["id"]
        self.secret = endpoint["secret"]

    async def poll(self, **query: Any) -> Any:
        return await self.client.get("/poll", endpoint_id=self.id, **query)

    async def all(self, **query: Any) -> list[str]:
        """Take all that there is; give the ids of the events."""
        found: list[str] = []
        while True:
            answer = await self.poll(**query)
            found += [it["event_id"] for it in answer["items"]]
            if not answer["items"]:
                return found
            query["cursor"] = answer["cursor"]


async def consumer(api: Api, **new: Any) -> Consumer:
    client = await api.client(Scope.WRITE, new.get("tenant"))
    added = (await client("POST", "/endpoints", {"polled": True, **new})).given(201)
    return Consumer(client, added)


async def emitted(world: World, count: int = 1, **options: Any) -> list[str]:
    """Emit, and wait until it is fanned out."""
    before = await world.value("select count(*) from aetherflow.deliveries")
    ids = [await world.emit(**options) for _ in range(count)]
    await world.until(MADE, before + count)
    return ids


async def end_leases(world: World) -> None:
    """Let the time of every lease come: the seconds for which it was taken pass."""
    await world.connection.execute(
        "update aetherflow.deliveries set leased_until = leased_until - interval '1 hour'"
        " where leased_until > now()"
    )


async def test_what_is_emitted_is_given_verified_and_acknowledged(api: Api) -> None:
    world = api.world
    ours = await consumer(api, events=["user.*"], filter="$.n > 0", tenant="acme")
    shown = await ours.client.get(f"/endpoints/{ours.id}")
    assert (shown["url"], shown["polled"], shown["state"]) == ("", True, "active")
    for event_type, data in (("user.joined", '{"n": 0}'), ("billing.updated", '{"n": 1}')):
        await world.emit(event_type, data, tenant="acme")
    data = '{"n": 12345678901234567890123,  "e": "\\u00e9 é"}'
    (event_id,) = await emitted(world, event_type="user.joined", data=data, tenant="acme")
    answer = await ours.poll()
    (item,) = answer["items"]
    body, headers = item["body"].encode(), item["headers"]
    assert body.endswith(f'"data":{data}}}'.encode())
    assert verify(body, headers, ours.secret) == event_id == item["event_id"]
    verify_body(body, headers["X-AetherFlow-Signature"], ours.secret)
    assert headers["X-AetherFlow-Event"] == item["type"] == "user.joined"
    assert headers["X-AetherFlow-Delivery"] == item["id"]
    assert headers["X-AetherFlow-Attempt"] == str(item["attempt"]) == "1"
    assert not answer["is_more"]
    path = f"/deliveries/{item['id']}"
    assert (await ours.client.get(path))["state"] == "leased"
    (await ours.client("POST", f"{path}/cancel")).problem(404, "waiting delivery")

    assert await ours.poll(cursor=answer["cursor"]) == {
        "items": [],
        "cursor": None,
        "is_more": False,
    }
    found = await ours.client.get(path)
    assert (found["state"], found["attempts"], found["last_status"]) == ("delivered", 1, 200)
    (attempt,) = found["history"]
    assert (attempt["outcome"], attempt["verdict"]) == ("answered", "delivered")
    assert await world.value("select count(*) from aetherflow.deliveries") == 0
    for subject in (ours.id, "tenant:acme", "all"):
        await world.until(
            "select sum(attempts) = 1 and sum(delivered) = 1 from aetherflow.tallies"
            " where subject = $1 and span = 60",
            subject,
        )
    assert await ours.poll(cursor=answer["cursor"])  # once more does no harm
    assert await ours.poll(cursor="")
    assert await world.value("select count(*) from aetherflow.attempts") == 1
    (status,) = (await ours.client.get("/status"))["items"]
    assert (status["success_rate"], status["waiting"]) == (1.0, 0)


async def test_the_headers_are_those_of_a_post(api: Api) -> None:
    world = api.world
    posted = await world.endpoint("/a")
    ours = await consumer(api, secret=posted["secret"])
    await world.emit()
    (request,) = await world.receiver.wait_for(1)
    await world.until(MADE, 1)
    (item,) = (await ours.poll())["items"]
    assert item["body"].encode() == request.body
    of_the_connection = {"host", "content-length", "accept-encoding", "connection"}
    sent = {name.lower() for name in request.headers} - of_the_connection
    assert {name.lower() for name in item["headers"]} == sent
    same = ("Content-Type", "User-Agent", "X-AetherFlow-Signature", "webhook-id")
    for name in same:
        assert item["headers"][name] == request.headers[name.lower()]


async def test_what_is_not_acknowledged_is_given_again(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    ids = await emitted(world, 3)
    first = await ours.poll(lease_seconds=10)
    assert [it["event_id"] for it in first["items"]] == ids
    assert (await ours.poll())["items"] == []
    await end_leases(world)
    second = await ours.poll(limit=2)
    assert [(it["event_id"], it["attempt"]) for it in second["items"]] == [
        (it, 2) for it in ids[:2]
    ]
    failed = await world.rows("select * from aetherflow.attempts order by event_id")
    assert [it["event_id"] for it in failed] == ids[:2]
    told = {(it["outcome"], it["verdict"], it["error"], it["attempt"]) for it in failed}
    assert told == {("timed_out", "retry", "not acknowledged within 10 s", 1)}
    assert {it["duration_ms"] for it in failed} == {10_000}
    # The first answer's lease has ended: what was given again is not its own any more.
    query = {"endpoint_id": ours.id, "cursor": first["cursor"]}
    (await ours.client("GET", "/poll", params=query)).problem(409, "2 of 3 deliveries were given")
    (await ours.client("GET", "/poll", params=query)).problem(409, "2 of 3")
    assert await world.value(DELIVERED, 1)
    assert (await ours.poll(cursor=second["cursor"]))["items"] == []
    assert await world.value(DELIVERED, 3)
    await world.until(
        "select sum(attempts) = 5 and sum(delivered) = 3 and sum(timed_out) = 2"
        " from aetherflow.tallies where subject = $1 and span = 60",
        ours.id,
    )


async def test_it_is_given_again_and_again_and_never_given_up(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    await emitted(world)
    await world.connection.execute("update aetherflow.deliveries set attempt = 32767")
    for _ in range(2):
        (item,) = (await ours.poll())["items"]
        assert item["attempt"] == 32_767
        await end_leases(world)
    assert await world.value("select count(*) from aetherflow.dead") == 0


async def test_a_lease_that_nobody_else_has_taken_is_acknowledged_late(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    await emitted(world)
    cursor = (await ours.poll())["cursor"]
    await world.connection.execute(
        "update aetherflow.deliveries set leased_until = now() - interval '3 days'"
    )
    assert (await ours.poll(cursor=cursor))["items"] == []
    assert await world.value(DELIVERED, 1)


async def test_what_commits_late_is_not_missed(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    transaction = world.connection.transaction()
    await transaction.start()
    late = await world.emit()
    early = await emitted_elsewhere(world)
    first = await ours.poll()
    assert [it["event_id"] for it in first["items"]] == [early]
    assert early > late
    await transaction.commit()
    await world.until(MADE, 2)
    second = await ours.poll(cursor=first["cursor"])
    assert [it["event_id"] for it in second["items"]] == [late]
    assert (await ours.poll(cursor=second["cursor"]))["items"] == []


async def emitted_elsewhere(world: World) -> str:
    """Emit on another connection, and wait until it is fanned out."""
    event_id: str = await emit_event(world.database, "a.b", "{}")

    async def is_made() -> bool:
        (row,) = await world.database.rows("what_waits", 10)
        return bool(row["deliveries"] == 1)

    await until(is_made)
    return event_id


async def test_consumers_never_share(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    await world.value("select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 200)")
    await world.until(MADE, 200)
    found = await asyncio.gather(*(ours.all(limit=7) for _ in range(4)))
    ids = [it for part in found for it in part]
    assert len(ids) == len(set(ids)) == 200
    assert await world.value(DELIVERED, 200)
    assert sum(bool(part) for part in found) > 1


async def test_pages_go_by_the_limit_oldest_first(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    ids = await emitted(world, 5)
    first = await ours.poll(limit=2)
    second = await ours.poll(limit=2)
    assert first["is_more"]
    assert second["is_more"]
    third = await ours.poll(limit=2)
    assert not third["is_more"]
    given = [[it["event_id"] for it in page["items"]] for page in (first, second, third)]
    assert given == [ids[:2], ids[2:4], ids[4:]]
    await ours.poll(cursor=second["cursor"])
    left = await world.rows("select event_id from aetherflow.deliveries order by event_id")
    assert [row["event_id"] for row in left] == [*ids[:2], ids[4]]


async def test_an_answer_is_bounded_in_bytes(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    data = orjson.dumps({"x": "y" * 700_000}).decode()
    ids = await emitted(world, 9, data=data)
    first = await ours.poll()
    assert [it["event_id"] for it in first["items"]] == ids[:5]
    assert first["is_more"]
    assert await world.value("select count(*) from aetherflow.deliveries where attempt = 1") == 5
    assert await ours.all(cursor=first["cursor"]) == ids[5:]


async def test_one_event_that_is_larger_is_given_alone(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "BYTES_MAX", 10)
    world, ours = api.world, await consumer(api)
    ids = await emitted(world, 2, data='{"name": "longer than that"}')
    first = await ours.poll()
    assert [it["event_id"] for it in first["items"]] == ids[:1]
    assert await ours.all(cursor=first["cursor"]) == ids[1:]


async def test_what_has_expired_is_not_given(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    later = await world.value("select now() + interval '1 hour'")
    expired = await emitted(world, 2, expires_at=later)
    await world.connection.execute("update aetherflow.deliveries set expires_at = now()")
    fresh = await emitted(world)
    # Not even where a whole look finds nothing else.
    assert [it["event_id"] for it in (await ours.poll(limit=2))["items"]] == fresh
    dead = await world.rows("select event_id, reason from aetherflow.dead order by event_id")
    assert [tuple(row) for row in dead] == [(it, "expired") for it in expired]


async def test_very_much_that_has_expired_is_not_gone_through_at_once(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poll, "LOOKS_MAX", 2)
    world, ours = api.world, await consumer(api)
    later = await world.value("select now() + interval '1 hour'")
    await emitted(world, 5, expires_at=later)
    await world.connection.execute("update aetherflow.deliveries set expires_at = now()")
    for left in (3, 1):
        answer = await ours.poll(limit=1, wait_seconds=20)
        assert (answer["items"], answer["is_more"]) == ([], True)
        assert await world.value(MADE, left)
    assert await ours.poll(limit=1) == {"items": [], "cursor": None, "is_more": False}


async def test_no_engine_posts_to_it_or_is_told_of_its_work(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = api.world
    strangers: set[str] = set()
    monkeypatch.setattr(api.engine._search, "stranger", strangers.add)
    posted, ours = await world.endpoint("/a"), await consumer(api)
    for _ in range(3):
        await world.emit()
    await world.until(MADE, 3)
    await world.receiver.wait_for(3)
    await asyncio.sleep(0.5)  # some looks for work that nobody told of
    rows = await world.rows("select attempt, leased_until::text from aetherflow.deliveries")
    assert {tuple(row) for row in rows} == {(0, "-infinity")}
    assert api.engine._pace.known(ours.id) is None
    assert strangers <= {posted["id"]}
    assert api.engine._pace.known(posted["id"]) is not None
    assert await world.value(DELIVERED, 3)


async def test_pause_disable_and_delete(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    path = f"/endpoints/{ours.id}"
    ids = await emitted(world, 2)
    given = await ours.poll(limit=1)
    (await ours.client("PUT", f"{path}/state", {"state": "paused"})).given()
    assert await ours.poll(cursor=given["cursor"]) == {
        "items": [],
        "cursor": None,
        "is_more": False,
    }
    assert await world.value(DELIVERED, 1)
    (await ours.client("PUT", f"{path}/state", {"state": "disabled"})).given()
    query = {"endpoint_id": ours.id}
    (await ours.client("GET", "/poll", params=query)).problem(409, "disabled")
    (await ours.client("PUT", f"{path}/state", {"state": "active"})).given()
    assert await ours.all() == ids[1:]
    (await ours.client("DELETE", path)).given(204)
    (await ours.client("GET", "/poll", params=query)).problem(404, ours.id)


async def test_a_poll_waits_and_is_answered_at_once_when_something_comes(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    await emitted(world)
    await ours.all()
    for _ in range(3):
        polling = asyncio.create_task(ours.poll(wait_seconds=20))
        await until(lambda: _waiting(api, 1))
        began = time.monotonic()
        event_id = await world.emit()
        answer = await polling
        assert time.monotonic() - began < waiting.LOOK_SECONDS / 2
        assert [it["event_id"] for it in answer["items"]] == [event_id]
        await ours.poll(cursor=answer["cursor"])


async def _waiting(api: Api, count: int) -> bool:
    return sum(map(len, api.engine._web._waiting._places.values())) == count


async def test_a_poll_sees_what_another_engine_has_made(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.1)
    world, ours = api.world, await consumer(api)
    engines = "select count(distinct owner) = 2 from aetherflow.shards where leased_until > now()"
    async with world.engine(engine={"renew_seconds": 0.2}):
        await world.until(engines)
        cursor = ""
        for _ in range(8):  # some of them are fanned out by the one, and some by the other
            polling = asyncio.create_task(ours.poll(wait_seconds=20, cursor=cursor))
            await until(lambda: _waiting(api, 1))
            event_id = await world.emit()
            answer = await polling
            assert [it["event_id"] for it in answer["items"]] == [event_id]
            cursor = answer["cursor"]


async def test_a_poll_waits_no_longer_than_was_asked_for_and_sees_leases_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 0.1)
    world, ours = api.world, await consumer(api)
    began = time.monotonic()
    assert (await ours.poll(wait_seconds=1))["items"] == []
    assert 1 <= time.monotonic() - began < 3
    await emitted(world)
    (item,) = (await ours.poll())["items"]
    polling = asyncio.create_task(ours.poll(wait_seconds=20))
    await until(lambda: _waiting(api, 1))
    await end_leases(world)
    (again,) = (await polling)["items"]
    assert (again["id"], again["attempt"]) == (item["id"], 2)
    await until(lambda: _waiting(api, 0))


async def test_who_waits_holds_no_connection_to_postgres(api: Api) -> None:
    ours = await consumer(api)
    polling = [asyncio.create_task(ours.poll(wait_seconds=30)) for _ in range(20)]
    await until(lambda: _waiting(api, 20))
    began = time.monotonic()
    for _ in range(5):
        await ours.client.get("/endpoints")
    assert time.monotonic() - began < 2
    (await ours.client("DELETE", f"/endpoints/{ours.id}")).given(204)
    await api.engine.stop()
    assert all(not answer["items"] for answer in await asyncio.gather(*polling))


async def test_one_of_many_who_wait_is_called_and_tells_the_next_when_it_goes(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    give = polls.give

    async def counted(*given: Any, **named: Any) -> Any:
        nonlocal asked
        asked += 1
        return await give(*given, **named)

    monkeypatch.setattr(polls, "give", counted)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 60.0)
    world, ours = api.world, await consumer(api)
    polling = {asyncio.create_task(ours.poll(wait_seconds=20, limit=2)) for _ in range(20)}
    await until(lambda: _waiting(api, 20))
    asked = 0
    for count in (1, 1, 6):
        await emitted(world, count)
        given = 0
        while given < count:
            done, polling = await asyncio.wait(polling, return_when=asyncio.FIRST_COMPLETED)
            given += sum(len(task.result()["items"]) for task in done)
    assert asked <= 20  # and not 20 for each
    assert len(polling) >= 12
    await api.engine.stop()
    assert all(not answer["items"] for answer in await asyncio.gather(*polling))


async def test_what_very_many_get_is_given_at_once_too(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetherflow_hooks.flow.fanout.FIRST_ENDPOINTS", 1)
    monkeypatch.setattr(waiting, "LOOK_SECONDS", 60.0)
    ours = [await consumer(api) for _ in range(4)]
    polling = [asyncio.create_task(it.poll(wait_seconds=20)) for it in ours]
    await until(lambda: _waiting(api, 4))
    event_id = await api.world.emit()
    for answer in await asyncio.gather(*polling):
        assert [it["event_id"] for it in answer["items"]] == [event_id]


async def test_whose_token_is_revoked_while_they_wait_is_given_nothing(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    polling = asyncio.create_task(ours.poll(wait_seconds=20))
    await until(lambda: _waiting(api, 1))
    await revoke_token(world.database, str(ours.client.token).split("_")[1])
    await emitted(world)
    assert (await polling)["items"] == []
    assert await world.value("select attempt from aetherflow.deliveries") == 0


async def test_who_has_gone_is_given_nothing(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    async with aiohttp.ClientSession() as session:
        gone = Client(session, api.base, ours.client.token)
        polling = asyncio.create_task(gone.get("/poll", endpoint_id=ours.id, wait_seconds=20))
        await until(lambda: _waiting(api, 1))
        polling.cancel()
        await asyncio.gather(polling, return_exceptions=True)
    await asyncio.sleep(0.05)
    (event_id,) = await emitted(world)
    await until(lambda: _waiting(api, 0))
    (item,) = (await ours.poll())["items"]
    assert (item["event_id"], item["attempt"]) == (event_id, 1)


async def test_only_so_many_wait_and_a_stop_sends_them_home(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "WAITING_OF_ONE_MAX", 2)
    ours = await consumer(api)
    polling = [asyncio.create_task(ours.poll(wait_seconds=20)) for _ in range(2)]
    await until(lambda: _waiting(api, 2))
    query = {"endpoint_id": ours.id, "wait_seconds": "20"}
    answer = await ours.client("GET", "/poll", params=query)
    answer.problem(429, "too many wait")
    assert answer.headers["Retry-After"] == "1"
    assert (await ours.poll())["items"] == []  # who does not wait is answered
    began = time.monotonic()
    await api.engine.stop()
    for answer in await asyncio.gather(*polling):
        assert answer["items"] == []
    assert time.monotonic() - began < 5


async def listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_kill_between_giving_and_acknowledging_loses_nothing(world: World) -> None:
    port, other_port = free_port(), free_port()
    async with aiohttp.ClientSession() as session:
        with engine_process(world.dsn, WEB__PORT=str(port)) as process:
            await until(lambda: listens(port))
            ours = await consumer(Api(world, session, port))
            ids = await emitted(world, 4)
            first = await ours.poll(limit=2)
            await ours.poll(limit=1)
            process.kill()
            process.wait()
        async with world.engine(web={"port": other_port}):
            api = Api(world, session, other_port)
            ours = Consumer(api.with_token(ours.client.token), {"id": ours.id, "secret": ""})
            second = await ours.poll(cursor=first["cursor"])
            assert [it["event_id"] for it in second["items"]] == ids[3:]
            assert await world.value(DELIVERED, 2)
            await end_leases(world)
            assert await ours.all(cursor=second["cursor"]) == ids[2:3]
            assert await world.value(DELIVERED, 4)


async def test_what_was_delivered_is_sent_again_and_replayed(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    (event_id,) = await emitted(world)
    given = await ours.poll()
    await ours.poll(cursor=given["cursor"])
    name = given["items"][0]["id"]
    (await ours.client("POST", f"/deliveries/{name}/retry")).given(204)
    assert await ours.all() == [event_id]
    (await ours.client("POST", "/replays", {"endpoint_id": ours.id})).given(201)
    answer = await ours.poll(wait_seconds=10)
    assert [it["event_id"] for it in answer["items"]] == [event_id]
    await ours.poll(cursor=answer["cursor"])
    history = (await ours.client.get(f"/deliveries/{name}"))["history"]
    assert [(it["trigger"], it["verdict"]) for it in history] == [
        (None, "delivered"),
        ("manual", "delivered"),
        ("replay", "delivered"),
    ]


async def test_too_much_that_is_not_acknowledged_is_the_end(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "AHEAD_MAX", 3)
    world, ours = api.world, await consumer(api)
    await emitted(world, 5)
    first = await ours.poll(limit=3)
    assert (await ours.poll())["items"] == []
    assert len((await ours.poll(cursor=first["cursor"]))["items"]) == 2


async def test_of_very_many_that_are_due_at_one_moment_each_is_acknowledged(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polls, "AHEAD_MAX", 100_000)
    world, ours = api.world, await consumer(api)
    await world.connection.execute(  # given to others
        "insert into aetherflow.deliveries"
        " (shard, event_shard, endpoint_id, event_id, due_at, leased_until, lease_token, attempt)"
        " select aetherflow.shard_of($1), 0, $1, 'evt_' || lpad(to_hex(n), 24, '0'),"
        "        '2026-01-01Z', now() + interval '1 hour', 1, 1"
        " from generate_series(1, 25000) as n",
        ours.id,
    )
    (event_id,) = await emitted(world)
    await world.connection.execute(
        "update aetherflow.deliveries set due_at = '2026-01-01Z' where event_id = $1", event_id
    )
    given = await ours.poll()
    assert [it["event_id"] for it in given["items"]] == [event_id]
    await ours.poll(cursor=given["cursor"])
    assert await world.value(DELIVERED, 1)


async def test_a_clock_that_was_set_back_acknowledges_all_the_same(api: Api) -> None:
    world, ours = api.world, await consumer(api)
    for ahead in (timedelta(seconds=1), timedelta(hours=1), timedelta(days=400)):
        await emitted(world)
        given = await ours.poll()
        cursor = polls.read_cursor(given["cursor"], ours.id)
        later = cursor._replace(given_at=cursor.given_at + ahead)
        await ours.poll(cursor=later.written())
    rows = await world.rows(
        "select duration_ms, started_at <= now() as began from aetherflow.attempts"
        " where verdict = 'delivered'"
    )
    assert [tuple(row) for row in rows] == [(0, True)] * 3


async def test_a_rotated_secret_and_a_pair_of_keys_sign(api: Api) -> None:
    world, ours = api.world, await consumer(api, ed25519=True)
    shown = await ours.client.get(f"/endpoints/{ours.id}")
    await emitted(world)
    (item,) = (await ours.poll())["items"]
    assert verify(item["body"].encode(), item["headers"], shown["public_keys"][0])
    path = f"/endpoints/{ours.id}/rotate-secret"
    rotated = (await ours.client("POST", path, {"ed25519": False})).given()
    await emitted(world)
    (item,) = (await ours.poll())["items"]
    for key in (rotated["secret"], shown["public_keys"][0]):
        assert verify(item["body"].encode(), item["headers"], key)


async def test_what_cannot_be_used_is_refused_with_the_reason(api: Api) -> None:
    world, ours, others = api.world, await consumer(api), await consumer(api)
    await world.emit()
    await world.until(MADE, 2)
    cursor = (await others.poll())["cursor"]
    posted = await world.endpoint("/a")

    async def refused(status: int, told: str, **query: Any) -> None:
        query = {"endpoint_id": ours.id, **query}
        (await ours.client("GET", "/poll", params=query)).problem(status, told)

    await refused(422, "of another endpoint", cursor=cursor)
    for wrong in ("x", cursor[:-1], cursor + "x", "cur_" + "_" * 54, "cur_" + "A" * 54):
        await refused(422, "cursor", cursor=wrong)
    now = await world.value("select now()")
    forged = polls.Cursor(ours.id, 7, now, now, now, 1).written()
    await refused(409, "1 of 1", cursor=forged)
    await refused(422, "is not polled", endpoint_id=posted["id"])
    await refused(422, "query.endpoint_id", endpoint_id="x")
    await refused(422, "query.limit", limit="0")
    await refused(422, "query.lease_seconds", lease_seconds="9")
    await refused(422, "query.wait_seconds", wait_seconds="31")
    (await ours.client("GET", "/poll")).problem(422, "query.endpoint_id")
    reader = await api.client(Scope.READ)
    answer = await reader("GET", "/poll", params={"endpoint_id": ours.id})
    answer.problem(403, "write is needed")


WRONG: dict[str, Any] = {
    "url": "https://example.com/",
    "headers": {"X-A": "b"},
    "rate_per_second": 1,
    "burst": 2,
    "max_in_flight": 1,
    "timeout_seconds": 1,
    "retry_schedule_seconds": [1],
    "ordering": "skip",
    "payload_version": "2024-06-01",
}


async def test_what_makes_no_sense_for_it_is_refused(api: Api) -> None:
    ours = await consumer(api, description="ours")
    path = f"/endpoints/{ours.id}"
    for name, value in WRONG.items():
        body = {"polled": True, name: value}
        told = "an endpoint that is polled has no"
        (await ours.client("POST", "/endpoints", body)).problem(422, told)
        (await ours.client("PATCH", path, {name: value})).problem(422, told)
    (await ours.client("PATCH", path, {"polled": False})).problem(422, "body.polled")
    (await ours.client("POST", f"{path}/test", {})).problem(422, "is polled")
    assert (await ours.client("PATCH", path, {"description": "x"})).given()["description"] == "x"
    (await ours.client("POST", "/endpoints", {})).problem(422, "has a URL")


async def test_a_database_that_was_restored_gives_nothing(world: World) -> None:
    port = free_port()
    settings = world.settings(web={"port": port})
    async with aiohttp.ClientSession() as session, start_engine(settings, restored=True):
        ours = await consumer(Api(world, session, port))
        query = {"endpoint_id": ours.id}
        (await ours.client("GET", "/poll", params=query)).problem(503, "restored")
