"""Emit: what an application may rely on from the moment it calls emit."""

import asyncio
import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import asyncpg
import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aetherflow_hooks import emit
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.errors import InputRefused
from tests.conftest import World


async def test_case_1_a_rolled_back_event_never_happened(world: World) -> None:
    await world.endpoint()
    await world.connection.execute("create table orders (id int)")
    async with world.engine():
        transaction = world.connection.transaction()
        await transaction.start()
        await world.connection.execute("insert into orders values (1)")
        await world.emit("order.paid")
        await transaction.rollback()
        later = await world.emit("order.paid")
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    assert request.headers["webhook-id"] == later
    assert len(world.receiver.received) == 1
    assert [row["id"] for row in await world.rows("select id from aetherflow.events")] == [later]


async def test_case_2_a_committed_event_arrives_once_and_not_before(world: World) -> None:
    await world.endpoint()
    async with world.engine():
        transaction = world.connection.transaction()
        await transaction.start()
        first = await world.emit()
        other = await asyncpg.connect(world.dsn)
        marker = await other.fetchval("select aetherflow.emit('a.b', '{}')")  # commits at once
        await other.close()
        (request,) = await world.receiver.wait_for(1)
        assert request.headers["webhook-id"] == marker  # though it was emitted later
        await transaction.commit()
        await world.receiver.wait_for(2)
        await world.settled()
    assert [r.headers["webhook-id"] for r in world.receiver.received] == [marker, first]


async def test_case_3_plain_psql_is_as_good_as_python(
    world: World, server: EmbeddedPostgres
) -> None:
    psql = shutil.which("psql")
    if psql is None:
        pytest.skip("psql is not installed")
    await world.endpoint()

    def run(script: str) -> None:
        subprocess.run(
            [psql, "--no-psqlrc", "--quiet", "--set", "ON_ERROR_STOP=1", world.dsn],
            input=script,
            text=True,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    emits = "".join(f"""select aetherflow.emit('a.b', '{{"n": {n}}}');\n""" for n in range(1000))
    async with world.engine():
        await asyncio.to_thread(run, f"begin;\n{emits}rollback;\n")
        await asyncio.to_thread(run, f"begin;\n{emits}commit;\n")
        await world.receiver.wait_for(1000)
        await world.settled()
    numbers = [orjson.loads(r.body)["data"]["n"] for r in world.receiver.received]
    assert sorted(numbers) == list(range(1000))


async def test_case_4_a_used_idempotency_key_gives_the_first_event(world: World) -> None:
    await world.endpoint()
    first = await world.emit(idempotency_key="k")
    assert await world.emit("other", '{"other": 1}', idempotency_key="k") == first
    async with world.engine():
        await world.receiver.wait_for(1)
        await world.settled()
    assert len(world.receiver.received) == 1
    assert await world.value("select count(*) from aetherflow.events") == 1


async def test_case_5_keys_of_two_tenants_have_nothing_to_do_with_each_other(world: World) -> None:
    await world.endpoint("/x", tenant="x")
    await world.endpoint("/y", tenant="y")
    async with world.engine():
        first = await world.emit(tenant="x", idempotency_key="k")
        second = await world.emit(tenant="y", idempotency_key="k")
        await world.receiver.wait_for(2)
    assert first != second
    assert [r.headers["webhook-id"] for r in world.receiver.at("/x")] == [first]
    assert [r.headers["webhook-id"] for r in world.receiver.at("/y")] == [second]


async def test_case_6_concurrent_transactions_with_one_key_make_one_event(world: World) -> None:
    other = await asyncpg.connect(world.dsn)
    mine, theirs = world.connection.transaction(), other.transaction()
    await mine.start()
    await theirs.start()
    first = await world.emit(idempotency_key="k")
    waiting = asyncio.create_task(
        other.fetchval("select aetherflow.emit('a.b', '{}', idempotency_key => 'k')")
    )
    await world.until("select exists (select from pg_locks where not granted)")
    await mine.commit()
    assert await waiting == first
    await theirs.commit()
    await other.close()
    assert await world.value("select count(*) from aetherflow.events") == 1


async def test_a_key_is_free_again_when_its_transaction_rolls_back(world: World) -> None:
    transaction = world.connection.transaction()
    await transaction.start()
    await world.emit(idempotency_key="k")
    await transaction.rollback()
    event_id = await world.emit(idempotency_key="k")
    assert await world.value("select id from aetherflow.events") == event_id


async def test_case_7_data_over_the_limit_is_refused_and_the_caller_can_go_on(world: World) -> None:
    longest = '{"a":"' + "x" * (1_048_576 - 8) + '"}'
    async with world.connection.transaction():
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="the limit is 1048576"):
            async with world.connection.transaction():
                await world.emit(data=longest + " ")
        await world.emit(data=longest)
    assert await world.value("select count(*) from aetherflow.events") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("'a b', '{}'", "the type 'a b' is not 1 to 128"),
        ("'', '{}'", "the type '' is not"),
        ("null, '{}'", "the type NULL is not"),
        ("repeat('a', 129), '{}'", "is not 1 to 128"),
        ("E'a\\n', '{}'", "is not 1 to 128"),
        ("'a', '[]'", "this is a JSON array"),
        ("'a', 'null'", "this is a JSON null"),
        ("'a', '{'", "this is none: The input string ended unexpectedly"),
        ("'a', null", "this is null"),
        ("'a', '{}', tenant => null", "tenant is null"),
        ("'a', '{}', idempotency_key => ''", "idempotency_key is not"),
        ("'a', '{}', deliver_at => now() + interval '31 days'", "later than events are kept, 30"),
        ("'a', '{}', deliver_at => 'infinity'", "later than events are kept"),
    ],
)
async def test_what_emit_refuses_it_explains(world: World, arguments: str, told: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match=told):
        await world.value(f"select aetherflow.emit({arguments})")


