"""Many are sent again: those that were asked for, once each, whoever dies meanwhile."""

import asyncio
import collections
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage import replays
from aetherflow_hooks.manage.deliveries import show_delivery
from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.manage.replays import (
    NewReplay,
    cancel_replay,
    count_replay,
    list_replays,
    show_replay,
    start_replay,
)
from aetherflow_hooks.model import EndpointState, delivery_id
from tests.conftest import World
from tests.faults.test_engines import engine_process, let_leases_end


async def emitted(world: World, count: int, event_type: str = "a.b", tenant: str = "") -> set[str]:
    rows = await world.rows(
        "select aetherflow.emit($1, '{}', $3) as id from generate_series(1, $2)",
        event_type,
        count,
        tenant,
    )
    return {row["id"] for row in rows}


async def given_up(world: World, endpoint_ids: list[str]) -> None:
    """Let everything that waits be given up, as if its attempts had failed."""
    await world.connection.execute(
        "with gone as (delete from aetherflow.deliveries d where d.endpoint_id = any ($1)"
        " returning d.*)"
        " insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason)"
        " select g.shard, g.endpoint_id, g.event_id, g.event_shard, 4, 'exhausted' from gone g",
        endpoint_ids,
    )


async def with_dead(world: World, *endpoint_ids: str, events: int, **emit: Any) -> set[str]:
    """Emit, and let what comes of it be dead; give the events."""
    for endpoint_id in endpoint_ids:
        await set_endpoint_state(world.database, endpoint_id, EndpointState.PAUSED)
    ids = await emitted(world, events, **emit)
    async with world.engine():
        await world.until("select not exists (select from aetherflow.outbox)")
    await given_up(world, list(endpoint_ids))
    for endpoint_id in endpoint_ids:
        await set_endpoint_state(world.database, endpoint_id, EndpointState.ACTIVE)
    return ids


async def done(world: World, replay_id: str) -> dict[str, Any]:
    """Wait until a replay is done and all of it was sent."""
    await world.until("select state <> 'running' from aetherflow.replays where id = $1", replay_id)
    await world.settled()
    return await show_replay(world.database, replay_id)


def arrived(world: World, path: str | None = None) -> collections.Counter[str]:
    """Count the requests for each event."""
    received = world.receiver.received if path is None else world.receiver.at(path)
    return collections.Counter(request.headers["webhook-id"] for request in received)


async def moment(world: World) -> datetime:
    now: datetime = await world.value("select clock_timestamp()")
    return now


async def test_case_70_what_is_dead_since_then_is_counted_then_sent_over_a_kill(
    world: World,
) -> None:
    ids = [(await world.endpoint(path))["id"] for path in ("/a", "/b")]
    await with_dead(world, *ids, events=30)
    since = await moment(world)
    expected = await with_dead(world, *ids, events=250)
    asked = NewReplay(since=since, only_failed=True, rate_per_second=500)
    counted = await count_replay(world.database, asked)
    assert counted == {"deliveries": 500, "endpoints": 2, "is_whole": True}
    async with world.engine():
        await asyncio.sleep(0.2)
    assert not world.receiver.received

    replay = await start_replay(world.database, asked)
    assert (replay["state"], replay["made"]) == ("running", 0)
    with engine_process(world.dsn) as doomed:
        await world.receiver.wait_for(150)
        doomed.kill()
        doomed.wait()
    sent = len(world.receiver.received)
    assert (await show_replay(world.database, replay["id"]))["state"] == "running"
    under_way = await world.value(
        "select count(*) from aetherflow.deliveries where lease_token <> 0"
    )
    await let_leases_end(world)
    async with world.engine():
        ended = await done(world, replay["id"])
    assert (ended["state"], ended["made"]) == ("done", 500)
    assert set(arrived(world, "/a")) == set(arrived(world, "/b")) == expected
    doubled = sum(arrived(world).values()) - 500
    assert doubled <= under_way, "more came twice than was under way at the kill"
    assert sent < 500
    triggers = await world.rows("select distinct trigger from aetherflow.attempts")
    assert [row["trigger"] for row in triggers] == ["replay"]
    assert await world.value("select count(*) from aetherflow.dead") == 60
    assert (await count_replay(world.database, asked))["deliveries"] == 0


