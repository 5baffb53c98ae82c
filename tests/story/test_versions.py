"""Versions: endpoints that get data as it was, and what may say how that was."""

import asyncio
import json
import re
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks.db import Database, database
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.flow import versions
from aetherflow_hooks.manage.audit import list_changes
from aetherflow_hooks.manage.deliveries import retry_delivery, show_delivery
from aetherflow_hooks.manage.endpoints import show_endpoint
from aetherflow_hooks.manage.event_types import (
    add_event_type,
    change_event_type,
    delete_event_type,
    show_event_type,
)
from aetherflow_hooks.manage.replays import NewReplay, start_replay
from aetherflow_hooks.manage.versions import (
    add_version,
    delete_version,
    list_versions,
    made_version,
)
from aetherflow_hooks.receive import verify
from tests.conftest import World

TYPE = "order.paid"
EXAMPLE = '{"id": "o1", "amount_cents": 1250}'
# It had an amount once, before it had cents.
AMOUNT = (
    "data - 'amount_cents' || jsonb_set('{}', '{amount}',"
    " ((data->>'amount_cents')::numeric / 100)::text::jsonb)"
)


async def order_paid(world: World, **versions: str) -> None:
    await add_event_type(world.database, TYPE, example=EXAMPLE)
    for version, expression in versions.items():
        await add_version(world.database, TYPE, version, expression)


def came(world: World, path: str) -> list[Any]:
    """Give the data of what came, in order."""
    return [json.loads(request.body)["data"] for request in world.receiver.at(path)]


async def refused(world: World, expression: str, version: str = "v") -> str:
    with pytest.raises(InputRefused) as told:
        await add_version(world.database, TYPE, version, expression)
    return str(told.value)


async def test_an_endpoint_gets_the_version_that_it_was_made_for(world: World) -> None:
    await order_paid(world)
    added = await add_version(
        world.database, TYPE, "2024-06-01", AMOUNT, description="Cents from now on."
    )
    assert json.loads(added["made"]) == {"id": "o1", "amount": 12.5}
    old = await world.endpoint("/old", payload_version="2024-06-01")
    await world.endpoint("/new")
    event_id = await world.emit(TYPE, '{"amount_cents":   1250,"id":"é\\u0041"}')
    await world.emit("other.type", '{"n":  1.0}')
    await world.deliver()
    (first, other) = sorted(world.receiver.at("/old"), key=lambda it: b"other" in it.body)
    envelope = json.loads(first.body)
    assert list(envelope) == ["event", "id", "timestamp", "data"]
    assert (envelope["event"], envelope["id"]) == (TYPE, event_id)
    assert envelope["data"]["amount"] == 12.5
    assert envelope["data"]["id"] == "éA"
    assert "amount_cents" not in envelope["data"]
    for request in (first, other):
        assert verify(request.body, request.headers, old["secret"])
    assert other.body.endswith(b'"data":{"n":  1.0}}')  # nobody has told of versions of it
    as_it_is = [request.body for request in world.receiver.at("/new") if b"cents" in request.body]
    assert len(as_it_is) == 1
    assert as_it_is[0].endswith('"data":{"amount_cents":   1250,"id":"é\\u0041"}}'.encode())


async def test_each_version_is_made_of_the_next_and_the_pin_needs_no_name_of_one(
    world: World,
) -> None:
    await order_paid(
        world,
        **{
            "2024-06-01": "data || '{\"was\": \"june\"}' || jsonb_set('{}', '{june}', data)",
            "2024-12-01": 'data || \'{"was": "december"}\'',
            "2024-01-01": 'data || \'{"was": "january"}\'',
        },
    )
    pins = {
        "2023-05-05": "january",
        "2024-01-01": "january",
        "2024-01-02": "june",
        "2024-06-01": "june",
        "2024-06-02": "december",
        "2024-12-01": "december",
        "2025-01-01": None,
    }
    for pin in pins:
        await world.endpoint(f"/{pin}", payload_version=pin)
    await world.emit(TYPE, '{"n":1}')
    await world.deliver()
    for pin, was in pins.items():
        (data,) = came(world, f"/{pin}")
        assert data.get("was") == was, pin
        if was in ("january", "june"):
            assert data["june"]["was"] == "december"
    assert len({request.body for pin in pins for request in world.receiver.at(f"/{pin}")}) == 4


