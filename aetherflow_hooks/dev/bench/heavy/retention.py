"""Retention: does a day of many rows that goes slow deliveries down, and how soon is it gone?"""

import asyncio
import time
from dataclasses import replace

from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.figures import Leg, middle
from aetherflow_hooks.dev.bench.load import add_endpoints, flood
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.receivers import Receiver
from aetherflow_hooks.dev.bench.server import Scratch

DAYS_AGO = 3  # a day that has gone by wholly, by a retention of one
SWEEP_SECONDS = 2.0
BEFORE_SECONDS, AFTER_SECONDS, GONE_SECONDS_MAX = 10.0, 5.0, 60.0
SAMPLE_SECONDS = 0.5

_DAY = f"""
create table aetherflow.old_day (like aetherflow.attempts including all) {OURS}
"""
_ROWS = f"""
insert into aetherflow.old_day
    (shard, attempt, status, endpoint_id, event_id, started_at, duration_ms, outcome, verdict)
select aetherflow.shard_of(e.id), 1, 200, e.id, 'evt_' || right(md5(place::text), 24),
       day + place * interval '86000 seconds' / $2::int, 12, 'answered', 'delivered'
from (select (current_date - $1::int)::timestamp at time zone 'UTC' as day) d,
     generate_series(0, $2::int - 1) as place
join (select id, row_number() over () - 1 as n, count(*) over () as all_
      from aetherflow.endpoints) e on e.n = place % e.all_ {OURS}
"""
_NAME = f"select 'attempts_' || to_char(current_date - $1::int, 'YYYYMMDD') {OURS}"
_ATTACH = """
alter table aetherflow.old_day rename to %s;
alter table aetherflow.attempts attach partition aetherflow.%s for values
    from ('%s') to ('%s') /* bench */
"""
_IS_THERE = f"select to_regclass('aetherflow.' || $1) is not null {OURS}"
_BOUNDS = f"""
select (current_date - $1::int)::timestamp at time zone 'UTC',
       (current_date - $1::int + 1)::timestamp at time zone 'UTC' {OURS}
"""
_TOOK = f"""
select round(sum(max_exec_time))::integer {OURS} from pg_stat_statements
where query ~* '(drop table aetherflow|detach partition)' and dbid = (
    select oid from pg_database where datname = current_database())
"""


async def measure(hall: Hall) -> Leg:
    """Load an engine fully, and let a day go meanwhile whose time is over."""
    plan = hall.plan
    async with hall.server.database() as made:
        sweep = made.settings.sweep.model_copy(
            update={"every_seconds": SWEEP_SECONDS, "attempts_days": 1, "events_days": 1}
        )
        scratch = replace(made, settings=made.settings.model_copy(update={"sweep": sweep}))
        connection = scratch.connection
        await add_endpoints(connection, plan.endpoints, hall.sink.url)
        hall.say(f"filling a day with {plan.retention_rows:,} attempts")
        await connection.execute(_DAY)
        await connection.execute(_ROWS, DAYS_AGO, plan.retention_rows)
        await connection.execute("vacuum analyze aetherflow.old_day /* bench */")
        async with engine(scratch):
            loading = asyncio.create_task(
                flood(scratch, hall.sink, types=plan.endpoints, seconds=3600, note=lambda _: None)
            )
            try:
                before, during, gone_seconds = await _watch(hall, scratch)
            finally:
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
        took_ms = await connection.fetchval(_TOOK) if scratch.has_statements else None
    usual, then = middle(before) or 0.0, middle(during) or 0.0
    row = {
        "rows": plan.retention_rows,
        "before, a second": usual,
        "meanwhile, a second": then,
        "ratio": then / usual,
        "least in half a second": min(during),
        "detached and dropped, ms": took_ms,
        "gone after, s": gone_seconds,
    }
    note = (
        f"Full load; the day is there from one moment on, and an engine sweeps every "
        f"{SWEEP_SECONDS:g} s. Meanwhile: from then until {AFTER_SECONDS:g} s after it was gone."
    )
    return Leg("retention", "A day that goes", [row], [note])


async def _watch(hall: Hall, scratch: Scratch) -> tuple[list[float], list[float], float]:
    """Give the rates before, and while the day goes, and how long it was there."""
    other = await scratch.connect()
    try:
        await asyncio.sleep(BEFORE_SECONDS / 2)  # the load begins
        before: list[float] = []
        await _sample(hall.sink, before, time.monotonic() + BEFORE_SECONDS)
        name = await other.fetchval(_NAME, DAYS_AGO)
        begins, ends = await other.fetchrow(_BOUNDS, DAYS_AGO)
        # It would not pass checks otherwise that take as long as it is large.
        await other.execute(
            f"alter table aetherflow.old_day add constraint bounds check "
            f"(started_at >= '{begins}' and started_at < '{ends}') not valid /* bench */"
        )
        await other.execute("alter table aetherflow.old_day validate constraint bounds /* bench */")
        attached_at = time.monotonic()
        await other.execute(_ATTACH % (name, name, begins, ends))
        hall.say(f"{name} is there, and past its time")
        during: list[float] = []
        while await other.fetchval(_IS_THERE, name):
            if time.monotonic() - attached_at > GONE_SECONDS_MAX:
                raise BenchFailed(f"{name} is still there")
            await _sample(hall.sink, during, time.monotonic() + SAMPLE_SECONDS)
        gone_seconds = time.monotonic() - attached_at
        await _sample(hall.sink, during, time.monotonic() + AFTER_SECONDS)
        return before, during, gone_seconds
    finally:
        await other.close(timeout=5)


async def _sample(sink: Receiver, rates: list[float], until: float) -> None:
    """Note the rate of each half second until then."""
    at, count = time.monotonic(), await sink.count()
    while at < until:
        await asyncio.sleep(SAMPLE_SECONDS)
        now, there = time.monotonic(), await sink.count()
        rates.append((there - count) / (now - at))
        at, count = now, there
