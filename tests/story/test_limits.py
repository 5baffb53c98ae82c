"""Limits: rates, POSTs under way, and what one endpoint may take from another."""

import asyncio
import statistics
import time

from aetherflow_hooks.manage.endpoints import set_endpoint_state
from aetherflow_hooks.model import EndpointState
from tests.conftest import World


async def emit_many(world: World, count: int, event_type: str = "a.b") -> None:
    await world.value(
        "select count(aetherflow.emit($2, '{}')) from generate_series(1, $1)", count, event_type
    )


async def test_case_62_a_rate_holds_in_every_second(world: World) -> None:
    await world.endpoint("/a", rate_per_second=20)
    await emit_many(world, 200)
    async with world.engine():
        await world.receiver.wait_for(105, timeout_seconds=20)
    began = [request.began for request in world.receiver.received]
    per_second = [
        sum(1 for moment in began if second <= moment - began[0] < second + 1)
        for second in range(5)
    ]
    assert all(18 <= count <= 22 for count in per_second), per_second


async def test_a_burst_goes_at_once_and_then_the_rate_holds(world: World) -> None:
    await world.endpoint("/a", rate_per_second=10, burst=10)
    await emit_many(world, 30)
    async with world.engine():
        await world.receiver.wait_for(25)
    began = [request.began for request in world.receiver.received]
    # A lane starts with one token; nine more come within the first second.
    assert 1.0 <= began[20] - began[0] <= 2.5


async def test_case_65_no_more_than_max_in_flight_are_open(world: World) -> None:
    await world.endpoint("/two", "200;wait=0.02", max_in_flight=2)
    await world.endpoint("/many", "200;wait=0.02", max_in_flight=30)
    async with world.engine():
        await emit_many(world, 150)
        await world.settled()
    assert world.receiver.open_most("/two") == 2
    assert 20 <= world.receiver.open_most("/many") <= 30


async def test_the_pool_of_the_process_is_bounded(world: World) -> None:
    for number in range(10):
        await world.endpoint(f"/{number}", "200;wait=0.05")
    most = 0
    async with world.engine(pace={"slots": 12}):
        await emit_many(world, 20)
        while await world.value(
            "select exists (select from aetherflow.deliveries)"
            " or exists (select from aetherflow.outbox)"
        ):
            most = max(most, sum(world.receiver.open_now(f"/{n}") for n in range(10)))
    assert 6 <= most <= 12


async def test_endpoints_that_hang_cannot_take_every_slot(world: World) -> None:
    """Five of them, each allowed more than the pool holds, and still another gets through."""
    for number in range(5):
        await world.endpoint(f"/hang/{number}", "hang", events=["hang"], max_in_flight=100)
    await world.endpoint("/good", events=["good"])
    await emit_many(world, 200, "hang")
    async with world.engine(pace={"slots": 32}, engine={"grace_seconds": 0}):
        await world.until("select count(*) >= 5 from aetherflow.deliveries where lease_token > 0")
        for number in range(1, 11):
            began = time.monotonic()
            await world.emit("good")
            await world.receiver.wait_for(number, "/good")
            assert time.monotonic() - began < 1


async def test_a_backlog_is_shared_fairly(world: World) -> None:
    """An endpoint with few deliveries does not wait behind one with many."""
    await world.endpoint("/many", "200;wait=0.01", events=["many"])
    await world.endpoint("/few", "200;wait=0.01", events=["few"])
    await emit_many(world, 3000, "many")
    await emit_many(world, 10, "few")
    async with world.engine():
        await world.receiver.wait_for(10, "/few", timeout_seconds=20)
        assert len(world.receiver.at("/many")) < 1500


async def test_results_that_cannot_be_written_stop_the_sending(world: World) -> None:
    """Back-pressure: while the database takes no results, only so many POSTs are made."""
    await world.endpoint("/a", max_in_flight=10)
    await emit_many(world, 500)
    async with world.engine(
        record={"waiting_max": 20}, pace={"slots": 10}, database={"command_timeout_seconds": 20}
    ):
        blocker = world.connection.transaction()
        await blocker.start()
        await world.connection.execute("lock table aetherflow.attempts in exclusive mode")
        await world.receiver.wait_for(20)
        await world.until("select count(*) > 0 from pg_locks where not granted")
        await asyncio.sleep(0.5)  # for those under way to end
        sent = len(world.receiver.received)
        await asyncio.sleep(0.5)
        assert len(world.receiver.received) == sent <= 20 + 10
        await blocker.commit()
        await world.settled()
    assert len(world.receiver.received) == 500


async def test_a_large_dead_backlog_does_not_delay_another_endpoint(world: World) -> None:
    """100,000 rows due for an endpoint that never answers; the other starts within 100 ms."""
    hanging = await world.endpoint("/hang", "hang", events=["hang"])
    await world.endpoint("/good", events=["good"])
    event_id = await world.emit("hang")
    await world.connection.execute(
        "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)"
        " select aetherflow.shard_of($1), aetherflow.shard_of($2), $1,"
        " left($2, -6) || lpad(to_hex(n), 6, '0'), now() from generate_series(1, 100000) n",
        hanging["id"],
        event_id,
    )
    # Those ids stand for events that were never emitted; give them the same data.
    await world.connection.execute(
        "insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)"
        " select d.event_shard, d.event_id, '', 'hang', '{}', now()"
        " from aetherflow.deliveries d on conflict do nothing"
    )
    delays_ms = []
    async with world.engine(engine={"grace_seconds": 0}):
        await world.until("select exists (select from aetherflow.deliveries where lease_token > 0)")
        for number in range(1, 32):
            await world.emit("good")
            committed_at = time.monotonic()
            await world.receiver.wait_for(number, "/good")
            delays_ms.append((time.monotonic() - committed_at) * 1000)
    assert statistics.median(delays_ms) < 100, delays_ms


async def test_what_waited_goes_on_at_its_rate_after_a_pause(world: World) -> None:
    """Its bucket is full then, and it gets leases for all that may go within half a second."""
    endpoint = await world.endpoint("/", rate_per_second=500, burst=10, max_in_flight=10)
    await world.value("select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 900)")
    async with world.engine():
        for so_many in (100, 400):
            await world.receiver.wait_for(so_many)
            await set_endpoint_state(world.database, endpoint["id"], EndpointState.PAUSED)
            await world.until(
                "select not exists (select from aetherflow.deliveries where leased_until > now())"
            )
            await asyncio.sleep(0.1)  # its bucket fills
            await set_endpoint_state(world.database, endpoint["id"], EndpointState.ACTIVE)
        await world.settled()
    assert len(world.receiver.received) == 900
