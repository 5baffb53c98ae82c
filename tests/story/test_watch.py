"""Watching a table: each row that is written becomes an event, of the same transaction."""

import json
from typing import Any

import asyncpg
import pytest

from tests.conftest import World
from tests.story.test_rights import As, as_, dsn_of  # noqa: F401  a fixture

TABLE = """
create table public.orders (
    id bigint primary key, state text, amount numeric, placed_at timestamptz, note json
)
"""
PLACED = (
    "insert into orders values ($1, 'new', 12.50, '2024-01-15T10:30:00+02', '{\"b\":1,\"a\":2}')"
)


async def told(world: World) -> list[tuple[str, Any]]:
    rows = await world.rows("select type, data from aetherflow.events order by id")
    return [(row["type"], json.loads(row["data"])) for row in rows]


async def watch(world: World, options: str = "") -> list[str]:
    await world.connection.execute(TABLE)
    types: list[str] = await world.value(f"select aetherflow.watch('orders'{options})")
    return types


async def test_what_is_written_is_told_and_arrives(world: World) -> None:
    assert await watch(world) == ["orders.created", "orders.updated", "orders.deleted"]
    await world.endpoint("/x", events=["orders.*"])
    await world.connection.execute(PLACED, 1)
    await world.connection.execute("update orders set state = 'paid', amount = 12.50")
    await world.connection.execute("delete from orders")
    row = {
        "id": 1,
        "state": "new",
        "amount": 12.5,
        "placed_at": "2024-01-15T08:30:00+00:00",
        "note": {"b": 1, "a": 2},
    }
    paid = {**row, "state": "paid"}
    assert await told(world) == [
        ("orders.created", {"row": row}),
        ("orders.updated", {"row": paid, "old": {"state": "new"}}),
        ("orders.deleted", {"row": paid}),
    ]
    await world.deliver()
    kinds = [request.headers["x-aetherflow-event"] for request in world.receiver.at("/x")]
    assert sorted(kinds) == ["orders.created", "orders.deleted", "orders.updated"]


async def test_rolled_back_nothing_was_told_and_one_statement_tells_of_each_row(
    world: World,
) -> None:
    await watch(world)
    transaction = world.connection.transaction()
    await transaction.start()
    await world.connection.execute(PLACED, 1)
    await transaction.rollback()
    assert await told(world) == []
    await world.connection.execute("insert into orders (id) select generate_series(1, 3)")
    assert [data["row"]["id"] for _, data in await told(world)] == [1, 2, 3]


async def test_an_update_that_changes_nothing_is_not_told(world: World) -> None:
    await watch(world, ", operations => '{update}'")
    await world.connection.execute(PLACED, 1)
    await world.connection.execute("update orders set state = 'new', note = note")
    assert await told(world) == []


async def test_columns_conditions_tenants_and_keys_are_chosen(world: World) -> None:
    types = await watch(
        world,
        ", type => 'shop.order', operations => '{insert,update}', columns => '{id,state}',"
        " condition => 'new.amount > 10', tenant_column => 'note', ordering_column => 'id'",
    )
    assert types == ["shop.order.created", "shop.order.updated"]
    await world.connection.execute("insert into orders values (1, 'new', 9), (2, 'new', 11)")
    await world.connection.execute("update orders set placed_at = now()")
    await world.connection.execute("update orders set state = 'paid', note = '\"acme\"'")
    await world.connection.execute("delete from orders")
    assert await told(world) == [
        ("shop.order.created", {"row": {"id": 2, "state": "new"}}),
        ("shop.order.updated", {"row": {"id": 2, "state": "paid"}, "old": {"state": "new"}}),
    ]
    rows = await world.rows("select tenant, ordering_key from aetherflow.events order by id")
    assert [tuple(row) for row in rows] == [("", "2"), ("acme", "2")]


