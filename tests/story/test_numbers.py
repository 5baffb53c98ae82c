"""The numbers: what engines count is what history holds, and every answer is bounded."""

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.deliveries import retry_delivery
from aetherflow_hooks.manage.numbers import POINTS_MAX, Step, endpoint_numbers
from aetherflow_hooks.manage.status import endpoint_status, overview
from aetherflow_hooks.rules.tallies import KINDS
from tests.conftest import World

STEPS: tuple[Step, ...] = get_args(Step)

# The same numbers from history; %s chooses some of it.
COUNTED = """
select date_trunc($1, started_at) as starts_at,
       count(*) filter (where verdict <> 'late') as attempts,
       count(*) filter (where verdict = 'delivered') as delivered,
       count(*) filter (where verdict = 'late') as late,
       count(*) filter (where status = 429) as answered_429,
       count(*) filter (where status between 400 and 499 and status <> 429) as answered_4xx,
       count(*) filter (where status >= 500) as answered_5xx,
       count(*) filter (where status between 300 and 399) as answered_other,
       count(*) filter (where outcome = 'timed_out') as timed_out,
       count(*) filter (where outcome = 'not_reached') as not_reached,
       count(*) filter (where outcome = 'blocked') as blocked,
       percentile_disc(array[0.5, 0.95, 0.99]) within group (order by duration_ms)
           filter (where outcome in ('answered', 'timed_out')) as percentiles
from aetherflow.attempts a join aetherflow.endpoints e on e.id = a.endpoint_id
where ($2::text is null or a.endpoint_id = $2) and ($3::text is null or e.tenant = $3)
group by 1 order by 1
"""


async def tallies_with_history(
    world: World, *, endpoint_id: str | None = None, tenant: str | None = None
) -> int:
    """Hold the numbers against history, by minute and by hour; give that of the attempts."""
    for step in STEPS:
        told = await endpoint_numbers(
            world.database, endpoint_id=endpoint_id, tenant=tenant, step=step
        )
        starts = [it["starts_at"] for it in told]
        pause = timedelta(minutes=1) if step == "minute" else timedelta(hours=1)
        assert starts == [starts[0] + pause * n for n in range(len(starts))]
        some = [it for it in told if it["attempts"]]
        expected = await world.rows(COUNTED, step, endpoint_id, tenant)
        keys = ("starts_at", "attempts", *KINDS)
        assert [[it[key] for key in keys] for it in some] == [
            [it[key] for key in keys] for it in expected
        ]
        for point, row in zip(some, expected, strict=True):
            assert point["success_rate"] == row["delivered"] / row["attempts"]
            found = [point[f"p{n}_ms"] for n in (50, 95, 99)]
            assert found == (
                [None] * 3 if row["percentiles"] is None else pytest.approx(row["percentiles"], 0.1)
            )
    return sum(it["attempts"] for it in some)


SCRIPTS = {
    "well": "200",
    "shaky": "500,429,200",
    "refusing": "404",
    "elsewhere": "302",
    "hung": "hang",
}


async def test_what_engines_count_is_what_history_holds(world: World) -> None:
    """Over two engines, and a start of new ones."""
    added = {
        name: await world.endpoint(
            f"/{name}",
            SCRIPTS[name],
            tenant="acme" if name == "shaky" else "",
            retry_schedule_seconds=[0.01, 0.01],
            timeout_seconds=0.3,
        )
        for name in ("well", "shaky", "refusing", "elsewhere", "hung")
    }
    added["nobody"] = await world.endpoint(url="http://127.0.0.1:9/", retry_schedule_seconds=[])
    added["inside"] = await world.endpoint(url="https://example.com/", retry_schedule_seconds=[])
    await world.connection.execute(
        "update aetherflow.endpoints set url = 'http://10.0.0.1/' where id = $1",
        added["inside"]["id"],
    )
    for most in (3, 6):
        async with world.engine(), world.engine():
            for n in range(20):
                await world.emit(tenant="acme" if n % 3 == 0 else "")
            # Those that do not answer are left alone for a while: some of theirs waits at the end.
            await world.until(
                "select count(*) = $2 from (select from aetherflow.attempts"
                " group by endpoint_id having count(*) >= $1) e",
                most,
                len(added),
            )
    assert await tallies_with_history(world) > 50
    for tenant in ("acme", ""):
        assert await tallies_with_history(world, tenant=tenant) >= 6
    for name, endpoint in added.items():
        assert await tallies_with_history(world, endpoint_id=endpoint["id"]), name


