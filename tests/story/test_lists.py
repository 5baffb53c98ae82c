"""Looking through history and work: nothing missing, nothing twice, whatever comes meanwhile."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage import attempts, deliveries
from aetherflow_hooks.manage.attempts import Chosen, list_attempts
from aetherflow_hooks.manage.deliveries import cancel_delivery, list_deliveries
from aetherflow_hooks.manage.endpoints import (
    delete_endpoint,
    list_endpoints,
    set_endpoint_state,
)
from aetherflow_hooks.manage.events import list_events
from aetherflow_hooks.manage.pages import Page
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.states import State
from tests.conftest import World


async def some_attempts(world: World, endpoints: list[str], count: int) -> None:
    """Record attempts of a while ago, many at the very same moment, some failed."""
    dice = random.Random(count)
    rows = []
    for n in range(count):
        endpoint_id = dice.choice(endpoints)
        failed = dice.random() < 0.2
        rows.append(
            (
                *(1 + n % 3, dice.choice([500, 503, 404]) if failed else 200, endpoint_id),
                await world.value(
                    "select aetherflow.event_id_at(now()) || lpad($1::text, 11, '0')", str(n)
                ),
                datetime.now(UTC).replace(microsecond=0) - timedelta(seconds=n // 7),
                *("retry" if failed else "delivered", "answered 5xx" if failed else None),
            )
        )
    await world.connection.executemany(
        "insert into aetherflow.attempts (shard, attempt, status, endpoint_id, event_id,"
        " started_at, duration_ms, outcome, verdict, error)"
        " values (aetherflow.shard_of($3), $1, $2, $3, $4, $5, 10, 'answered', $6, $7)",
        rows,
    )


def ids(page: Page) -> list[str]:
    return [row["id"] for row in page.rows]


@pytest.mark.parametrize(
    "chosen",
    [
        Chosen(),
        Chosen(only_failed=True),
        Chosen(status="5xx"),
        Chosen(status="404", error="ANSWERED"),
        Chosen(verdict="delivered"),
    ],
    ids=["all", "failed", "5xx", "404", "delivered"],
)
@pytest.mark.parametrize("of_one", [False, True], ids=["all endpoints", "one endpoint"])
async def test_case_73_attempts_are_paged_both_ways_while_new_ones_come(
    world: World, monkeypatch: pytest.MonkeyPatch, chosen: Chosen, of_one: bool
) -> None:
    monkeypatch.setattr(attempts, "LOOKED_MAX", 40)  # so that looks end without a row too
    endpoints = [(await world.endpoint())["id"] for _ in range(3)]
    await some_attempts(world, endpoints, 1000)
    if of_one:
        chosen = Chosen(
            **{name: getattr(chosen, name) for name in Chosen.__slots__}
            | {"endpoint_id": endpoints[0]}
        )
    all_ = await world.rows(
        "select * from aetherflow.attempts where ($1::text is null or endpoint_id = $1)"
        " and (not $2 or verdict <> 'delivered') and ($3::text is null or verdict = $3)"
        " and ($4::int is null or status between $4 and $5)"
        " order by started_at desc, endpoint_id desc, event_id desc, attempt desc",
        chosen.endpoint_id,
        chosen.only_failed,
        chosen.verdict,
        *{None: (None, None), "5xx": (500, 599), "404": (404, 404)}[chosen.status],
    )
    expected = [attempts._told(row)["id"] for row in map(with_more, all_)]
    down: list[str] = []
    before, pages, last = None, 0, ""
    while True:
        page = await list_attempts(world.database, chosen, before=before, rows_max=30)
        down += ids(page)
        last, before, pages = page.after or last, page.before, pages + 1
        await some_attempts_now(world, endpoints)
        if before is None:
            break
    assert down == expected
    assert pages > len(expected) // 30
    up: list[str] = []
    after: str | None = down[-1]
    while after is not None:
        page = await list_attempts(world.database, chosen, after=after, rows_max=30)
        up = ids(page) + up
        after = page.after
    assert up[-len(down) + 1 :] == down[:-1], "the same on the way up, and then what is new"
    assert len(set(up)) == len(up)


def with_more(row: Any) -> dict[str, Any]:
    return {**dict(row), "is_place": False}


async def some_attempts_now(world: World, endpoints: list[str]) -> None:
    await world.connection.execute(
        "insert into aetherflow.attempts (shard, attempt, status, endpoint_id, event_id,"
        " started_at, duration_ms, outcome, verdict)"
        " select aetherflow.shard_of(e), 1, 500, e, aetherflow.event_id_at(now()) || '00000000abc',"
        " clock_timestamp() + interval '1 second', 1, 'answered', 'dead' from unnest($1::text[]) e",
        endpoints,
    )


async def test_attempts_are_found_by_tenant_type_and_time(world: World) -> None:
    await world.endpoint("/a", tenant="acme")
    await world.endpoint("/b", "500,200", retry_schedule_seconds=[0.2])
    async with world.engine():
        await world.emit("user.joined", tenant="acme")
        await world.emit("a.b")
        await world.settled()

    async def found(**filters: Any) -> list[tuple[str, str, str | None]]:
        page = await list_attempts(world.database, Chosen(**filters))
        return sorted((row["type"], row["verdict"], row["error"]) for row in page.rows)

    everything = [
        ("a.b", "delivered", None),
        ("a.b", "retry", "answered 500"),
        ("user.joined", "delivered", None),
    ]
    assert await found() == everything
    assert await found(tenant="acme") == everything[2:]
    assert await found(pattern="user.*") == everything[2:]
    assert await found(pattern="*") == everything
    assert await found(error="ERED 5") == everything[1:2]
    now = datetime.now(UTC)
    assert await found(until=now - timedelta(minutes=1)) == []
    assert await found(since=now - timedelta(minutes=1), until=now + timedelta(1)) == everything


async def through(world: World, **filters: Any) -> list[dict[str, Any]]:
    """Turn all the pages of deliveries."""
    rows: list[dict[str, Any]] = []
    before = None
    while True:
        page = await list_deliveries(world.database, before=before, rows_max=7, **filters)
        rows += page.rows
        before = page.before
        if before is None:
            return rows


async def test_work_is_paged_by_state_while_it_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "LOOKED_MAX", 10)
    ours = [(await world.endpoint(f"/{n}", tenant="acme"))["id"] for n in range(3)]
    blocked = await world.endpoint("/blocked", ordering="block", tenant="other")
    for endpoint_id in [*ours, blocked["id"]]:
        await set_endpoint_state(world.database, endpoint_id, EndpointState.PAUSED)
    for tenant, count in (("acme", 25), ("other", 5)):
        await world.value(
            "select count(aetherflow.emit('a.b', '{}', $1)) from generate_series(1, $2::int)",
            tenant,
            count,
        )
    async with world.engine():
        await world.until("select not exists (select from aetherflow.outbox)")
    await world.connection.execute(
        "update aetherflow.deliveries set leased_until = now() + interval '1 hour'"
        " where endpoint_id = $1 and event_id in (select id from aetherflow.events"
        " where tenant = 'acme' order by id desc limit 2)",
        ours[1],
    )
    await world.connection.execute(
        "update aetherflow.deliveries set due_at = 'infinity' where endpoint_id = $1"
        " and event_id = (select min(id) from aetherflow.events where tenant = 'other')",
        blocked["id"],
    )
    everything = await through(world)
    assert len(everything) == len({row["id"] for row in everything}) == 80
    assert everything == sorted(everything, key=lambda it: (it["endpoint_id"], it["event_id"]))
    assert len(await through(world, tenant="acme")) == 75
    assert len(await through(world, endpoint_id=ours[0])) == 25
    assert len(await through(world, state=State.LEASED)) == 2
    assert len(await through(world, state=State.PENDING)) == 77
    (halted,) = await through(world, state=State.HALTED)
    assert (halted["endpoint_id"], halted["due_at"]) == (blocked["id"], None)

    for row in everything[::4]:
        if row["state"] != "leased":
            await cancel_delivery(world.database, row["id"])
    dead = await through(world, state=State.DEAD)
    assert {row["id"] for row in dead} == {
        row["id"] for row in everything[::4] if row["state"] != "leased"
    }
    times = [row["ended_at"] for row in dead]
    assert times == sorted(times, reverse=True)
    assert {row["reason"] for row in dead} == {"cancelled"}
    of_tenant = await through(world, state=State.DEAD, tenant="other")
    assert {row["endpoint_id"] for row in of_tenant} == {blocked["id"]}
    assert await through(world, state=State.DEAD, endpoint_id=blocked["id"]) == of_tenant


async def test_what_was_delivered_twice_is_listed_once(world: World) -> None:
    endpoint = await world.endpoint("/a")
    await world.emit()
    async with world.engine():
        await world.settled()
        for _ in range(2):
            (row,) = await through(world, state=State.DELIVERED)
            await deliveries.retry_delivery(world.database, row["id"])
            await world.settled()
    (row,) = await through(world, state=State.DELIVERED, endpoint_id=endpoint["id"])
    assert len((await list_attempts(world.database)).rows) == 3
    last = await world.value("select max(started_at) from aetherflow.attempts")
    assert row["ended_at"] >= last


async def test_what_is_no_place_in_a_list_is_refused(world: World) -> None:
    for wrong in ("", "x", "att_x", "dlv_000000000000000000000000_000000000000", "att_" + "f" * 60):
        if wrong:
            with pytest.raises(InputRefused, match="no place in a list"):
                await list_attempts(world.database, before=wrong)
            with pytest.raises(InputRefused, match="no place in a list"):
                await list_deliveries(world.database, state=State.DEAD, before=wrong)
    with pytest.raises(NotFound):
        await list_deliveries(world.database, before="x")
    with pytest.raises(NotFound):
        await list_deliveries(world.database, endpoint_id="x")
    for chosen, reason in (
        (Chosen(status="99"), "no status"),
        (Chosen(status="5x"), "no status"),
        (Chosen(pattern="a.*.b"), "chooses no events"),
        (Chosen(error=""), "1 to 200"),
    ):
        with pytest.raises(InputRefused, match=reason):
            await list_attempts(world.database, chosen)
    assert (await list_events(world.database)).rows == []


async def test_endpoints_are_paged_in_the_order_of_their_making(world: World) -> None:
    made = [(await world.endpoint(f"/{n}", labels=["a"] if n % 2 else []))["id"] for n in range(9)]
    await delete_endpoint(world.database, made.pop(4))
    found: list[str] = []
    before = None
    while True:
        page = await list_endpoints(world.database, before=before, rows_max=3)
        found += ids(page)
        before = page.before
        if before is None:
            break
        if len(found) == 3:
            made.append((await world.endpoint("/new"))["id"])
            await delete_endpoint(world.database, made[2])  # where the page has ended
    assert found == made
    odd = await list_endpoints(world.database, labels=["a"])
    assert ids(odd) == [it for n, it in enumerate(made) if n in (1, 3, 4, 6)]
    with pytest.raises(InputRefused, match="no place in a list"):
        await list_endpoints(world.database, before="x")
