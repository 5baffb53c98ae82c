"""Plans: by which way the statements of the flow reach their rows, whatever the tables hold."""

import re
from collections.abc import Iterator
from typing import Any

import orjson

from aetherflow_hooks.db.statements import SCHEMA, statements

# By statement: the indexes that it may walk, and the columns that its condition has to name, for
# the first ones alone would walk a backlog.
WALKS = {
    "find_events": {"outbox_pkey": "shard begun"},
    "fanout_events": {
        "outbox_pkey": "shard begun due_at",
        "subscriptions_pkey": "tenant pattern endpoint_id",
        "endpoints_pkey": "id",
        "endpoints_ordered": "tenant id",
        "endpoints_polled": "id",
        "events_pkey": "shard id",
    },
    "fanout_begun": {
        "outbox_pkey": "shard begun due_at",
        "subscriptions_pkey": "tenant pattern endpoint_id",
        "endpoints_pkey": "id",
        "events_pkey": "shard id",
    },
    "find_deliveries": {
        "deliveries_due": "shard",
        "deliveries_pkey": "shard",  # as good to hop along
        "endpoints_pkey": "id",
    },
    "lease_deliveries": {"endpoints_pkey": "id", "deliveries_due": "shard endpoint_id due_at"},
    "give_deliveries": {
        "endpoints_pkey": "id",
        "endpoints_polled": "id",  # as good
        "deliveries_due": "shard endpoint_id due_at",
        "events_pkey": "shard id",
    },
    "acknowledge_given": {"deliveries_due": "shard endpoint_id due_at"},
    "count_acknowledged": {"attempts_endpoint": "shard endpoint_id started_at"},
    "find_polled": {
        "endpoints_pkey": "id",
        "endpoints_polled": "id",
        "deliveries_due": "shard endpoint_id due_at",
    },
    "lease_ordered": {
        "deliveries_order": "shard endpoint_id ordering_key",
        "endpoints_pkey": "id",
    },
    "return_ordered": {
        "deliveries_pkey": "shard endpoint_id",
        "deliveries_due": "shard endpoint_id",
    },
    "load_endpoints": {
        "endpoints_pkey": "id",
        "secrets_pkey": "endpoint_id",
        "headers_pkey": "endpoint_id",
        "certificates_pkey": "endpoint_id",
        "attempts_endpoint": "shard endpoint_id started_at",
    },
    "note_failing": {"endpoints_pkey": "id"},
    "note_recovered": {"endpoints_pkey": "id"},
    "load_events": {"events_pkey": "shard id"},
    "load_versions": {"events_pkey": "shard id"},
    "record_delivered": {
        "deliveries_pkey": "shard endpoint_id event_id",
        # one of them, and only for results that come too late
        "attempts_endpoint": "shard endpoint_id started_at",
        "attempts_event": "event_id",
    },
    "record_attempts": {
        "deliveries_pkey": "shard endpoint_id event_id",
        "attempts_endpoint": "shard endpoint_id started_at",
        "attempts_event": "event_id",
        "endpoints_pkey": "id",
        "events_pkey": "shard id",  # likewise
    },
    "replay_step": {
        "replays_running": "due_at",
        "endpoints_pkey": "id",
        "dead_pkey": "shard endpoint_id event_id",
        "events_pkey": "shard id",
        "subscriptions_pkey": "tenant pattern endpoint_id",
        "outbox_pkey": "shard begun",
    },
    "write_tallies": {},
    "read_tallies": {"tallies_pkey": "shard subject starts_at"},
    "sum_tallies": {"tallies_pkey": "shard subject starts_at"},
    "merge_tallies": {"tallies_age": "shard span starts_at"},
    "purge_tallies": {"tallies_age": "shard span starts_at"},
    "return_deliveries": {"deliveries_pkey": "shard endpoint_id event_id"},
    "return_doubtful": {"deliveries_due": "shard endpoint_id due_at"},
    "expire_deliveries": {
        "deliveries_pkey": "shard",
        "deliveries_due": "shard",
    },
    "purge_deleted": {
        "deliveries_pkey": "shard endpoint_id",
        "deliveries_due": "shard endpoint_id",
        "endpoints_pkey": "id",
    },
}

