"""History: does a month of events and attempts slow down a drain?"""

from contextlib import AsyncExitStack
from typing import Any

from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.drain import drain_ours
from aetherflow_hooks.dev.bench.figures import Leg, Turn, summary
from aetherflow_hooks.dev.bench.load import DATA, add_endpoints
from aetherflow_hooks.dev.bench.plan import EVENTS_PER_SHAPE, Hall

EMPTY, FULL = "no history", "with history"

_DAYS = f"""
do $$
declare day date;
begin
    for day in select generate_series(current_date - %d, current_date - 2, '1 day') loop
        execute format('create table aetherflow.attempts_%%s partition of aetherflow.attempts '
            'for values from (%%L) to (%%L)', to_char(day, 'YYYYMMDD'),
            day::timestamp at time zone 'UTC', (day + 1)::timestamp at time zone 'UTC');
        execute format('create table aetherflow.events_%%s partition of aetherflow.events '
            'for values from (%%L) to (%%L)', to_char(day, 'YYYYMMDD'),
            aetherflow.event_id_at(day::timestamp at time zone 'UTC'),
            aetherflow.event_id_at((day + 1)::timestamp at time zone 'UTC'));
    end loop;
end $$ {OURS}
"""
_EVENTS = f"""
insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)
select aetherflow.shard_of(made.id), made.id, '', 't.0', $3, made.at from (
    select day + n * interval '86399 seconds' / $2::int as at,
           aetherflow.event_id_at(day + n * interval '86399 seconds' / $2::int)
               || right(gen_random_uuid()::text, 11) as id
    from (select (current_date - $1::int)::timestamp at time zone 'UTC' as day) d,
         generate_series(0, $2::int - 1) as n
) made {OURS}
"""
_ATTEMPTS = f"""
insert into aetherflow.attempts
    (shard, attempt, endpoint_id, event_id, started_at, duration_ms,
     outcome, status, verdict, error)
select aetherflow.shard_of(e.id), 1, e.id, v.id, v.emitted_at, 12, 'answered',
       case when is_failed then 503 else 200 end,
       case when is_failed then 'retry' else 'delivered' end,
       case when is_failed then 'answered 503' end
from (
    select v.id, v.emitted_at, row_number() over () as n, random() < 0.02 as is_failed
    from aetherflow.events v
    where v.id >= aetherflow.event_id_at((current_date - $1::int)::timestamp at time zone 'UTC')
      and v.id < aetherflow.event_id_at((current_date - $1::int + 1)::timestamp at time zone 'UTC')
) v
join (select id, row_number() over () - 1 as n, count(*) over () as all_
      from aetherflow.endpoints) e on e.n = v.n % e.all_ {OURS}
"""


async def measure(hall: Hall) -> Leg:
    """Drain with and without history, in turn."""
    plan = hall.plan
    turns: list[Turn] = []
    events = plan.events // EVENTS_PER_SHAPE
    async with AsyncExitStack() as stack:
        scratches = {}
        for name in (EMPTY, FULL):
            scratches[name] = await stack.enter_async_context(hall.server.database())
        for scratch in scratches.values():
            await add_endpoints(scratch.connection, plan.endpoints, hall.sink.url)
        hall.say(f"filling {plan.history_days} days of {plan.history_rows_per_day:,} events")
        await fill(
            scratches[FULL].connection,
            days=plan.history_days,
            rows_per_day=plan.history_rows_per_day,
        )
        for round_ in range(1, plan.rounds + 1):
            for name, scratch in scratches.items():
                turn = await drain_ours(
                    scratch,
                    hall.sink,
                    contender=name,
                    round_=round_,
                    events=events,
                    endpoints=plan.endpoints,
                    are_there=True,
                )
                turns.append(turn)
                hall.say(f"round {round_} of {plan.rounds}: {name} {turn.per_second:,.0f}/s")
    return Leg(
        "history",
        f"{plan.history_days} days of history",
        summary(turns, EMPTY),
        [
            (
                f"{plan.history_rows_per_day:,} events and attempts a day; {events:,} drained in "
                f"each round; ratios to the same round without history, middle of {plan.rounds}."
            )
        ],
    )


async def fill(connection: Any, *, days: int, rows_per_day: int, data: str = DATA) -> None:
    """Add days of events, each with one attempt at one of the endpoints; one in fifty failed."""
    await connection.execute(_DAYS % days)
    for days_ago in range(days, 1, -1):
        await connection.execute(_EVENTS, days_ago, rows_per_day, data)
        await connection.execute(_ATTEMPTS, days_ago)
    await connection.execute("vacuum analyze aetherflow.attempts /* bench */")
    await connection.execute("vacuum analyze aetherflow.events /* bench */")
