"""The table of bad data: what is refused, what arrives byte for byte, and what is never sent."""

import logging
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks import emit
from aetherflow_hooks.errors import InputRefused
from tests.conftest import World, until
from tests.rules.test_headers import NAMES, RESERVED, VALUES

TAKEN = {
    "P-01": "{}",
    "P-07 raw": '{"a":"🔑"}',
    "P-07 escaped": r'{"a":"\ud83d\udd11 \\ud800 \\\ud83d\udd11"}',
    "P-10": '{"a":1e400}',
    "P-11": '{"a":1e200000}',  # the text of a number, which no jsonb has to hold
    "P-12": '{"a":' + "1" * 5000 + "}",
    "P-13": '{"a":18446744073709551616}',
    "P-14": '{"a":[1.10, -0, 1E5, 0.1000000000000000055]}',
    "P-15": '{"a":1,"a":2}',
    "P-16": '{ "bb" :1,\n"a": 2 }',
    "P-17": '{"a":' + "[" * 500 + "]" * 500 + "}",
    "P-18": '{"a":' + "[" * 3000 + "]" * 3000 + "}",
    "P-20": "{" + ",".join(f'"{n}":1' for n in range(100_000)) + "}",
    "P-21": '{"a":"</script><img src=x onerror=alert(1)>\u2028"}',
    "P-22": '{"a":"' + "x" * (1_048_576 - 8) + '"}',
}
REFUSED = {
    "P-01 null": "null",
    "P-01 5": "5",
    'P-01 "x"': '"x"',
    "P-01 []": "[]",
    "P-02 empty": "",
    "P-02 quotes": "{'a':1}",
    "P-02 comma": '{"a":1,}',
    "P-02 comment": "{} // no",
    "P-02 BOM": "\ufeff{}",
    "P-03": r'{"a":"\u0000"}',
    "P-03 a pair before": r'{"a":"\\\u0000"}',
    "P-05 high": r'{"a":"\ud800"}',
    "P-05 low": r'{"a":"\uDC00"}',
    "P-05 twice": r'{"a":"\ud83d\ud83d\ude00"}',
    "P-05 apart": r'{"a":"\ud83d\\\ude00"}',
    "P-09 NaN": '{"a":NaN}',
    "P-09 Infinity": '{"a":-Infinity}',
    "P-19": '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
    "P-23": '{"a":"' + "x" * 1_048_576 + '"}',
}
TYPES_REFUSED = ["", "a" * 1_000_000, "*", "'; drop table x", "a\nb", "a\u202eb", "é", "a b"]


async def test_what_is_taken_arrives_byte_for_byte(world: World) -> None:
    await world.endpoint()
    rows = {await world.emit(data=data): row for row, data in TAKEN.items()}
    async with world.engine():
        await world.settled()
    arrived = {
        rows[request.headers["webhook-id"]]: request.body.partition(b'"data":')[2][:-1].decode()
        for request in world.receiver.received
    }
    assert arrived == TAKEN


@pytest.mark.parametrize(("row", "data"), REFUSED.items(), ids=REFUSED)
async def test_what_is_refused_is_explained_and_the_transaction_can_go_on(
    world: World, row: str, data: str
) -> None:
    async with world.connection.transaction():
        with pytest.raises(
            (asyncpg.InvalidParameterValueError, asyncpg.ProgramLimitExceededError),
            match=r"aetherflow\.emit: data ",
        ):
            async with world.connection.transaction():
                await world.emit(data=data)
        await world.emit()
    assert await world.value("select count(*) from aetherflow.events") == 1


@pytest.mark.parametrize("data", [b'{"a":"\x00"}', b'{"a":"\xff"}'], ids=["P-04", "P-08"])
async def test_bytes_that_are_no_text_are_refused(world: World, data: bytes) -> None:
    with pytest.raises(asyncpg.PostgresError):  # any client's, before the function is called
        await world.connection.execute(
            "select aetherflow.emit('a.b', convert_from($1, 'UTF8'))", data
        )
    with pytest.raises((InputRefused, asyncpg.PostgresError)):
        await emit(world.connection, "a.b", data)


@pytest.mark.parametrize("data", ['{"a":"\ud800"}', {"a": "\ud800"}], ids=["text", "mapping"])
async def test_p_06_half_a_pair_in_python_is_refused(world: World, data: Any) -> None:
    with pytest.raises(InputRefused, match="data cannot be written as JSON"):
        await emit(world.connection, "a.b", data)