ACCEPTED = {
    # Each pattern gives its endpoints in order and not too many; those of several are merged.
    "fanout_events": {"Sort of endpoints, subscriptions"},
    "fanout_begun": {"Sort of subscriptions"},
    # One endpoint's, which has one or two.
    "load_endpoints": {"Sort of secrets"},
    # Those that run are few; and with row security, what was looked at is sorted once more.
    "replay_step": {"Index Only Scan by all of replays_running", "Sort of events"},
    # Once a minute, and endpoints are few beside what waits for them.
    "purge_deleted": {"Seq Scan of endpoints"},
}

BY_INDEX = {"Index Scan", "Index Only Scan", "Bitmap Index Scan"}
GATHERING = {"Sort", "Incremental Sort", "Materialize", "Hash"}  # reads all before it gives any
# A Tid Scan has its place; what is below the others has the condition.
WITH_A_CONDITION = {"Tid Scan", "Bitmap Heap Scan", "ModifyTable"}


def parts(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Give a node of a plan and all below it."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from parts(part)


async def explain(connection: Any, name: str) -> dict[str, Any]:
    """Give the plan that a statement has whatever its values are."""
    count = await prepare(connection, name)
    text = await connection.fetchval(
        f"explain (format json) execute {name}({', '.join(['null'] * count)})"
    )
    await connection.execute(f"deallocate {name}")
    plan: dict[str, Any] = orjson.loads(text)[0]["Plan"]
    return plan


async def prepare(connection: Any, name: str) -> int:
    """Prepare a statement under its name, with what types Postgres finds, as the driver does.

    EXPLAIN has the plan for all values of a prepared statement only, before Postgres 16.
    """
    sql = statements(SCHEMA)[name]
    await connection.execute(f"prepare {name} as {sql}")
    return len((await connection.prepare(sql)).get_parameters())


async def wholes(connection: Any) -> dict[str, str]:
    """Give the name of the whole for each partition and for each index of one."""
    return dict(
        await connection.fetch(
            "select part.relname, whole.relname from pg_inherits i"
            " join pg_class part on part.oid = i.inhrelid"
            " join pg_class whole on whole.oid = i.inhparent"
        )
    )


async def detours(connection: Any, name: str) -> set[str]:
    """Name what a statement's plan does beside walking its indexes as it should."""
    plan = await explain(connection, name)
    found = set(_detours(plan, WALKS[name], await wholes(connection)))
    return found - ACCEPTED.get(name, set())


def _detours(
    plan: dict[str, Any], walks: dict[str, str], whole: dict[str, str], above: str = ""
) -> Iterator[str]:
    node = plan["Node Type"]
    tables = {
        whole.get(part["Relation Name"], part["Relation Name"])
        for part in parts(plan)
        if "Relation Name" in part
    }
    if node in BY_INDEX:
        index = whole.get(plan["Index Name"], plan["Index Name"])
        problem = _problem_of_index(plan, walks.get(index), above)
        if problem:
            yield f"{node} by {problem.format(index)}"
    elif (node in GATHERING and tables) or (
        "Relation Name" in plan and node not in WITH_A_CONDITION
    ):
        yield f"{node} of {', '.join(sorted(tables))}"
    for part in plan.get("Plans", ()):
        yield from _detours(part, walks, whole, node)


def _problem_of_index(scan: dict[str, Any], wanted: str | None, above: str) -> str | None:
    condition = scan.get("Index Cond", "")
    columns = re.findall(r"\((\w+) [<=>]+ ", condition)
    for row in re.findall(r"\(ROW\(([\w, ]+)\) [<=>]+ ", condition):
        columns += row.split(", ")
    if wanted is None:
        return "{}"
    if not columns:
        return "all of {}"
    if not set(columns) >= set(wanted.split()):
        return f"{{}} for {', '.join(sorted(set(columns)))} alone"
    # The first row of a shard is found as fast as any, but there must be no need for a second.
    if set(columns) == {"shard"} and (above != "Limit" or "Filter" in scan):
        return "{} through a whole shard"
    return None


def pages_touched(plan: dict[str, Any]) -> int:
    """Give the number of pages that an EXPLAIN (ANALYZE, BUFFERS) saw read, once for each time."""
    read = {part.get("CTE Name") for part in parts(plan)}
    # A change whose rows nobody reads is made after all else, and not counted with it.
    roots = [plan]
    for part in parts(plan):
        cte = part.get("Subplan Name", "").partition("CTE ")[2]
        if cte and cte not in read:
            roots.append(part)
    return sum(root["Shared Hit Blocks"] + root["Shared Read Blocks"] for root in roots)


# A bad day: a million deliveries for 10,000 endpoints, of which one per shard is far behind. A
# third is due tomorrow, some are on lease, and 200,000 events are still to be fanned out. Of events
# and attempts there are fewer, which is the same to a plan. Rows lie in the order of their events.
EMITTED = """
create temp table emitted as
select n, aetherflow.shard_of(id) as shard, id, moment
from (
    select n, moment, aetherflow.event_id_at(moment) || left(md5('event' || n), 11) as id
    from (
        select n, now() - (200000 - n) * interval '0.1 s' as moment
        from generate_series(1, 200000) n
    ) m
    offset 0  -- an id is made once, and its shard from it
) i
"""
DELIVERIES = """
insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, leased_until,
                                   lease_token, attempt)
select e.shard, v.shard, e.id, v.id,
       v.moment + case when (v.n + copy) % 3 = 0 then interval '1 day' else '0' end,
       case when leased then now() + interval '1 minute' else '-infinity' end,
       leased::integer, leased::integer
from emitted v
cross join generate_series(0, 4) copy
cross join lateral (select (v.n + copy) % 50 = 0 as leased) l
join (
    select id, shard, row_number() over (order by place, id) - 1 as n
    from (
        select id, shard, row_number() over (partition by shard order by id) as place
        from aetherflow.endpoints
    ) p
) e on e.n = case copy when 0 then v.n % 16 else 16 + (v.n * 7 + copy * 2003) % 9984 end
order by v.n
"""
OTHERS = """
insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)
select shard, id, '', 'type.' || n % 1000, '{}', moment from emitted where n % 4 = 0;

insert into aetherflow.outbox (shard, due_at, event_id, tenant, type)
select shard, moment + n % 2 * interval '1 hour', id, '', 'type.' || n % 1000 from emitted;

insert into aetherflow.tallies
select shard, span, date_trunc('hour', now()) - ago * interval '1 minute', 0, id,
       1, 1, 0, 0, 0, 0, 0, 0, 0, 0, '{9}', '{1}'
from aetherflow.endpoints,
     (values (60, 1), (60, 2), (60, 4000), (3600, 4020), (3600, 60000)) m (span, ago);

insert into aetherflow.attempts (shard, attempt, status, endpoint_id, event_id, started_at,
                                 duration_ms, outcome, verdict)
select shard, 1, 500, endpoint_id, event_id,
       date_trunc('day', now()) + (random() * 3 - 1) * interval '1 day', 5, 'answered', 'retry'
from aetherflow.deliveries limit 50000;
"""
ENDPOINTS = """
insert into aetherflow.endpoints (id, shard, url, state)
select id, aetherflow.shard_of(id), 'https://example.com/',
       case when n % 100 = 0 then 'paused' else 'active' end
from generate_series(1, 10000) n
cross join lateral (select 'ep_' || left(md5('endpoint' || n), 12) as id) i;

insert into aetherflow.secrets (endpoint_id, secret) select id, 's' from aetherflow.endpoints;

insert into aetherflow.subscriptions (tenant, pattern, endpoint_id)
select '', case when n % 100 = 0 then '*' else 'type.' || n % 1000 end, id
from (select id, row_number() over (order by id) as n from aetherflow.endpoints) e;
"""
INDEXES = """
select format('alter table aetherflow.deliveries drop constraint %I', conname) as dropping,
       format('alter table aetherflow.deliveries add constraint %I %s', conname,
              pg_get_constraintdef(oid)) as making
from pg_constraint where conrelid = 'aetherflow.deliveries'::regclass and conindid <> 0
union all
select format('drop index aetherflow.%I', c.relname), pg_get_indexdef(c.oid)
from pg_index i join pg_class c on c.oid = i.indexrelid
where i.indrelid = 'aetherflow.deliveries'::regclass and not i.indisprimary
"""


async def fill_with_a_million(connection: Any) -> None:
    """Fill a migrated database with much that waits, and let Postgres count it."""
    await connection.execute("set work_mem = '256MB'; set maintenance_work_mem = '256MB'")
    await connection.execute(ENDPOINTS)
    await connection.execute(EMITTED)
    # Made after the rows, the indexes take a third of the time.
    indexes = await connection.fetch(INDEXES)
    for index in indexes:
        await connection.execute(index["dropping"])
    await connection.execute(DELIVERIES)
    for index in indexes:
        await connection.execute(index["making"])
    await connection.execute(OTHERS)
    await connection.execute("analyze")