async def test_watching_again_changes_how_and_unwatching_ends_it(world: World) -> None:
    await watch(world)
    await world.value("select aetherflow.watch('orders', type => 'sale', operations => '{insert}')")
    await world.connection.execute("insert into orders (id) values (1)")
    assert await world.value("select aetherflow.unwatch('orders', '{insert}')") == 1
    await world.connection.execute("insert into orders (id) values (2)")
    await world.connection.execute("delete from orders where id = 2")
    assert [kind for kind, _ in await told(world)] == ["sale.created", "orders.deleted"]
    assert await world.value("select aetherflow.unwatch('orders')") == 2
    assert await world.value("select aetherflow.unwatch('orders')") == 0
    await world.connection.execute("delete from orders")
    assert len(await told(world)) == 2


async def test_a_column_that_goes_is_told_and_not_passed_over(world: World) -> None:
    """Silently it would be the event of no tenant, or of none of the columns."""
    await watch(world, ", columns => '{id}', tenant_column => 'state', operations => '{insert}'")
    await world.connection.execute("alter table orders rename state to customer")
    with pytest.raises(asyncpg.UndefinedColumnError, match="watch it again"):
        await world.connection.execute("insert into orders (id) values (1)")
    await world.value(
        "select aetherflow.watch('orders', columns => '{id}', tenant_column => 'customer',"
        " operations => '{insert}')"
    )
    await world.connection.execute("insert into orders (id, customer) values (1, 'acme')")
    assert await world.value("select tenant from aetherflow.events") == "acme"


async def test_what_is_not_told_is_not_in_the_way(world: World) -> None:
    """Not of emit, which refuses such a text, nor of jsonb, which cannot hold it."""
    await watch(world, ", columns => '{id}'")
    odd = '{"a": "\\u0000"}'
    await world.connection.execute("insert into orders (id, note) values (1, $1)", odd)
    await world.connection.execute("update orders set id = 2")
    await world.connection.execute("delete from orders")
    assert [data["row"] for _, data in await told(world)] == [{"id": 1}, {"id": 2}, {"id": 2}]


async def test_the_settings_of_a_session_do_not_show(world: World) -> None:
    await world.connection.execute(
        "create table things (b bytea, i interval, r tstzrange, f float8);"
        "select aetherflow.watch('things');"
        "set bytea_output = 'escape'; set intervalstyle = 'sql_standard';"
        "set datestyle = 'German'; set extra_float_digits = -15; set timezone = 'Asia/Tokyo';"
        "insert into things values ('\\x00ff', '1 day 2 hours',"
        " '[2024-01-15 10:30+00,)', 0.1::float8 + 0.2)"
    )
    ((_, data),) = await told(world)
    assert data["row"] == {
        "b": "\\x00ff",
        "i": "P1DT2H",
        "r": '["2024-01-15 10:30:00+00",)',
        "f": 0.30000000000000004,
    }


async def test_triggers_come_through_a_dump(world: World) -> None:
    await watch(
        world,
        ", columns => '{id,note}', condition => 'old.id > 0 -- always', operations => '{update}'",
    )
    shown = "select pg_get_triggerdef(oid) from pg_trigger where not tgisinternal"
    definition = await world.value(shown)
    await world.connection.execute("drop trigger aetherflow_watch_update on orders")
    await world.connection.execute("set search_path = ''")
    await world.connection.execute(definition)  # as pg_dump writes it
    await world.connection.execute("reset search_path; insert into orders (id) values (1)")
    await world.connection.execute("update orders set note = null")
    await world.connection.execute("update orders set note = '{}'")
    assert [data["old"] for _, data in await told(world)] == [{"note": None}]
    assert await world.value(shown) == definition