async def test_case_9_an_event_that_nobody_takes_is_kept(world: World) -> None:
    event_id = await world.emit(data='{"n":1}')
    async with world.engine():
        await world.settled()
        await world.endpoint()  # too late for the first
        second = await world.emit()
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    assert request.headers["webhook-id"] == second
    assert len(world.receiver.received) == 1
    kept = await world.value("select data from aetherflow.events where id = $1", event_id)
    assert kept == '{"n":1}'


async def test_a_delayed_event_is_not_sent_before_its_time(world: World) -> None:
    await world.endpoint()
    async with world.engine():
        soon = await world.value("select now() + interval '0.6 seconds'")
        event_id = await world.emit(deliver_at=soon)
        await world.emit("marker")
        await world.receiver.wait_for(1)
        assert world.receiver.received[0].headers["x-aetherflow-event"] == "marker"
        await world.settled()
        late_ms = await world.value(
            "select extract(epoch from started_at - $1) * 1000 from aetherflow.attempts"
            " where event_id = $2",
            soon,
            event_id,
        )
    assert 0 <= late_ms < 500


async def test_case_11_an_expired_event_is_never_sent(world: World) -> None:
    await world.endpoint()
    past = datetime.now(UTC) - timedelta(seconds=1)
    event_id = await world.emit(expires_at=past)
    async with world.engine():
        await world.settled()
    assert not world.receiver.received
    dead = await world.rows("select event_id, reason, attempts from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(event_id, "expired", 0)]


async def test_emit_from_python_in_the_callers_transaction(world: World) -> None:
    await world.endpoint()
    async with world.engine(), asyncpg.create_pool(world.dsn, min_size=1) as pool:
        async with pool.acquire() as connection, connection.transaction():
            event_id = await emit(connection, "workflow.completed", {"workflow": {"id": "wf_1"}})
        await emit(pool, "workflow.completed", b'{"bytes": true}', tenant="")
        first, second = await world.receiver.wait_for(2)
    assert {first.headers["webhook-id"], second.headers["webhook-id"]} >= {event_id}
    bodies = {first.body, second.body}
    assert any(body.endswith(b'"data":{"workflow":{"id":"wf_1"}}}') for body in bodies)
    assert any(body.endswith(b'"data":{"bytes": true}}') for body in bodies)


@pytest.mark.parametrize("data", [{"x": float("nan")}, {"x": object()}, b"\xff", {1: {2, 3}}])
async def test_python_data_that_is_no_json_is_refused(world: World, data: object) -> None:
    with pytest.raises(InputRefused, match="data cannot be written as JSON"):
        await emit(world.connection, "a.b", data)  # type: ignore[arg-type]


async def test_times_without_a_zone_are_refused(world: World) -> None:
    with pytest.raises(InputRefused, match="no time zone"):
        await emit(world.connection, "a.b", {}, deliver_at=datetime(2030, 1, 1))  # noqa: DTZ001


async def test_integers_of_any_length_survive_python(world: World) -> None:
    event_id = await emit(world.connection, "a.b", {"n": 2**70, "é": "é"})
    kept = await world.value("select data from aetherflow.events where id = $1", event_id)
    assert kept == '{"n":1180591620717411303424,"é":"é"}'


async def test_the_application_needs_emit_and_nothing_else(world: World) -> None:
    await world.connection.execute("drop role if exists hooks_app; create role hooks_app")
    try:
        await world.connection.execute("select aetherflow.grant_emit('hooks_app')")
        await world.connection.execute("set role hooks_app")
        await world.emit()
        await world.value("select aetherflow.emit('a.b', '{}'::jsonb)")
        await world.value("select aetherflow.emit('a.b', '{}'::json)")
        for forbidden in (
            "select * from aetherflow.events",
            "select * from aetherflow.secrets",
            "delete from aetherflow.outbox",
            "select aetherflow.make_partitions(3)",
            "select aetherflow.shard_of('evt_000')",
            "select aetherflow.grant_emit('public')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await world.connection.execute(forbidden)
        # A table of the application's own must not be taken for ours.
        await world.connection.execute("create temp table outbox (like pg_class)")
        await world.connection.execute("set search_path = pg_temp, public")
        await world.emit()
        await world.connection.execute("reset role; reset search_path")
        assert await world.value("select count(*) from aetherflow.outbox") == 4
    finally:
        await world.connection.execute("reset role; drop owned by hooks_app; drop role hooks_app")


async def test_emit_makes_the_partition_that_no_engine_has_made(world: World) -> None:
    for row in await world.rows(
        "select inhrelid::regclass::text as name from pg_inherits"
        " where inhparent = 'aetherflow.events'::regclass"
    ):
        await world.connection.execute(f"drop table {row['name']}")
    await world.connection.execute("update aetherflow.control set events_until = '-infinity'")
    event_id = await world.emit()
    assert await world.value("select id from aetherflow.events") == event_id


# Any text: JSON or nearly so, whole and broken.
texts = st.one_of(
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    ).map(lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace").decode()),
    st.from_regex(
        r'\{("[a-z\\u0-9]*": ?(-?[0-9.eE+]+|"[^"]*"|true|NaN|\{\}),?){0,3}\}?', fullmatch=True
    ),
)


def test_any_text_is_sent_as_it_is_or_refused_in_so_many_words(dsn: str) -> None:
    with asyncio.Runner() as runner:
        connection = runner.run(asyncpg.connect(dsn))

        @given(texts)
        def check(data: str) -> None:
            assume("\0" not in data)
            emitting = connection.fetchval("select aetherflow.emit('a.b', $1::text)", data)
            try:
                event_id = runner.run(emitting)
            except asyncpg.PostgresError as error:
                assert isinstance(
                    error, asyncpg.InvalidParameterValueError | asyncpg.ProgramLimitExceededError
                )
                assert str(error).startswith("aetherflow.emit: ")
                return
            kept = "select data from aetherflow.events where id = $1"
            assert runner.run(connection.fetchval(kept, event_id)) == data
            assert json.loads(data) is not None  # whatever gets by, receivers can read

        check()
        runner.run(connection.close())
