"""The statements: each file is what its head says, is used, and walks the index that it names."""

import ast
import asyncio
import re
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg
import orjson
import pytest

import aetherflow_hooks
from aetherflow_hooks.db.connections import FLOW_OPTIONS, connect_options
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from tests.conftest import make_database, settings_for
from tests.contract.plans import (
    WALKS,
    detours,
    explain,
    fill_with_a_million,
    pages_touched,
    parts,
    prepare,
    wholes,
)

PACKAGE = Path(aetherflow_hooks.__file__).parent
FILES = {
    file.name.removesuffix(".sql"): file.read_text(encoding="utf-8")
    for file in (files("aetherflow_hooks.db") / "sql").iterdir()
}
HOT = (
    "fanout_begun",
    "fanout_events",
    "find_deliveries",
    "lease_deliveries",
    "return_deliveries",
    "return_doubtful",
    "record_delivered",
    "record_attempts",
)
HEAD = re.compile(
    r"-- (?P<name>[a-z_]+): [^\n]+\.\n"
    r"(?P<takes>(?:--   \$\d+ [a-z][a-z0-9_]* [a-z ]+(?:\[\])?\n)*)"
    r"-- returns (?P<returns>[a-z0-9_]+(?:, [a-z0-9_]+)*)\n"
    r"(?:-- walks (?P<walks>[a-z_]+(?:, [a-z_]+)*)\n)?"
    r"(?:--\n(?:-- [^\n]+\n)+)?"
    r"(?=[a-z(])"  # the statement itself
)
SHORT = {  # what Postgres calls inside what people write
    "bool": "boolean",
    "float8": "double precision",
    "int2": "smallint",
    "int4": "integer",
    "int8": "bigint",
}


class Head(NamedTuple):
    name: str
    takes: list[str]  # the types, $1 first
    returns: list[str]
    walks: list[str]


def head_of(text: str) -> Head:
    found = HEAD.match(text)
    assert found, text[:300]
    takes = [line.split(maxsplit=3)[1:] for line in found["takes"].splitlines()]
    assert [number for number, _, _ in takes] == [f"${n}" for n in range(1, len(takes) + 1)]
    assert len({name for _, name, _ in takes}) == len(takes)
    return Head(
        found["name"],
        [type_ for _, _, type_ in takes],
        found["returns"].split(", "),
        found["walks"].split(", ") if found["walks"] else [],
    )


def written(type_: str) -> str:
    """Give a type as people write it."""
    base, array, _ = type_.partition("[]")
    return SHORT.get(base, base) + array


each_file = pytest.mark.parametrize("name", sorted(FILES))


@each_file
def test_a_file_begins_with_a_head_of_its_name(name: str) -> None:
    assert head_of(FILES[name]).name == name


@each_file
def test_a_file_holds_one_statement(name: str) -> None:
    assert ";" not in re.sub(r"--.*", "", FILES[name])
    assert FILES[name].endswith("\n")