async def test_case_71_a_new_endpoint_alone_gets_the_old_events(world: World) -> None:
    await world.endpoint("/old", events=["a.b", "other"])
    too_old = await emitted(world, 5)
    since = await moment(world)
    wanted = await emitted(world, 40)
    await emitted(world, 7, "other")
    await emitted(world, 3, tenant="acme")
    async with world.engine():
        await world.settled()
        new = await world.endpoint("/new", events=["a.*"])
        asked = NewReplay(endpoint_id=new["id"], since=since)
        counted = await count_replay(world.database, asked)
        assert counted == {"deliveries": 40, "endpoints": 1, "is_whole": True}
        before = len(world.receiver.at("/old"))
        replay = await start_replay(world.database, asked)
        assert (await done(world, replay["id"]))["made"] == 40
    assert arrived(world, "/new") == dict.fromkeys(wanted, 1)
    assert not too_old & set(arrived(world, "/new"))
    assert len(world.receiver.at("/old")) == before
    shown = await show_delivery(world.database, delivery_id(min(wanted), new["id"]))
    assert [(it["attempt"], it["trigger"]) for it in shown["history"]] == [(1, "replay")]


async def test_what_was_delivered_is_sent_once_more(world: World) -> None:
    endpoint = await world.endpoint("/a")
    ids = await emitted(world, 20)
    async with world.engine():
        await world.settled()
        replay = await start_replay(world.database, NewReplay(endpoint_id=endpoint["id"]))
        await done(world, replay["id"])
    assert arrived(world) == dict.fromkeys(ids, 2)


async def test_filters_choose_by_type_tenant_and_time(world: World) -> None:
    ours, theirs = [
        (await world.endpoint(path, tenant=path[1:]))["id"] for path in ("/ours", "/theirs")
    ]
    for tenant in ("ours", "theirs"):
        for event_type in ("a.b", "a.c.d", "b.a"):
            await with_dead(world, ours, theirs, events=2, event_type=event_type, tenant=tenant)
    until = await moment(world)
    await with_dead(world, ours, events=4, tenant="ours")

    async def count(**filters: Any) -> int:
        asked = NewReplay(only_failed=True, **filters)
        return int((await count_replay(world.database, asked))["deliveries"])

    assert await count() == 16
    assert await count(until=until) == 12
    assert await count(tenant="ours", until=until) == 6
    assert await count(pattern="a.*", until=until) == 8
    assert await count(pattern="a.b", endpoint_id=ours) == 6
    asked = NewReplay(only_failed=True, pattern="a.*", tenant="ours", until=until)
    async with world.engine():
        replay = await start_replay(world.database, asked)
        assert (await done(world, replay["id"]))["made"] == 4
    types = collections.Counter(
        request.headers["x-aetherflow-event"] for request in world.receiver.received
    )
    assert types == {"a.b": 2, "a.c.d": 2}
    assert not world.receiver.at("/theirs")


async def test_what_waits_or_is_scheduled_is_left_as_it_is(world: World) -> None:
    endpoint = await world.endpoint("/a")
    await world.emit()  # still in the outbox
    await world.emit(deliver_at=await moment(world) + timedelta(hours=1))
    await set_endpoint_state(world.database, endpoint["id"], EndpointState.PAUSED)
    asked = NewReplay(endpoint_id=endpoint["id"])
    assert (await count_replay(world.database, asked))["deliveries"] == 0
    async with world.engine():
        await world.until("select count(*) = 1 from aetherflow.outbox")
        replay = await start_replay(world.database, asked)
        await world.until("select state = 'done' from aetherflow.replays")
    assert (await show_replay(world.database, replay["id"]))["made"] == 0
    waiting = await world.rows("select event_id, trigger from aetherflow.deliveries")
    assert [row["trigger"] for row in waiting] == [None]


async def test_what_has_expired_is_not_sent_again(world: World) -> None:
    endpoint = await world.endpoint("/a")
    await world.emit(expires_at=await moment(world) + timedelta(milliseconds=1))
    fresh = await with_dead(world, endpoint["id"], events=1)
    assert await world.value("select count(*) from aetherflow.dead") == 2
    asked = NewReplay(only_failed=True)
    assert (await count_replay(world.database, asked))["deliveries"] == 1
    async with world.engine():
        replay = await start_replay(world.database, asked)
        assert (await done(world, replay["id"]))["made"] == 1
    assert set(arrived(world)) == fresh


