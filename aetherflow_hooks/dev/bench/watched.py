"""Watched: what it costs those who write to a table that each row becomes an event."""

import time
from typing import Any

from aetherflow_hooks.dev.bench.figures import Leg, middle
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.server import Scratch

ROWS_PER_SINGLE = 10  # of as many there is one that is inserted by a statement of its own
WAYS = {
    "not watched": "",
    "watched": ", operations => '{insert,update}'",
    "watched, two columns": ", operations => '{insert,update}', columns => '{id,state}'",
    "a condition that is false": ", operations => '{insert,update}', condition => 'new.amount < 0'",
}

_TABLE = """
create table public.orders (
    id bigint primary key, customer_id bigint not null, state text not null, amount numeric,
    currency text, note text, placed_at timestamptz default now(), paid_at timestamptz
)
"""
_MANY = """
insert into public.orders (id, customer_id, state, amount, currency, note)
select n, n % 100, 'new', n * 1.25, 'EUR', repeat('x', 100) from generate_series(1, $1::bigint) n
"""
_ONE = """
insert into public.orders (id, customer_id, state, amount, currency, note)
values (-$1::bigint, 1, 'new', 12.5, 'EUR', 'x')
"""


async def measure(hall: Hall) -> Leg:
    """Insert and update rows of eight columns, watched in different ways, in turn."""
    plan = hall.plan
    costs: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    for round_ in range(1, plan.rounds + 1):
        for name, options in WAYS.items():
            async with hall.server.database() as scratch:
                costs[name].append(await _write(scratch, options, plan.watched_rows))
        hall.say(f"round {round_} of {plan.rounds}")
    rows: list[dict[str, Any]] = [
        {
            "table": name,
            "insert, us a row": middle(insert for insert, _, _ in found),
            "update, us a row": middle(update for _, update, _ in found),
            "insert, us a statement": middle(single for _, _, single in found),
        }
        for name, found in costs.items()
    ]
    note = (
        f"{plan.watched_rows:,} rows by one statement, and some by one each; "
        f"middle of {plan.rounds}. It is part of the writer's own transaction."
    )
    return Leg("watch", "Rows that become events", rows, [note])


async def _write(scratch: Scratch, options: str, rows: int) -> tuple[float, float, float]:
    """Give what an insert and an update cost a row, and an insert a statement, in us."""
    connection = scratch.connection
    await connection.execute(_TABLE)
    if options:
        await connection.execute(f"select aetherflow.watch('public.orders'{options})")
    began = time.perf_counter()
    await connection.execute(_MANY, rows)
    inserted = time.perf_counter()
    await connection.execute("update public.orders set state = 'paid'")
    updated = time.perf_counter()
    singles = max(1, rows // ROWS_PER_SINGLE)
    for number in range(1, singles + 1):
        await connection.execute(_ONE, number)
    single = time.perf_counter() - updated
    return (
        (inserted - began) / rows * 1e6,
        (updated - inserted) / rows * 1e6,
        single / singles * 1e6,
    )