async def test_a_partition_is_watched_with_the_whole_or_by_itself(world: World) -> None:
    await world.connection.execute(
        "create table p (id int) partition by list (id);"
        "create table p1 partition of p for values in (1);"
        "select aetherflow.watch('p1')"
    )
    with pytest.raises(asyncpg.PostgresError, match="p1 is watched by itself"):
        await world.value("select aetherflow.watch('p')")
    assert await world.value("select aetherflow.unwatch('p1')") == 3
    await world.value("select aetherflow.watch('p')")
    with pytest.raises(asyncpg.PostgresError, match="p is watched by itself"):
        await world.value("select aetherflow.watch('p1')")


async def test_partitions_and_odd_names_are_watched_too(world: World) -> None:
    await world.connection.execute(
        'create schema "My Shop";'
        'create table "My Shop"."the orders" ("the id" int, "new" text)'
        ' partition by list ("the id");'
        'create table "My Shop".first partition of "My Shop"."the orders" for values in (1)'
    )
    await world.value(
        """select aetherflow.watch('"My Shop"."the orders"', type => 'o', tenant => 'acme',"""
        """ columns => array['the id', 'new'], ordering_column => 'the id')"""
    )
    await world.connection.execute("""insert into "My Shop"."the orders" values (1, 'x')""")
    await world.connection.execute("""update "My Shop".first set "new" = 'y'""")
    assert await told(world) == [
        ("o.created", {"row": {"the id": 1, "new": "x"}}),
        ("o.updated", {"row": {"the id": 1, "new": "y"}, "old": {"new": "x"}}),
    ]
    assert await world.value("""select aetherflow.unwatch('"My Shop"."the orders"')""") == 3


@pytest.mark.parametrize(
    ("table", "options", "why"),
    [
        ("orders", "operations => '{truncate}'", "some of insert, update and delete"),
        ("orders", "operations => '{}'", "some of insert, update and delete"),
        ("orders", "columns => '{id,colour,size}'", "orders has no column colour, size"),
        ("orders", "columns => '{}'", "columns are names; leave them out"),
        ("orders", "columns => array['id', null]", "columns are names; leave them out"),
        ("orders", "operations => null", "some of insert, update and delete"),
        ("orders", "tenant => null", "tenant is null, over 256 characters"),
        ("orders", "tenant => repeat('x', 257)", "tenant is null, over 256 characters"),
        ("orders", "ordering_column => 'ctid'", "has no column ctid"),
        ("orders", "tenant_column => 'tenant'", "has no column tenant"),
        ("orders", "type => 'a b'", "name another type"),
        ("orders", "condition => 'old.amount > 1'", "cannot reference OLD"),
        ("orders", "condition => 'new.amount >'", "syntax error"),
        ("aetherflow.events", "type => 'e'", "is not a table of an application"),
        ("of_orders", "type => 'e'", "is not a table of an application"),
    ],
)
async def test_what_cannot_be_watched_is_told(
    world: World, table: str, options: str, why: str
) -> None:
    await world.connection.execute(f"{TABLE}; create view of_orders as select * from orders")
    with pytest.raises(asyncpg.PostgresError, match=why):
        await world.value(f"select aetherflow.watch('{table}', {options})")
    assert await world.value("select count(*) from pg_trigger where not tgisinternal") == 0


async def test_who_may_emit_watches_tables_of_their_own(world: World, as_: As) -> None:  # noqa: F811
    """And whoever writes to such a table has to be able to emit."""
    await world.connection.execute(
        "create schema mine authorization hooks_app; create table public.orders (id int);"
        "grant insert on public.orders to hooks_app"
    )
    app = await as_("hooks_app")
    await app.execute("create table mine.things (id int); grant insert on mine.things to public")
    await app.execute("grant usage on schema mine to public")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("select aetherflow.watch('public.orders')")
    await app.execute("select aetherflow.watch('mine.things')")
    await app.execute("insert into mine.things values (1)")
    reader = await as_("hooks_acme")
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="schema aetherflow"):
        await reader.execute("insert into mine.things values (2)")
    assert await told(world) == [("things.created", {"row": {"id": 1}})]
    await world.connection.execute("drop schema mine cascade")