async def test_numbers_are_there_soon_after_an_attempt(world: World) -> None:
    endpoint = await world.endpoint()
    async with world.engine():
        for count in range(1, 4):
            await world.emit()
            await world.until(
                "select sum(attempts) = $2 from aetherflow.tallies where subject = $1",
                endpoint["id"],
                count,
                timeout_seconds=5,
            )


async def test_an_attempt_that_was_asked_for_by_hand_counts_like_any(world: World) -> None:
    endpoint = await world.endpoint()
    event_id = await world.emit()
    async with world.engine():
        await world.settled()
        await retry_delivery(world.database, f"dlv_{event_id[4:]}_{endpoint['id'][3:]}")
        await world.receiver.wait_for(2)
        await world.settled()
    assert await tallies_with_history(world) == 2


async def test_gaps_are_filled_and_times_are_rounded_outwards(world: World) -> None:
    at = datetime.now(UTC).replace(minute=7, second=30, microsecond=5) - timedelta(hours=3)
    minutes = await endpoint_numbers(
        world.database, since=at, until=at + timedelta(minutes=10), step="minute"
    )
    assert len(minutes) == 11
    assert minutes[0]["starts_at"] == at.replace(second=0, microsecond=0)
    empty = {key: value for key, value in minutes[0].items() if key != "starts_at"}
    assert empty == {
        **dict.fromkeys(("attempts", *KINDS), 0),
        **dict.fromkeys(("success_rate", "p50_ms", "p95_ms", "p99_ms")),
    }
    hours = await endpoint_numbers(world.database, since=at, step="hour")
    assert len(hours) == 4
    assert len(await endpoint_numbers(world.database)) == 60
    assert len(await endpoint_numbers(world.database, step="hour")) == 48


async def test_what_cannot_be_answered_is_refused(world: World) -> None:
    now = datetime.now(UTC)
    refused: list[dict[str, Any]] = [
        {"since": now, "until": now - timedelta(hours=2)},
        {"since": now - timedelta(hours=50), "until": now - timedelta(hours=49)},
        {"since": now - timedelta(hours=26)},
        {"since": now - timedelta(hours=POINTS_MAX + 1), "step": "hour"},
        {"endpoint_id": "ep_000000000001", "tenant": ""},
    ]
    for asked in refused:
        with pytest.raises(InputRefused):
            await endpoint_numbers(world.database, **asked)
    for name in ("ep_1", "all", "tenant:", ""):
        with pytest.raises(NotFound):
            await endpoint_numbers(world.database, endpoint_id=name)


# What waits.

WAITING = """
insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at, leased_until)
select aetherflow.shard_of($1), 0, $1, 'evt_' || lpad(to_hex(n), 24, '0'),
       now() - make_interval(secs => $3 - n),
       case when n < $4 then now() + interval '1 minute' else '-infinity' end
from generate_series(0, $2 - 1) as n
"""


async def test_what_waits_is_counted_up_to_a_bound_and_says_so(world: World) -> None:
    ids = [(await world.endpoint(f"/{n}"))["id"] for n in range(3)]
    await world.connection.execute(WAITING, ids[0], 3000, 5000, 7)
    await world.connection.execute(WAITING, ids[1], 999, -60, 2)  # due in a minute or later
    rows = await endpoint_status(world.database)
    keys = ("id", "waiting", "in_flight", "is_exact")
    assert [tuple(row[key] for key in keys) for row in rows] == [
        (ids[0], 993, 7, False),
        (ids[1], 997, 2, True),
        (ids[2], 0, 0, True),
    ]
    assert 5000 <= rows[0]["oldest_seconds"] < 5060
    assert [row["oldest_seconds"] for row in rows[1:]] == [0, None]
    (row,) = await endpoint_status(
        world.database, endpoint_id=ids[0], rows_max=1, counted_max=100_000
    )
    assert tuple(row[key] for key in keys) == (ids[0], 2993, 7, True)
    with pytest.raises(InputRefused):
        await endpoint_status(world.database, rows_max=100, counted_max=1001)


