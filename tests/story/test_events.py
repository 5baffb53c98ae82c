"""Looking at events and deliveries: nothing is missing, nothing is there twice, nothing is slow."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage import events
from aetherflow_hooks.manage.deliveries import cancel_delivery, retry_delivery, show_delivery
from aetherflow_hooks.manage.endpoints import delete_endpoint, set_endpoint_state
from aetherflow_hooks.manage.events import (
    cancel_event,
    expunge_event,
    list_events,
    show_event,
)
from aetherflow_hooks.manage.replays import NewReplay, count_replay, start_replay
from aetherflow_hooks.model import EndpointState, delivery_id
from tests.conftest import World


async def through(world: World, **filters: Any) -> list[list[str]]:
    """Turn all the pages; give their ids."""
    pages: list[list[str]] = []
    before = None
    while True:
        page = await list_events(world.database, before=before, **filters)
        pages.append([row["id"] for row in page.rows])
        before = page.before
        if before is None:
            return pages


def joined(pages: list[list[str]]) -> list[str]:
    return [event_id for page in pages for event_id in page]


async def emitted(world: World, count: int, event_type: str = "a.b") -> list[str]:
    """Emit in one go; give the ids, the newest first."""
    rows = await world.rows(
        "select aetherflow.emit($1, '{}') as id from generate_series(1, $2)", event_type, count
    )
    return sorted((row["id"] for row in rows), reverse=True)


async def test_case_73_pages_lose_and_double_nothing_while_new_ones_come(world: World) -> None:
    old = [event_id for _ in range(10) for event_id in await emitted(world, 100)]
    told: list[str] = []
    before = None
    while True:
        page = await list_events(world.database, before=before, rows_max=30)
        told += [row["id"] for row in page.rows]
        before = page.before
        if before is None:
            break
        await world.emit()
    assert told == sorted(old, reverse=True)


async def test_what_is_rare_is_found_without_a_look_at_all_at_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOKED_MAX", 10)
    rare = []
    for _ in range(5):
        await emitted(world, 100)
        rare += await emitted(world, 1, "user.joined")
    for pattern in ("user.joined", "user.*"):
        pages = await through(world, pattern=pattern)
        assert joined(pages) == sorted(rare, reverse=True)
        assert len(pages) > 2
    assert joined(await through(world, pattern="user")) == []
    assert len(joined(await through(world, pattern="*", rows_max=7))) == 505


async def test_a_tenants_events_are_listed_alone(world: World) -> None:
    own = await world.emit(tenant="acme")
    other = await world.emit()
    assert joined(await through(world, tenant="acme")) == [own]
    assert joined(await through(world, tenant="")) == [other]
    assert joined(await through(world)) == [other, own]


async def test_a_time_chooses_to_the_microsecond(world: World) -> None:
    first, second, third = [await world.emit() for _ in range(3)]
    at = await world.value("select emitted_at from aetherflow.events where id = $1", second)
    a_little = timedelta(microseconds=1)
    assert joined(await through(world, since=at)) == [third, second]
    assert joined(await through(world, since=at + a_little)) == [third]
    assert joined(await through(world, until=at)) == [first]
    assert joined(await through(world, since=at, until=at + a_little)) == [second]
    assert joined(await through(world, until=datetime(2000, 1, 1, tzinfo=UTC))) == []


@pytest.mark.parametrize(
    ("asked", "wrong"),
    [
        ({"before": "evt_x"}, NotFound),
        ({"pattern": "us*"}, InputRefused),
        ({"rows_max": 0}, InputRefused),
        ({"rows_max": 1001}, InputRefused),
    ],
)
async def test_what_cannot_be_listed_is_refused(
    world: World, asked: dict[str, Any], wrong: type[Exception]
) -> None:
    with pytest.raises(wrong):
        await list_events(world.database, **asked)


async def test_an_event_tells_what_became_of_it_everywhere(world: World) -> None:
    good = await world.endpoint("/good")
    slow = await world.endpoint("/slow", "500", retry_schedule_seconds=[3600])
    bad = await world.endpoint("/bad", "404 NOT@HERE", retry_schedule_seconds=[])
    halted = await world.endpoint("/halted", "500", retry_schedule_seconds=[], ordering="block")
    await world.endpoint("/else", events=["c.d"])
    await world.endpoint("/acme", tenant="acme")
    event_id = await world.emit(data='{"n": 1.0}')
    assert not (await show_event(world.database, event_id))["is_fanned_out"]
    async with world.engine():
        await world.receiver.wait_for(4)
        await world.until("select count(*) = 4 from aetherflow.attempts")
    shown = await show_event(world.database, event_id)
    assert (shown["type"], shown["data"], shown["is_fanned_out"]) == ("a.b", '{"n": 1.0}', True)
    told = {row["endpoint_id"]: row for row in shown["deliveries"]}
    assert {it: row["state"] for it, row in told.items()} == {
        good["id"]: "delivered",
        slow["id"]: "pending",
        bad["id"]: "dead",
        halted["id"]: "halted",
    }
    assert {row["attempts"] for row in told.values()} == {1}
    assert told[slow["id"]]["due_at"] > datetime.now(UTC)
    assert (told[good["id"]]["last_status"], told[slow["id"]]["last_status"]) == (200, 500)
    assert told[bad["id"]]["reason"] == "exhausted"
    for row in told.values():
        one = await show_delivery(world.database, row["id"])
        assert {name: one[name] for name in row} == row
        (attempt,) = one["history"]
        assert attempt["status"] == row["last_status"]


async def test_deliveries_of_very_many_are_told_in_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LOOKED_MAX", 3)
    wanting = [(await world.endpoint(f"/{n}"))["id"] for n in range(7)]
    for n in range(4):
        await world.endpoint(f"/else/{n}", events=["c.d"])
    event_id = await world.emit()
    async with world.engine():
        await world.settled()
    await delete_endpoint(world.database, wanting[0])
    told: list[str] = []
    after, rounds = None, 0
    while True:
        shown = await show_event(world.database, event_id, after=after)
        told += [row["endpoint_id"] for row in shown["deliveries"]]
        after, rounds = shown["after"], rounds + 1
        if after is None:
            break
    assert told == sorted(wanting)
    assert rounds > 2


async def test_a_delivery_tells_each_attempt_with_the_answer(world: World) -> None:
    endpoint = await world.endpoint("/a", "500,503,200", retry_schedule_seconds=[0.1, 0.1])
    event_id = await world.emit(data='{"n": 1}')
    async with world.engine():
        await world.settled()
    delivery_id = f"dlv_{event_id[4:]}_{endpoint['id'][3:]}"
    shown = await show_delivery(world.database, delivery_id)
    assert (shown["state"], shown["attempts"], shown["data"]) == ("delivered", 3, '{"n": 1}')
    assert shown["url"] == endpoint["url"]
    assert [it["attempt"] for it in shown["history"]] == [1, 2, 3]
    assert [it["status"] for it in shown["history"]] == [500, 503, 200]
    assert [it["verdict"] for it in shown["history"]] == ["retry", "retry", "delivered"]
    assert isinstance(shown["history"][0]["response"], bytes)
    await delete_endpoint(world.database, endpoint["id"])
    assert (await show_delivery(world.database, delivery_id))["url"] is None


async def test_a_delivery_whose_event_is_gone_is_shown_without_it(world: World) -> None:
    endpoint = await world.endpoint("/a", "500", retry_schedule_seconds=[3600])
    event_id = await world.emit()
    async with world.engine():
        await world.until("select attempt = 1 and leased_until < now() from aetherflow.deliveries")
    delivery_id = f"dlv_{event_id[4:]}_{endpoint['id'][3:]}"
    await cancel_delivery(world.database, delivery_id)
    await world.value("delete from aetherflow.events")
    shown = await show_delivery(world.database, delivery_id)
    assert (shown["state"], shown["reason"], shown["data"]) == ("dead", "cancelled", None)
    with pytest.raises(NotFound):
        await show_event(world.database, event_id)


@pytest.mark.parametrize("text", ["", "evt_x", f"evt_{0:024x}", "evt_" + "g" * 24, "dlv_1_2"])
async def test_there_has_to_be_something_to_show(world: World, text: str) -> None:
    with pytest.raises(NotFound):
        await show_event(world.database, text)
    with pytest.raises(NotFound):
        await show_delivery(world.database, text.replace("evt", "dlv") + "_000000000000")


async def test_case_75_the_content_of_an_event_goes_and_what_happened_stays(world: World) -> None:
    endpoint = await world.endpoint("/a", "500,200;body=canary", retry_schedule_seconds=[0.01])
    waiting = await world.endpoint("/b", retry_schedule_seconds=[])
    await set_endpoint_state(world.database, waiting["id"], EndpointState.PAUSED)
    event_id = await world.emit(data='{"name": "canary"}')
    other = await world.emit(data='{"name": "stays"}')
    async with world.engine():
        await world.until("select count(*) = 3 from aetherflow.attempts")
    await world.connection.execute("update aetherflow.attempts set response = 'canary'")
    scheduled = await world.emit(
        data='{"name": "canary"}', deliver_at=datetime.now(UTC) + timedelta(hours=1)
    )
    before = await world.rows(
        "select event_id, attempt, status, started_at, verdict, error from aetherflow.attempts"
        " order by started_at, event_id"
    )
    for _ in range(2):
        await expunge_event(world.database, event_id)
    await expunge_event(world.database, scheduled)

    for table in ("events", "attempts", "deliveries", "dead", "outbox"):
        of_other = "'0'" if table == "outbox" else f"'{other}'"
        column = "id" if table == "events" else "event_id"
        assert not await world.value(
            f"select bool_or(t::text ~ 'canary|63616e617279') from aetherflow.{table} t"
            f" where t.{column} <> {of_other}"
        )
    after = await world.rows(
        "select event_id, attempt, status, started_at, verdict, error from aetherflow.attempts"
        " order by started_at, event_id"
    )
    assert after == before
    shown = await show_event(world.database, event_id)
    assert (shown["data"], shown["type"]) == (None, "a.b")
    assert shown["expunged_at"] is not None
    states = {it["endpoint_id"]: (it["state"], it["reason"]) for it in shown["deliveries"]}
    assert states == {
        endpoint["id"]: ("delivered", None),
        waiting["id"]: ("dead", "cancelled"),
    }
    assert (await show_event(world.database, other))["data"] == '{"name": "stays"}'

    await set_endpoint_state(world.database, waiting["id"], EndpointState.ACTIVE)
    for endpoint_id in (endpoint["id"], waiting["id"]):
        with pytest.raises(InputRefused, match="the content of its event was deleted"):
            await retry_delivery(world.database, delivery_id(event_id, endpoint_id))
        asked = NewReplay(endpoint_id=endpoint_id)
        assert (await count_replay(world.database, asked))["deliveries"] <= 1, "the other one"
    async with world.engine():
        await start_replay(world.database, NewReplay(endpoint_id=waiting["id"]))
        await world.until("select bool_and(state = 'done') from aetherflow.replays")
        await world.settled()
    assert {it.headers["webhook-id"] for it in world.receiver.at("/b")} == {other}
    for wrong in ("evt_x", "evt_" + "0" * 24):
        with pytest.raises(NotFound):
            await expunge_event(world.database, wrong)


async def test_what_is_expunged_while_it_is_fanned_out_is_not_sent(world: World) -> None:
    """Written as a fan-out leaves it that had seen the event a moment before."""
    endpoint = await world.endpoint("/a")
    event_id = await world.emit(data='{"name": "canary"}')
    await expunge_event(world.database, event_id)
    await world.connection.execute(
        "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)"
        " select aetherflow.shard_of($1), shard, $1, id, now() from aetherflow.events",
        endpoint["id"],
    )
    async with world.engine():
        await world.settled()
    assert not world.receiver.received
    assert await world.value("select reason from aetherflow.dead") == "expired"


async def test_case_10_a_delayed_event_comes_in_time_and_a_cancelled_one_never(
    world: World,
) -> None:
    await world.endpoint("/a")
    soon = await world.value("select now() + interval '2 seconds'")
    kept = await world.emit(deliver_at=soon)
    cancelled = [await world.emit(deliver_at=soon) for _ in range(3)]
    await cancel_event(world.database, cancelled[0])
    async with world.engine():
        began = asyncio.get_running_loop().time()
        await cancel_event(world.database, cancelled[1])
        await asyncio.sleep(1.0)
        await cancel_event(world.database, cancelled[2])
        assert not world.receiver.received
        (request,) = await world.receiver.wait_for(1)
        assert request.headers["webhook-id"] == kept
        assert await world.value("select clock_timestamp() >= $1", soon)
        assert asyncio.get_running_loop().time() - began < 4
        await world.settled()
        with pytest.raises(NotFound, match="waiting event"):
            await cancel_event(world.database, kept)
    assert len(world.receiver.received) == 1
    shown = await show_event(world.database, cancelled[0])
    assert shown["cancelled_at"] is not None
    assert shown["deliveries"] == []
    counted = await count_replay(
        world.database, NewReplay(endpoint_id=(await world.endpoint("/b"))["id"])
    )
    assert counted["deliveries"] == 1
    for wrong in (cancelled[0], "evt_x", "evt_" + "0" * 24):
        with pytest.raises(NotFound, match="waiting event"):
            await cancel_event(world.database, wrong)


async def test_an_answer_that_comes_after_the_content_went_is_not_kept(world: World) -> None:
    await world.endpoint("/a", "500;wait=0.5;body=canary", retry_schedule_seconds=[0.01])
    async with world.engine():
        event_id = await world.emit(data='{"name": "canary"}')
        await world.receiver.wait_for(1)
        await expunge_event(world.database, event_id)
        await world.until("select count(*) = 1 from aetherflow.attempts")
    (attempt,) = await world.rows("select verdict, response, status from aetherflow.attempts")
    assert tuple(attempt) == ("late", None, 500)