async def test_a_throttle_holds_and_another_engine_takes_part(world: World) -> None:
    endpoint = await world.endpoint("/a")
    ids = await with_dead(world, endpoint["id"], events=120)
    # Counted where they are made: on a busy machine they arrive in bunches.
    await world.connection.execute(
        "create table made_at (at timestamptz);"
        " create function note() returns trigger language plpgsql as"
        " $$ begin insert into made_at values (new.due_at); return new; end $$;"
        " create trigger note before insert on aetherflow.deliveries"
        " for each row execute function note()"
    )
    asked = NewReplay(only_failed=True, rate_per_second=80)
    async with world.engine(), world.engine():
        replay = await start_replay(world.database, asked)
        await done(world, replay["id"])
    assert arrived(world) == dict.fromkeys(ids, 1)
    rows = await world.rows("select extract(epoch from at)::float8 as at from made_at order by at")
    times = [row["at"] for row in rows]
    # A part is a tenth of a second's, and a fifth of a second is made up for.
    worst = max((j - i + 1) - 80 * (times[j] - times[i]) for i in range(120) for j in range(i, 120))
    assert worst <= 80 * 0.3 + 1
    assert times[-1] - times[0] > 1.0


async def test_no_more_is_made_of_one_that_is_cancelled(world: World) -> None:
    endpoint = await world.endpoint("/a")
    await with_dead(world, endpoint["id"], events=50)
    asked = NewReplay(only_failed=True, rate_per_second=1)
    async with world.engine():
        replay = await start_replay(world.database, asked)
        await world.receiver.wait_for(1)
        await cancel_replay(world.database, replay["id"])
    shown = await show_replay(world.database, replay["id"])
    assert shown["state"] == "cancelled"
    assert shown["made"] < 5
    assert shown["ended_at"] is not None
    with pytest.raises(NotFound, match="running replay"):
        await cancel_replay(world.database, replay["id"])


async def test_an_order_holds_for_what_is_sent_again(world: World) -> None:
    endpoint = await world.endpoint("/a", ordering="skip", max_in_flight=10)
    ids = await with_dead(world, endpoint["id"], events=60)
    async with world.engine():
        replay = await start_replay(world.database, NewReplay(only_failed=True))
        await done(world, replay["id"])
    came = [request.headers["webhook-id"] for request in world.receiver.received]
    assert came == sorted(ids)


async def test_what_cannot_be_meant_is_refused_with_the_reason(world: World) -> None:
    endpoint = await world.endpoint("/a")
    disabled = await world.endpoint("/b")
    await set_endpoint_state(world.database, disabled["id"], EndpointState.DISABLED)
    now = datetime.now(UTC)
    for asked, reason in (
        (NewReplay(), "say which endpoint"),
        (NewReplay(endpoint_id=disabled["id"]), "it is disabled"),
        (NewReplay(only_failed=True, pattern="a.*.b"), "chooses no events"),
        (NewReplay(only_failed=True, rate_per_second=0), "the rate is 0"),
        (NewReplay(only_failed=True, since=now, until=now), "since comes first"),
    ):
        with pytest.raises(InputRefused, match=reason):
            await start_replay(world.database, asked)
        with pytest.raises(InputRefused, match=reason):
            await count_replay(world.database, asked)
    for asked in (
        NewReplay(endpoint_id="ep_000000000000"),
        NewReplay(endpoint_id=endpoint["id"], tenant="acme"),
    ):
        with pytest.raises(NotFound):
            await start_replay(world.database, asked)
    for wrong in ("rpl_000000000000", "x"):
        with pytest.raises(NotFound):
            await show_replay(world.database, wrong)
    assert (await list_replays(world.database)).rows == []


async def test_replays_are_listed_the_newest_first(world: World) -> None:
    asked = NewReplay(only_failed=True)
    made = [(await start_replay(world.database, asked))["id"] for _ in range(5)]
    first = await list_replays(world.database, rows_max=3)
    rest = await replays.list_replays(world.database, rows_max=3, before=first.before)
    assert [row["id"] for row in first.rows + rest.rows] == made[::-1]
    assert rest.before is None


async def test_it_waits_for_an_endpoint_that_is_disabled_for_a_while(world: World) -> None:
    endpoint = await world.endpoint("/a")
    ids = await with_dead(world, endpoint["id"], events=6)
    asked = NewReplay(endpoint_id=endpoint["id"], only_failed=True, rate_per_second=10)
    async with world.engine():
        replay = await start_replay(world.database, asked)
        await world.receiver.wait_for(1)
        await set_endpoint_state(world.database, endpoint["id"], EndpointState.DISABLED)
        await world.until("select due_at > now() + interval '3 seconds' from aetherflow.replays")
        assert (await show_replay(world.database, replay["id"]))["state"] == "running"
        await set_endpoint_state(world.database, endpoint["id"], EndpointState.ACTIVE)
        await world.connection.execute("update aetherflow.replays set due_at = now()")
        await world.value("select pg_notify('aetherflow.wake', 'replay')")
        assert (await done(world, replay["id"]))["made"] == 6
    assert arrived(world) == dict.fromkeys(ids, 1)