async def test_every_attempt_has_the_same_bytes_whichever_engine_makes_it(world: World) -> None:
    await order_paid(world, v=AMOUNT)
    await world.endpoint(
        "/a", "500,500,200", payload_version="v", retry_schedule_seconds=[0.01, 60]
    )
    await world.emit(TYPE, '{"amount_cents": 333, "z": 1, "a": {"b": [1, 2.50]}}')
    async with world.engine():
        await world.until(
            "select coalesce(bool_and(due_at > now() + interval '30 s'), false)"
            " from aetherflow.deliveries"
        )
    await world.make_due()
    await world.deliver()
    bodies = [request.body for request in world.receiver.at("/a")]
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert came(world, "/a")[0] == {"amount": 3.33, "z": 1, "a": {"b": [1, 2.5]}}


async def test_data_that_makes_no_version_fails_alone_and_leaves_its_endpoint_alone(
    world: World,
) -> None:
    await order_paid(world, v=AMOUNT)
    endpoint = await world.endpoint("/a", payload_version="v", retry_schedule_seconds=[0.01])
    await world.endpoint("/b")
    bad = [
        await world.emit(TYPE, data)
        for data in (
            '{"amount_cents": "canary"}',
            "{}",
            '{"amount_cents": 1e200000}',
            '{"amount_cents": 1e131071}',
            '{"amount_cents": 1, "all": [1e-16000]}',
            f'{{"amount_cents": 1, "all": [0{", 0e-16383" * 101}]}}',
        )
    ]
    for n in range(1, 6):
        await world.emit(TYPE, f'{{"amount_cents": {n}00}}')
    await world.deliver()
    assert sorted(data["amount"] for data in came(world, "/a")) == [1, 2, 3, 4, 5]
    assert len(came(world, "/b")) == len(bad) + 5
    rows = await world.rows(
        "select event_id, attempt, outcome, verdict, error, status from aetherflow.attempts"
        " where endpoint_id = $1 and verdict <> 'delivered' order by event_id, attempt",
        endpoint["id"],
    )
    assert [(row["event_id"], row["attempt"]) for row in rows] == [
        (event_id, attempt) for event_id in bad for attempt in (1, 2)
    ]
    assert {(row["outcome"], row["status"]) for row in rows} == {("not_reached", None)}
    start = "the data cannot be made into version v: "
    assert [row["error"] for row in rows[::2]] == [
        start + "the expression of v fails (22P02)",
        start + "the expression of v gives nothing and not an object",
        start + "jsonb cannot hold it (22003)",
        *[start + "it has numbers of over 300 digits"] * 3,
    ]
    assert await world.value("select count(*) from aetherflow.dead where reason = 'exhausted'") == 6
    assert (await show_endpoint(world.database, endpoint["id"]))["failing_since"] is None
    shown = await show_delivery(world.database, f"dlv_{bad[0][4:]}_{endpoint['id'][3:]}")
    assert "canary" in shown["request"]["body"]  # who may see the data is told all
    assert "canary" not in str(shown["history"])


async def test_an_expression_that_takes_too_long_keeps_nobody_waiting(world: World) -> None:
    slow = (
        "case when data ? 'slow' then jsonb_object(array['x',"
        " factorial((data->>'slow')::bigint)::text]) else data end"
    )
    await order_paid(world, v=slow)
    endpoint = await world.endpoint("/a", payload_version="v", retry_schedule_seconds=[])
    for data in ('{"n": 1}', '{"slow": 30000}', '{"n": 2}'):
        await world.emit(TYPE, data)
    await world.deliver()
    assert sorted(data["n"] for data in came(world, "/a")) == [1, 2]
    error = await world.value("select error from aetherflow.attempts where verdict = 'dead'")
    assert error == "the data cannot be made into version v: it took over 500 ms"
    with pytest.raises(InputRefused, match="took over 500 ms"):
        await made_version(world.database, TYPE, '{"slow": 30000}', "v")
    assert (await show_endpoint(world.database, endpoint["id"]))["failing_since"] is None


