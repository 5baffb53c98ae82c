"""Fan-out: which endpoints get which events."""

import asyncpg
import pytest

from aetherflow_hooks.db.statements import statements
from aetherflow_hooks.manage.endpoints import delete_endpoint, set_endpoint_state
from aetherflow_hooks.model import EndpointState
from tests.conftest import LONG_AGO, World


def arrived(world: World, path: str) -> list[str]:
    return [request.headers["x-aetherflow-event"] for request in world.receiver.at(path)]


async def test_case_12_patterns_choose(world: World) -> None:
    for path, events in {
        "/exact": ["order.paid"],
        "/start": ["order.*"],
        "/all": ["*"],
        "/other": ["user.*"],
        "/longer": ["order.paid.*"],
        "/twice": ["order.*", "order.paid", "*"],
    }.items():
        await world.endpoint(path, events=events)
    async with world.engine():
        await world.emit("order.paid")
        await world.emit("order.paid.late")
        await world.emit("orders")
        await world.settled()
    assert arrived(world, "/exact") == ["order.paid"]
    assert sorted(arrived(world, "/start")) == ["order.paid", "order.paid.late"]
    assert sorted(arrived(world, "/all")) == ["order.paid", "order.paid.late", "orders"]
    assert arrived(world, "/other") == []
    assert arrived(world, "/longer") == ["order.paid.late"]
    assert sorted(arrived(world, "/twice")) == ["order.paid", "order.paid.late", "orders"]


async def test_case_14_tenants_see_their_own_events_only(world: World) -> None:
    for tenant in ("", "x", "y"):
        await world.endpoint(f"/of-{tenant}", tenant=tenant)
    async with world.engine():
        await world.emit("a.of.x", tenant="x")
        await world.emit("a.of.nobody")
        await world.settled()
    assert arrived(world, "/of-x") == ["a.of.x"]
    assert arrived(world, "/of-") == ["a.of.nobody"]
    assert arrived(world, "/of-y") == []


async def test_case_16_a_failing_endpoint_costs_the_others_nothing(world: World) -> None:
    await world.endpoint("/good")
    await world.endpoint("/bad", "500", retry_schedule_seconds=[0.05, 0.05])
    async with world.engine():
        event_id = await world.emit()
        await world.settled()
    assert [r.headers["webhook-id"] for r in world.receiver.at("/good")] == [event_id]
    assert len(world.receiver.at("/bad")) == 3


async def test_case_17_a_deleted_endpoint_gets_no_retry(world: World) -> None:
    added = await world.endpoint("/a", "500", retry_schedule_seconds=[3600])
    async with world.engine(sweep={"every_seconds": 0.1}):
        await world.emit()
        await world.until("select exists (select from aetherflow.attempts)")
        await delete_endpoint(world.database, added["id"])
        await world.make_due()
        await world.settled()  # swept away, not sent
    assert len(world.receiver.at("/a")) == 1
    assert await world.value("select count(*) from aetherflow.secrets") == 0


async def test_case_18_a_type_that_nobody_takes_makes_no_deliveries(world: World) -> None:
    await world.endpoint(events=["b.*"])
    await world.value("select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 1000)")
    inserted = (
        "select n_tup_ins from pg_stat_user_tables where relid = 'aetherflow.deliveries'::regclass"
    )
    async with world.engine():
        await world.settled()
    await world.connection.execute("select pg_stat_force_next_flush()")
    assert await world.value(inserted) == 0
    assert world.receiver.received == []


async def test_an_event_for_more_endpoints_than_fit_a_statement_reaches_all_once(
    world: World,
) -> None:
    for number in range(7):
        await world.endpoint(f"/{number}")
    async with world.engine(fanout={"endpoints_max": 3}):
        await world.emit()
        await world.emit()
        await world.settled()
    assert [len(world.receiver.at(f"/{number}")) for number in range(7)] == [2] * 7


async def test_case_67_a_paused_endpoint_keeps_its_events(world: World) -> None:
    added = await world.endpoint("/a", max_in_flight=1)
    async with world.engine():
        await set_endpoint_state(world.database, added["id"], EndpointState.PAUSED)
        emitted = [await world.emit() for _ in range(100)]
        await world.until("select count(*) = 100 from aetherflow.deliveries")
        assert world.receiver.received == []
        await set_endpoint_state(world.database, added["id"], EndpointState.ACTIVE)
        await world.settled()
    assert [r.headers["webhook-id"] for r in world.receiver.received] == emitted


async def test_a_disabled_endpoint_takes_no_events(world: World) -> None:
    added = await world.endpoint("/a")
    await set_endpoint_state(world.database, added["id"], EndpointState.DISABLED)
    async with world.engine():
        await world.emit("while.disabled")
        await world.settled()
        await set_endpoint_state(world.database, added["id"], EndpointState.ACTIVE)
        await world.emit("while.active")
        await world.settled()
    assert arrived(world, "/a") == ["while.active"]


async def test_a_delayed_event_goes_to_those_who_were_there_when_it_was_emitted(
    world: World,
) -> None:
    await world.endpoint("/before")
    await world.value(
        "select aetherflow.emit('a.b', '{}', deliver_at => now() + interval '300 ms')"
    )
    await world.endpoint("/after")
    async with world.engine():
        await world.settled()
    assert (arrived(world, "/before"), arrived(world, "/after")) == (["a.b"], [])


async def test_fan_out_is_all_or_nothing(world: World) -> None:
    """A statement that fails half-way leaves the event in the outbox."""
    await world.endpoint()
    await world.emit()
    await world.connection.execute(
        "alter table aetherflow.deliveries add constraint no_way check (false)"
    )
    shard = await world.value("select shard from aetherflow.outbox")
    statement = statements("aetherflow")["fanout_events"]
    with pytest.raises(asyncpg.CheckViolationError):
        await world.connection.fetch(statement, shard, 10, 10, "{}", 0, False, LONG_AGO)
    assert await world.value("select count(*) from aetherflow.outbox") == 1
    await world.connection.execute("alter table aetherflow.deliveries drop constraint no_way")
    async with world.engine():
        await world.settled()
    assert len(world.receiver.received) == 1