async def test_postgres_takes_and_gives_what_the_heads_say(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    found, said = {}, {}
    for name, text in FILES.items():
        statement = await connection.prepare(text)
        found[name] = (
            [written(parameter.name) for parameter in statement.get_parameters()],
            [attribute.name for attribute in statement.get_attributes()],
        )
        head = head_of(text)
        said[name] = (head.takes, head.returns)
    await connection.close()
    assert found == said


def named_in_python() -> Iterator[str]:
    """Give the statements that the package runs, as it names them."""
    nodes = [
        node
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
    ]
    runs = {  # Database.rows, Database.value and whatever hands a name on to them
        node.name
        for node in nodes
        if isinstance(node, ast.AsyncFunctionDef)
        and "statement" in {argument.arg for argument in node.args.args}
    }
    for node in nodes:
        match node:
            case ast.Call(
                func=ast.Attribute(attr=attr), args=[ast.Constant(value=str(name)), *_]
            ) if attr in runs:
                yield name
            case ast.Subscript(
                value=ast.Name(id="prepared") | ast.Call(func=ast.Name(id="statements")),
                slice=ast.Constant(value=str(name)),
            ):
                yield name


def test_every_statement_is_run_and_everything_run_is_a_statement() -> None:
    assert set(named_in_python()) == set(FILES)


@pytest.mark.parametrize("name", HOT)
def test_a_hot_statement_names_one_shard(name: str) -> None:
    sql = " ".join(re.sub(r"--.*", "", FILES[name]).split())
    assert head_of(FILES[name]).takes[0] == "smallint"
    assert re.search(r"\bshard = \$1\b", sql)
    assert not re.search(r"any ?\( ?\$1\b", sql)
    # Each mention of a table of a shard's says which one.
    tables = re.findall(r"\b(?:from|using|update|join) aetherflow\.(?:outbox|deliveries)\b", sql)
    assert tables
    assert len(re.findall(r"\bshard = \$1\b", sql)) >= len(tables)


# A few hundred endpoints, a few thousand rows of everything that waits: enough for the planner to
# prefer an index where one fits, and little enough to be there in a second.
FILL = """
insert into aetherflow.endpoints (id, shard, url)
select id, aetherflow.shard_of(id), 'https://example.com/'
from (select 'ep_' || left(md5('endpoint' || n), 12) as id from generate_series(1, 300) n) e;

insert into aetherflow.subscriptions (tenant, pattern, endpoint_id)
select '', case when n % 3 = 0 then '*' else 'a.' || n end, id
from (select id, row_number() over (order by id) as n from aetherflow.endpoints) e;

insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)
select aetherflow.shard_of(id), id, '', 'a.b', '{}', now()
from (
    select aetherflow.event_id_at(now() - n * interval '1 ms') || left(md5('event' || n), 11) as id
    from generate_series(1, 4000) n
) e;

insert into aetherflow.outbox (shard, due_at, event_id, tenant, type)
select shard, emitted_at, id, tenant, type from aetherflow.events;

insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)
select e.shard, v.shard, e.id, v.id, now() + (random() - 0.5) * interval '1 hour'
from (select id, shard, row_number() over (order by id) as n from aetherflow.endpoints) e
join (select id, shard, row_number() over (order by id) as n from aetherflow.events) v
  on v.n % 15 = e.n % 15 and v.n <= 1200;

insert into aetherflow.dead (shard, endpoint_id, event_id, event_shard, attempts, reason, died_at)
select shard, endpoint_id, event_id, event_shard, 4, 'exhausted', due_at from aetherflow.deliveries
limit 4000;

insert into aetherflow.idempotency_keys (shard, tenant, key, event_id)
select aetherflow.shard_of(md5(id)), '', id, id from aetherflow.events;
"""


async def test_case_81_statements_walk_the_indexes_that_they_name(dsn: str) -> None:
    options = connect_options(settings_for(dsn).database, FLOW_OPTIONS)  # as the engine connects
    connection = await asyncpg.connect(dsn, **options)
    await connection.execute(FILL)
    await connection.execute("analyze")
    await connection.execute("set plan_cache_mode = force_generic_plan")
    waiting = await connection.fetchval("select count(*) from aetherflow.deliveries")
    whole = await wholes(connection)
    named = {name: set(head_of(text).walks) for name, text in FILES.items() if "-- walks" in text}
    plans = {name: list(parts(await explain(connection, name))) for name in named}
    await connection.close()
    assert waiting > 5000
    missing = {}
    for name, plan in plans.items():
        walked = {part["Index Name"] for part in plan if "Index Name" in part}
        missing[name] = named[name] - {whole.get(index, index) for index in walked}
    assert missing == {name: set() for name in named}
    for name in ("lease_deliveries", "find_events", "record_attempts"):
        scanned = [part["Relation Name"] for part in plans[name] if part["Node Type"] == "Seq Scan"]
        assert not [it for it in scanned if it.startswith(("deliveries", "outbox", "events"))], name
    for name in (
        "lease_deliveries",
        "find_events",
        "fanout_events",
        "fanout_begun",
        "return_doubtful",
    ):
        assert sorts_of_what_waits(plans[name]) == [], name


def sorts_of_what_waits(plan: list[dict[str, Any]]) -> list[str]:
    """Name the sorts of rows that wait: their index gives them in order already."""
    return [
        str(part["Sort Key"])
        for part in plan
        if part["Node Type"] in {"Sort", "Incremental Sort"}
        and any(below.get("Relation Name") in {"deliveries", "outbox"} for below in parts(part))
    ]


@pytest.fixture(scope="module")
def full_dsn(server: EmbeddedPostgres) -> Iterator[str]:
    """A migrated database with a million deliveries, which Postgres has counted."""

    async def make() -> str:
        admin = await asyncpg.connect(server.dsn())
        name = await make_database(admin, "template_hooks")
        await admin.close()
        connection = await asyncpg.connect(server.dsn(name))
        await fill_with_a_million(connection)
        waiting = await connection.fetchval("select count(*) from aetherflow.deliveries")
        await connection.close()
        assert waiting == 1_000_000
        return name

    async def drop(name: str) -> None:
        admin = await asyncpg.connect(server.dsn())
        await admin.execute(f"drop database {name} with (force)")
        await admin.close()

    name = asyncio.run(make())
    yield server.dsn(name)
    asyncio.run(drop(name))


async def connect_as_the_flow(dsn: str) -> Any:
    return await asyncpg.connect(dsn, **connect_options(settings_for(dsn).database, FLOW_OPTIONS))


@pytest.mark.parametrize("name", sorted(WALKS))
async def test_a_statement_goes_straight_to_its_rows_in_a_million(full_dsn: str, name: str) -> None:
    connection = await connect_as_the_flow(full_dsn)
    found = await detours(connection, name)
    await connection.close()
    assert found == set()


async def test_row_security_leads_an_engine_no_other_way(full_dsn: str) -> None:
    connection = await connect_as_the_flow(full_dsn)
    await connection.execute("select aetherflow.make_roles(row_security => true)")
    try:
        await connection.execute("set role aetherflow_engine")
        found = {name: await detours(connection, name) for name in WALKS}
        assert not any(found.values()), found
    finally:
        await connection.execute("reset role; select aetherflow.make_roles()")
        await connection.close()


# Rows that Postgres keeps for an old snapshot, and which it knows to be no rows any more.
GONE = """
insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)
select n % 16, 0, 'ep_' || left(md5((n % 100)::text), 12),
       aetherflow.event_id_at(now() + n * interval '1 ms') || left(md5(n::text), 11), now()
from generate_series(1, 4000) n;
delete from aetherflow.deliveries;
analyze aetherflow.deliveries;
"""


async def test_a_statement_goes_straight_to_its_rows_past_those_that_are_gone(dsn: str) -> None:
    """The indexes grow at different paces, and sometimes one has a level less than the other."""
    old, flow = await asyncpg.connect(dsn), await connect_as_the_flow(dsn)
    sorting = await connect_as_the_flow(dsn)
    await sorting.execute("set enable_sort = on")
    found, without = set(), set()
    async with old.transaction(isolation="repeatable_read"):
        await old.fetchval("select 1")
        for _ in range(10):
            await flow.execute(GONE)
            for name in WALKS:
                found |= await detours(flow, name)
            without |= await detours(sorting, "record_delivered")
    for connection in (old, flow, sorting):
        await connection.close()
    assert found == set()
    assert "Index Scan by deliveries_due" in without  # so there was a time to take the wrong one


# What a statement is run for, as it stands in EXECUTE's parentheses; its rows; and how many pages
# it may touch for each, which is twice what it does. To walk an endpoint's backlog takes more.
PAGES_MAX = [
    (
        "lease_deliveries",
        """select format('3, %L, %L, %L, 30, 20, 7', array_agg(id), array_agg(5), array_agg(1e9))
           from (select id from aetherflow.endpoints where shard = 3 and state = 'active'
                 order by id limit 100) e""",
        500,
        12,
    ),
    (
        "record_delivered",
        """select format('3, %L, %L, %L, %L, %L, %L, %L', array_agg(endpoint_id),
                         array_agg(event_id), array_agg(lease_token), array_agg(attempt),
                         array_agg(200),
                         array_agg((extract(epoch from now()) * 1000000)::bigint), array_agg(5))
           from (select * from aetherflow.deliveries where shard = 3 and lease_token = 1
                 order by md5(event_id) limit 500) d""",
        500,
        25,
    ),
    ("find_deliveries", "select $$3, '', 1000$$", 606, 27),
]


@pytest.mark.parametrize(("name", "values", "rows", "pages_max"), PAGES_MAX)
async def test_a_statement_touches_few_pages_for_each_row(
    full_dsn: str, name: str, values: str, rows: int, pages_max: int
) -> None:
    connection = await connect_as_the_flow(full_dsn)
    call = await connection.fetchval(values)
    await prepare(connection, name)
    transaction = connection.transaction()
    await transaction.start()
    text = await connection.fetchval(
        f"explain (analyze, buffers, format json) execute {name}({call})"
    )
    await transaction.rollback()
    await connection.close()
    plan = orjson.loads(text)[0]["Plan"]
    done = [part for part in parts(plan) if part.get("Operation") in {"Update", "Delete"}] or [plan]
    assert [part["Actual Rows"] for part in done] == [rows]
    assert pages_touched(plan) <= rows * pages_max