async def test_status_goes_on_behind_a_page(world: World) -> None:
    ids = [(await world.endpoint(f"/{n}", tenant="t" * (n % 2)))["id"] for n in range(7)]
    found: list[str] = []
    while page := await endpoint_status(
        world.database, after=found[-1] if found else None, rows_max=3
    ):
        found += [row["id"] for row in page]
    assert found == ids
    page = await endpoint_status(world.database, tenant="t", after=ids[1])
    assert [row["id"] for row in page] == ids[3::2]


async def test_the_overview_sums_up_and_names_who_needs_a_look(world: World) -> None:
    names = ("well", "shaky", "gone", "paused", "behind", "by hand")
    ids = {name: (await world.endpoint(f"/{name[:2]}"))["id"] for name in names}
    for name in ("shaky", "gone"):
        await world.connection.execute(
            "update aetherflow.endpoints set url = $2 where id = $1",
            ids[name],
            world.receiver.url(f"/{name}", {"shaky": "500", "gone": "410"}[name]),
        )
    await world.connection.execute(
        "update aetherflow.endpoints set retry_schedule_seconds = array[0.01, 0.01, 3600]"
    )
    for name, state in (("paused", "paused"), ("by hand", "disabled")):
        await world.connection.execute(
            "update aetherflow.endpoints set state = $2 where id = $1", ids[name], state
        )
    async with world.engine():
        await world.emit()
        await world.until(
            "select exists (select from aetherflow.endpoints where failing_since is not null)"
        )
    await world.connection.execute(WAITING, ids["behind"], 3, 500, 0)
    await world.connection.execute(WAITING, ids["paused"], 4, 9000, 1)
    told = await overview(world.database)
    assert (told["waiting"], told["in_flight"], told["is_exact"]) == (9, 0, True)
    assert 500 <= told["oldest_seconds"] < 560
    assert told["endpoints"] == {"active": 3, "disabled": 2, "paused": 1}
    hour = told["last_hour"]
    assert (hour["attempts"], hour["delivered"], hour["answered_5xx"]) == (6, 2, 3)
    needy = [(row["id"], row["why"]) for row in told["needy"]]
    assert sorted(needy[:2]) == sorted([(ids["shaky"], "failing"), (ids["behind"], "behind")])
    assert needy[2:] == [(ids["gone"], "disabled")]
    assert told["needy"][2]["reason"] == "it answered 410 Gone"
    assert len((await overview(world.database, needy_max=1))["needy"]) == 1

    await world.connection.execute(
        "update aetherflow.endpoints set tenant = 't' where id = $1", ids["paused"]
    )
    told = await overview(world.database, tenant="t")
    assert (told["waiting"], told["in_flight"], told["oldest_seconds"]) == (4, 1, None)
    assert (told["endpoints"], told["last_hour"]["attempts"]) == ({"paused": 1}, 0)


async def test_an_engine_says_how_many_posts_are_under_way(world: World) -> None:
    for n in range(3):
        await world.endpoint(f"/{n}", "hang", timeout_seconds=20)
    async with world.engine(engine={"renew_seconds": 0.1, "grace_seconds": 0}):
        await world.emit()
        await world.until("select sum(in_flight) = 3 from aetherflow.engines")
        assert (await overview(world.database))["in_flight"] == 3


async def test_the_last_minute_is_the_last_whole_one(world: World) -> None:
    await world.endpoint()
    async with world.engine():
        await world.emit()
        await world.settled()
    for minutes, expected in ((0, 0), (1, 1), (2, 0)):
        await world.connection.execute(
            "update aetherflow.tallies"
            " set starts_at = date_trunc('minute', now()) - make_interval(mins => $1)",
            minutes,
        )
        told = await overview(world.database)
        assert (told["last_minute"]["attempts"], told["last_hour"]["attempts"]) == (expected, 1)