async def test_what_postgres_does_not_break_off_is_cut(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search for what nearly stands everywhere looks at no interrupt."""
    monkeypatch.setattr(versions, "MAKING_MILLISECONDS", 100)
    monkeypatch.setattr(database, "CUT_SECONDS", 0.1)
    replaced = "jsonb_object(array['x', replace(data->>'in', data->>'what', '')])"
    await order_paid(world)
    await world.connection.execute(
        "insert into aetherflow.payload_versions (type, version, expression) values ($1, 'v', $2)",
        TYPE,
        replaced,
    )
    await world.endpoint("/a", payload_version="v", retry_schedule_seconds=[])
    await world.emit(TYPE, json.dumps({"in": "a" * 90_000, "what": "b" + "a" * 45_000}))
    await world.emit(TYPE, '{"in": "abc", "what": "b"}')
    await world.deliver(database={"command_timeout_seconds": 1})
    assert came(world, "/a") == [{"x": "ac"}]
    error = await world.value("select error from aetherflow.attempts where verdict = 'dead'")
    assert "it took over" in error


async def test_those_for_which_there_was_no_time_come_soon(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody has to find them: a look for what was forgotten would come after five minutes."""
    monkeypatch.setattr(versions, "MAKING_MILLISECONDS", 50)
    monkeypatch.setattr(versions, "TURN_SECONDS", 0.12)
    slow = (
        "case when data ? 'slow' then jsonb_object(array['x',"
        " factorial((data->>'slow')::bigint)::text]) else data end"
    )
    await order_paid(world, v=slow)
    await world.endpoint("/a", payload_version="v", retry_schedule_seconds=[])
    await world.endpoint("/warm")
    async with world.engine(pace={"discover_seconds": 300}):
        await world.emit(TYPE, '{"n": 0}')
        await world.settled()
        for data in (*['{"slow": 30000}'] * 6, '{"n": 1}'):
            await world.emit(TYPE, data)
        await world.settled()
    assert [data["n"] for data in came(world, "/a")] == [0, 1]
    assert await world.value("select count(*) from aetherflow.dead") == 6


async def test_who_waits_for_a_lock_is_charged_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(versions, "MAKING_MILLISECONDS", 50)
    await order_paid(world, v=AMOUNT)
    await world.endpoint("/a", payload_version="v", retry_schedule_seconds=[])
    waits = (
        "select virtualtransaction from pg_locks"
        " where not granted and relation = 'aetherflow.payload_versions'::regclass"
    )
    await world.emit(TYPE, '{"amount_cents": 100}')
    holder = await asyncpg.connect(world.dsn)
    waited: set[str] = set()
    async with holder.transaction():
        await holder.execute("lock table aetherflow.payload_versions")
        async with world.engine():
            while len(waited) < 3:
                waited |= {row[0] for row in await world.rows(waits)}
                await asyncio.sleep(0.01)
            await holder.execute("rollback; begin")
            await world.settled()
    await holder.close()
    assert came(world, "/a") == [{"amount": 1}]
    assert await world.value("select count(*) from aetherflow.attempts") == 1


async def test_who_asks_for_a_version_never_gets_what_was_emitted(world: World) -> None:
    """Nor at once, as fan-out leases for endpoints that have no work."""
    await order_paid(world, v=AMOUNT)
    await world.endpoint("/a", payload_version="v")
    async with world.engine():
        for _ in range(20):
            await world.emit(TYPE, '{"amount_cents": 100}')
            await world.settled()
    assert came(world, "/a") == [{"amount": 1}] * 20


async def test_a_change_of_versions_holds_while_an_engine_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert versions.MADE_SECONDS <= 5
    monkeypatch.setattr(versions, "MADE_SECONDS", 0)
    await order_paid(world, v=AMOUNT)
    await world.endpoint("/a", "500,200", payload_version="v", retry_schedule_seconds=[3_600])
    async with world.engine():
        await world.emit(TYPE, '{"amount_cents": 100}')
        await world.until("select exists (select from aetherflow.attempts)")
        await delete_version(world.database, TYPE, "v")
        await world.until("select bool_and(leased_until < now()) from aetherflow.deliveries")
        await world.make_due()
        await world.settled()
    assert came(world, "/a") == [{"amount": 1}, {"amount_cents": 100}]


async def test_what_becomes_too_large_is_refused(world: World) -> None:
    large = "jsonb_object(array['x', repeat('a', (data->>'n')::integer)])"
    await add_event_type(world.database, TYPE, example='{"n": 1}')
    await add_version(world.database, TYPE, "v", large)
    assert await made_version(world.database, TYPE, '{"n": 2}', "v") == '{"x": "aa"}'
    with pytest.raises(InputRefused, match="over 16 MiB"):
        await made_version(world.database, TYPE, '{"n": 16777216}', "v")


async def test_there_are_only_so_many(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aetherflow_hooks.manage.versions.VERSIONS_MAX", 2)
    await order_paid(world, a="data", b="data")
    assert "has 2 versions" in await refused(world, "data", "c")


async def test_a_type_that_is_deleted_leaves_no_version(world: World) -> None:
    async def both(n: int) -> None:
        await add_event_type(world.database, f"t.{n}", example="{}")
        await asyncio.gather(
            add_version(world.database, f"t.{n}", "v", "data"),
            delete_event_type(world.database, f"t.{n}"),
            return_exceptions=True,
        )

    for n in range(20):
        await both(n)
    orphans = (
        "select count(*) from aetherflow.payload_versions v"
        " where not exists (select from aetherflow.event_types t where t.type = v.type)"
    )
    assert await world.value(orphans) == 0


async def test_orders_replays_and_retries_by_hand_go_by_the_version(world: World) -> None:
    await order_paid(world, v=AMOUNT)
    own = await world.endpoint("/a", payload_version="v", ordering="block")
    ids = [
        await world.emit(TYPE, f'{{"amount_cents": {n}00}}', ordering_key="k") for n in range(1, 4)
    ]
    async with world.engine():
        await world.settled()
        assert [data["amount"] for data in came(world, "/a")] == [1, 2, 3]
        await retry_delivery(world.database, f"dlv_{ids[1][4:]}_{own['id'][3:]}")
        await world.until("select count(*) = 4 from aetherflow.attempts")
        await start_replay(world.database, NewReplay(endpoint_id=own["id"]))
        await world.until("select bool_and(state = 'done') from aetherflow.replays")
        await world.settled()
    assert len(came(world, "/a")) == 7
    assert all(set(data) == {"amount"} for data in came(world, "/a"))


async def test_a_pin_is_changed_while_engines_run(world: World) -> None:
    await order_paid(world, v=AMOUNT)
    own = (await world.endpoint("/a"))["id"]
    async with world.engine():
        for pin in (None, "v", None):
            changed = await world.change(own, payload_version=pin)
            assert changed["payload_version"] == pin
            await world.emit(TYPE, '{"amount_cents": 100}')
            await world.settled()
    assert [list(data) for data in came(world, "/a")] == [
        ["amount_cents"],
        ["amount"],
        ["amount_cents"],
    ]


async def test_a_version_that_is_deleted_is_not_made_any_more(world: World) -> None:
    await order_paid(world, v1="data || '{\"v\": 1}'", v2="data || '{\"v\": 2}'")
    await world.endpoint("/a", payload_version="v1")
    for left in (1, 2, None):
        await world.emit(TYPE, "{}")
        await world.deliver()
        assert came(world, "/a")[-1].get("v") == left
        if left:
            await delete_version(world.database, TYPE, f"v{left}")
    assert await list_versions(world.database, TYPE) == []
    with pytest.raises(NotFound, match=r"order\.paid@v1"):
        await delete_version(world.database, TYPE, "v1")


async def test_versions_are_kept_in_a_row_that_grows_and_shrinks_at_its_ends(
    world: World,
) -> None:
    await order_paid(world, **dict.fromkeys(("b", "d", "f"), "data"))
    assert "would come between b and f" in await refused(world, "data", "c")
    assert "a version d already" in await refused(world, "data - 'x'", "d")
    with pytest.raises(InputRefused, match="d is between b and f"):
        await delete_version(world.database, TYPE, "d")
    await add_version(world.database, TYPE, "a", "data")
    for name in ("a", "f", "d"):
        await delete_version(world.database, TYPE, name)
    assert [row["version"] for row in await list_versions(world.database, TYPE)] == ["b"]
    # The names are texts: digits, then capitals, then small letters.
    await delete_version(world.database, TYPE, "b")
    for name in ("2024-06-01", "Z", "a"):
        await add_version(world.database, TYPE, name, "data")
    assert (await show_event_type(world.database, TYPE))["versions"] == ["2024-06-01", "Z", "a"]
    with pytest.raises(InputRefused, match="has versions"):
        await delete_event_type(world.database, TYPE)


async def test_a_new_version_that_breaks_the_way_to_an_old_one_is_refused(world: World) -> None:
    await order_paid(world, v1=AMOUNT)
    told = await refused(world, "data - 'amount_cents'", "v2")
    assert told == (
        "the data cannot be made into version v1: the expression of v1 gives nothing and not an"
        " object"
    )
    assert (await show_event_type(world.database, TYPE))["versions"] == ["v1"]


async def test_two_who_register_at_once_do_not_miss_each_other(world: World) -> None:
    await order_paid(world)
    done = await asyncio.gather(
        *(add_version(world.database, TYPE, "v", f"data || '{{\"n\": {n}}}'") for n in range(6)),
        return_exceptions=True,
    )
    assert sum(isinstance(it, dict) for it in done) == 1
    assert sum(isinstance(it, InputRefused) for it in done) == 5


HOSTILE = {
    "now()::text::jsonb": "not immutable",
    "data || jsonb_build_object('a', 1)": "not immutable.*jsonb_set",
    "jsonb_set(data, '{r}', random()::text::jsonb)": "not immutable",
    "jsonb_set(data, '{u}', jsonb_object(array['a', current_user::text]))": "not immutable",
    "jsonb_object(array['a', current_setting('data_directory')])": "not immutable",
    "jsonb_object(array['a', pg_read_file('/etc/passwd')])": "not immutable",
    "jsonb_object(array['a', clock_timestamp()::text])": "not immutable",
    "jsonb_object(array['a', (data->>'t')::timestamptz::text])": "not immutable",
    "jsonb_object(array['a', set_config('x.y', 'z', false)])": "not immutable",
    "jsonb_object(array['a', nextval('aetherflow.audit_id_seq')::text])": "not immutable",
    "(select data)": "subquery",
    "(select jsonb_agg(value) from aetherflow.secrets)": "subquery",
    "data || (table aetherflow.secrets)": "syntax error|subquery",
    "endpoints.id": "missing FROM-clause",
    "made": "generated column",
    "version_trial": "whole-row|does not exist|type",
    "tableoid::text::jsonb": "tableoid|does not exist|fails",
    "jsonb_agg(data)": "aggregate",
    "jsonb_path_query(data, '$')": "set-returning",
    "lag(data) over ()": "window",
    "data) stored, x int": r"a \) without its \(",
    "data) stored); drop table aetherflow.secrets": r"semicolon",
    "data) stored) as select (data": r"a \) without its \(",
    "(data": "not closed",
    "data[(0]": r"without its \[|without its \(",
    "data -- x": "comment",
    "data /* x": "comment",
    "data */ x": "comment",
    "data; select 1": "semicolon",
    "data || $$ {} $$": r"\$ outside",
    "$1": r"\$ outside",
    "data || '{}": "quote",
    'data || "x': "quote",
    "data || E'\\''": "backslash",
    "data || U&'\\0027'": "backslash",
    "data || '\x00'": "cannot be seen",
    "data ||\u00a0data": "cannot be seen",
    "data || é": "ASCII",
    "data, data": "syntax error",
    "data as x": "syntax error",
    "data default data": "syntax error",
    "": "1 to 4,000 characters",
    " ": "syntax error",
    "data" + " " * 4_000: "1 to 4,000 characters",
    "(" * 1_999 + "data" + ")" * 1_997: "not closed",
    "data->>'id'": "is of type jsonb",
    "data->'id'": "gives string and not an object",
    "data->'nothing'": "gives nothing and not an object",
    "'[]'::jsonb": "gives array and not an object",
    "jsonb_set(data, '{a}', (1 / (data->>'zero')::int)::text::jsonb)": "gives nothing",
    "jsonb_set(data, '{a}', (1 / (data->>'amount_cents' = '')::int)::text::jsonb)": "22012",
    "nothing(data)": "does not exist",
    "public.pure(data)": "that Postgres comes with",
    "public.wild(data)": "not immutable",
    "public.reads(data)": "that Postgres comes with",
    "data operator(public.<+>) data": "that Postgres comes with",
    "data::text::public.own::text::jsonb": "that Postgres comes with",
    "jsonb_object(array['a', (data->>'id') collate public.mine])": "that Postgres comes with",
    "('\"pg_class\"'::regclass::oid)::text::jsonb": "not an object|not immutable|gives number",
    "repeat('x', 1000000000)::jsonb": "invalid|memory|limit|fails|too large|refused",
}


async def test_only_pure_expressions_are_taken_and_nothing_gets_out_of_one(world: World) -> None:
    await order_paid(world)
    await world.connection.execute(
        """
        create function public.pure(data jsonb) returns jsonb immutable language sql return data;
        create function public.wild(data jsonb) returns jsonb volatile language plpgsql
        as $$ begin return data; end $$;
        create function public.reads(data jsonb) returns jsonb immutable language plpgsql
        as $$ begin return (select json_agg(secret) from aetherflow.secrets); end $$;
        create operator public.<+> (leftarg = jsonb, rightarg = jsonb, function = jsonb_concat);
        create domain public.own as text;
        create collation public.mine from "C";
        """
    )
    before = await world.value("select count(*) from pg_class")
    wrong = []
    for expression, why in HOSTILE.items():
        told = await refused(world, expression)
        if not re.search(why, told):
            wrong.append((expression[:80], told))
    assert wrong == []
    assert await world.value("select count(*) from pg_class") == before
    assert (await show_event_type(world.database, TYPE))["versions"] == []
    assert (await list_changes(world.database, subject=f"{TYPE}@v")).rows == []


TAKEN = {
    "data": {"id": "o1", "amount_cents": 1250},
    "data - 'id' - 'amount_cents'": {},
    "data || jsonb_object(array['semi;colon', '--', '$1', '/*', 'it''s', ')('])": {
        **json.loads(EXAMPLE),
        "semi;colon": "--",
        "$1": "/*",
        "it's": ")(",
    },
    "case when data ? 'amount' then data\n\telse jsonb_set(data, '{amount}', '1') end": {
        **json.loads(EXAMPLE),
        "amount": 1,
    },
    "jsonb_object(array['first', split_part(data->>'id', 'o', 2), 'é', 'ü'])": {
        "first": "1",
        "é": "ü",
    },
    "jsonb_set('{}', '{order}', data)": {"order": json.loads(EXAMPLE)},
    "jsonb_set('{}', '{all}', jsonb_path_query_array(data, '$.*'))": {"all": ["o1", 1250]},
}


async def test_what_is_pure_is_taken_and_shown_as_postgres_writes_it(world: World) -> None:
    await order_paid(world)
    for expression, expected in TAKEN.items():
        added = await add_version(world.database, TYPE, "v", expression)
        assert json.loads(added["made"]) == expected, expression
        (listed,) = await list_versions(world.database, TYPE)
        assert listed == {name: value for name, value in added.items() if name != "made"}
        await delete_version(world.database, TYPE, "v")
        again = await add_version(world.database, TYPE, "v", listed["expression"])
        assert (again["expression"], again["made"]) == (listed["expression"], added["made"])
        await delete_version(world.database, TYPE, "v")


async def test_it_needs_an_example_a_type_and_a_name(world: World) -> None:
    await order_paid(world)
    await change_event_type(world.database, TYPE, {"example": None})
    assert "no example" in await refused(world, "data")
    for name in ("", "a b", "é", "x" * 65, "v\n"):
        assert "is no version" in await refused(world, "data", name)
        with pytest.raises(InputRefused, match="is no version"):
            await world.endpoint(payload_version=name)
    for event_type in ("not.there", "a b"):
        with pytest.raises(NotFound):
            await add_version(world.database, event_type, "v", "data")
        with pytest.raises(NotFound):
            await list_versions(world.database, event_type)
    # AetherFlow's own types can have versions too.
    await add_version(world.database, "user.joined", "v", "data - 'user'")


async def test_what_was_registered_and_deleted_is_on_record(world: World) -> None:
    await order_paid(world)
    database: Database = world.database.acting("cli:ada")
    added = await add_version(database, TYPE, "v", AMOUNT, description="Cents.")
    await delete_version(database, TYPE, "v")
    deleted, registered = (await list_changes(database, subject=f"{TYPE}@v")).rows
    assert (registered["action"], deleted["action"]) == ("version.add", "version.delete")
    assert registered["actor"] == "cli:ada"
    for side in (registered["after"], deleted["before"]):
        assert (side["expression"], side["description"]) == (added["expression"], "Cents.")