@pytest.mark.parametrize("event_type", TYPES_REFUSED)
async def test_p_25_types_are_of_harmless_letters(world: World, event_type: str) -> None:
    with pytest.raises(
        asyncpg.InvalidParameterValueError, match=r"(?s)the type .* is not 1 to 128"
    ):
        await world.emit(event_type)


async def test_p_14_jsonb_arrives_as_postgres_writes_it(world: World) -> None:
    await world.endpoint()
    await world.value("""select aetherflow.emit('a.b', '{"b": 1.10, "a": 1E5, "b": -0}'::jsonb)""")
    async with world.engine():
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    assert request.body.endswith(b'"data":{"a": 100000, "b": 0}}')


async def test_p_24_a_row_put_in_past_all_limits_is_given_up_and_not_read(world: World) -> None:
    await world.endpoint()
    await world.endpoint("/new")
    event_ids = [await world.emit() for _ in range(2)]
    await world.connection.execute(
        "update aetherflow.events set data = repeat(' ', 50 << 20) || data where id = $1",
        event_ids[0],
    )
    async with world.engine():
        await world.settled()
    assert len(world.receiver.received) == 2
    dead = await world.rows("select event_id, reason, attempts from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(event_ids[0], "too_large", 0)] * 2


async def test_p_26_many_rows_without_an_event_do_not_hold_up_a_good_one(world: World) -> None:
    await world.endpoint(events=["a.b"])
    await world.connection.execute("update aetherflow.endpoints set state = 'paused'")
    await world.value("select count(aetherflow.emit('a.b', '{}')) from generate_series(1, 2000)")
    async with world.engine():
        await world.until("select not exists (select from aetherflow.outbox)")
    await world.connection.execute("truncate aetherflow.events")
    await world.connection.execute("update aetherflow.endpoints set state = 'active'")
    assert await world.value("select count(*) from aetherflow.deliveries") > 1000
    world.receiver.received.clear()
    await world.endpoint("/good", events=["good"])
    async with world.engine():
        await world.emit("good")
        await world.receiver.wait_for(1, "/good", timeout_seconds=1)
        await world.settled()
    assert len(world.receiver.received) == 1


async def test_p_28_times_beyond_all_sense_do_not_stop_the_engine(world: World) -> None:
    await world.endpoint()
    odd = [await world.emit() for _ in range(3)]
    for event_id, moment in zip(odd, ("0001-01-01", "9999-12-31", "infinity"), strict=True):
        await world.connection.execute(
            f"update aetherflow.outbox set due_at = '{moment}' where event_id = $1", event_id
        )
    good = await world.emit()
    async with world.engine():
        requests = await world.receiver.wait_for(2)
        await world.until("select not exists (select from aetherflow.deliveries)")
    assert {request.headers["webhook-id"] for request in requests} == {odd[0], good}


async def test_a_bad_header_by_another_hand_is_never_sent(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Every row of the table of headers, past the checks of `endpoint add`."""
    bad = [("X-One", value) for value in [*VALUES, "x" * 4097] if not {"\0", "\ud800"} & set(value)]
    bad += [(name, "1") for name in [*NAMES, *RESERVED]]
    held = set()
    for place, (name, value) in enumerate(bad):
        endpoint = await world.endpoint(f"/bad/{place}")
        held.add(endpoint["id"])
        await world.value(
            "insert into aetherflow.headers (endpoint_id, name, value) values ($1, $2, $3)",
            *(endpoint["id"], name, value),
        )
    crowded = await world.endpoint("/crowded")
    held.add(crowded["id"])
    await world.value(
        "insert into aetherflow.headers (endpoint_id, name, value)"
        " select $1, 'X-' || n, '1' from generate_series(1, 21) n",
        crowded["id"],
    )
    await world.endpoint("/good", headers={"Authorization": "Bearer x"})
    with caplog.at_level(logging.ERROR):
        async with world.engine():
            await world.emit()
            (request,) = await world.receiver.wait_for(1)
            await world.until("select count(*) = 0 from aetherflow.outbox")
            await until_told(caplog, len(held))
    assert request.headers["authorization"] == "Bearer x"
    assert [it.path for it in world.receiver.received] == ["/good"]
    waiting = await world.rows("select endpoint_id, attempt from aetherflow.deliveries")
    assert {row["endpoint_id"] for row in waiting} == held
    assert {row["attempt"] for row in waiting} == {0}


async def until_told(caplog: pytest.LogCaptureFixture, count: int) -> None:
    async def all_of_them() -> bool:
        return caplog.text.count("endpoint.unsignable") >= count

    await until(all_of_them, "each is told of")
