"""Metrics: the names that are documented, sums that tally with SQL, and who may see them."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from aetherflow_hooks import migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.manage.deliveries import retry_delivery
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.model import Answered, Attempt, Delivered, Delivery, delivery_id, unix_us_of
from aetherflow_hooks.rules.measures import Histogram
from aetherflow_hooks.watch.metrics import METRICS, OF_DATABASE, OTHERS, PREFIX, Attempts
from aetherflow_hooks.web import exposition
from tests.conftest import World, settings_for, until
from tests.web.conftest import Api, Client, free_port

PATH = "//metrics"


class Numbers:
    """What was told, by name and labels."""

    def __init__(self, text: str) -> None:
        self.families = list(text_string_to_metric_families(text))
        self.samples: list[Sample] = [it for family in self.families for it in family.samples]

    def all(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        return ((it.labels, it.value) for it in self.samples if it.name == PREFIX + name)

    def one(self, name: str, **labels: str) -> float:
        (value,) = [value for found, value in self.all(name) if labels.items() <= found.items()]
        return value

    def sum(self, name: str, **labels: str) -> float:
        return sum(value for found, value in self.all(name) if labels.items() <= found.items())


async def told(client: Client) -> Numbers:
    answer = await client("GET", PATH)
    assert answer.status == 200, answer.body
    return Numbers(answer.body.decode())


async def test_case_79_the_documented_names_exist_and_no_others(api: Api) -> None:
    await api.world.endpoint()
    await api.world.emit()
    await api.world.settled()
    numbers = await told(await api.client(Scope.READ))
    documented = {f"{PREFIX}{metric.name}": metric for metric in METRICS.values()}
    families = {it.name.removesuffix("_info"): it for it in numbers.families}
    ours = {name: it for name, it in families.items() if not name.startswith("process_")}
    assert ours.keys() == documented.keys()
    for name, family in ours.items():
        assert family.documentation == documented[name].help
        labels = {label for it in family.samples for label in it.labels}
        assert labels - {"le"} <= set(documented[name].labels)
    assert "process_resident_memory_bytes" in families


async def test_case_79_sums_tally_with_what_sql_counts(world: World, api: Api) -> None:
    unreached = free_port()
    await world.endpoint("/well")
    await world.endpoint("/dead", "500", retry_schedule_seconds=[0.05])
    await world.endpoint("/gone", "410")
    await world.endpoint("/late", "hang", timeout_seconds=0.1, retry_schedule_seconds=[])
    await world.endpoint("/again", "503,200", retry_schedule_seconds=[0.05])
    await world.endpoint(url=f"http://127.0.0.1:{unreached}/", retry_schedule_seconds=[])
    closed = await world.endpoint("/closed", retry_schedule_seconds=[])
    await world.connection.execute(
        "update aetherflow.endpoints set url = 'http://10.1.2.3/' where id = $1", closed["id"]
    )
    await world.endpoint("/tight", "500", ordering="block", retry_schedule_seconds=[])
    for _ in range(3):
        await world.emit()
    await world.until(
        "select not exists (select from aetherflow.outbox) and not exists ("
        " select from aetherflow.deliveries d join aetherflow.endpoints e on e.id = d.endpoint_id"
        " where d.leased_until > now() or e.state = 'active' and e.ordering is null)"
    )
    rows = await world.rows(
        "select coalesce(outcome, 'unsent') as outcome, verdict, count(*),"
        " coalesce(status / 100 || 'xx', '') as status from aetherflow.attempts group by 1, 2, 4"
    )
    counted = {(row["outcome"], row["status"], row["verdict"]): row["count"] for row in rows}
    numbers = await told(await api.client(Scope.READ))
    attempts = {
        (it["outcome"], it["status"], it["verdict"]): value
        for it, value in numbers.all("attempts_total")
        if value
    }
    assert attempts == counted
    assert len(counted) >= 7
    assert numbers.one("attempt_duration_seconds_count") == sum(
        count for (outcome, *_), count in counted.items() if outcome in {"answered", "timed_out"}
    )
    assert numbers.sum("endpoint_attempts_total") == sum(counted.values())
    assert numbers.one("events_fanned_out_total") == await world.value(
        "select count(*) from aetherflow.events"
    )
    assert numbers.one("deliveries_created_total") == await world.value(
        "select count(*) from (select event_id, endpoint_id from aetherflow.attempts"
        " union select event_id, endpoint_id from aetherflow.deliveries) made"
    )
    assert numbers.sum("deliveries_leased_total") == sum(counted.values())
    assert numbers.one("deliveries_dead") == await world.value(
        "select count(*) from aetherflow.dead"
    )
    assert numbers.one("endpoints", state="active") == 7
    assert numbers.one("endpoints", state="disabled") == 1
    assert numbers.one("ready") == 1
    assert numbers.one("partitions_ahead_days") >= 7
    assert numbers.sum("http_connections_opened_total") >= 2


async def test_the_lag_is_that_of_what_is_due_and_not_of_what_was_to_wait(
    world: World, api: Api
) -> None:
    endpoint = await world.endpoint()
    await world.value(
        "select aetherflow.emit('a.b', '{}', deliver_at => now() + interval '0.5 seconds')"
    )
    event_id = await world.emit()
    await world.receiver.wait_for(2)
    await world.settled()
    await world.connection.execute(
        "update aetherflow.events set emitted_at = emitted_at - interval '1 hour'"
    )
    await retry_delivery(world.database, delivery_id(event_id, endpoint["id"]))
    await world.receiver.wait_for(3)
    await world.settled()
    numbers = await told(await api.client(Scope.READ))
    assert numbers.one("event_lag_seconds_count") == 3
    assert 0 < numbers.one("event_lag_seconds_sum") < 0.45


async def test_so_many_endpoints_have_series_of_their_own(world: World) -> None:
    for path in "abcd":
        await world.endpoint(f"/{path}")
    port = free_port()
    settings: dict[str, Any] = {"endpoints_max": 2, "without_token": True}
    async with (
        aiohttp.ClientSession() as session,
        world.engine(web={"port": port}, metrics=settings),
    ):
        await world.emit()
        await world.settled()
        numbers = await told(Client(session, f"http://127.0.0.1:{port}", None))
    named = {it["endpoint"]: value for it, value in numbers.all("endpoint_attempts_total")}
    assert len(named) == 3
    assert named.pop(OTHERS) == 2
    assert set(named.values()) == {1}


async def test_openmetrics_is_told_to_whoever_accepts_it(api: Api) -> None:
    await api.world.endpoint()
    await api.world.emit()
    await api.world.settled()
    client = await api.client(Scope.READ)
    accepted = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
    answer = await client("GET", PATH, headers={"Accept": accepted})
    assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
    families = list(
        openmetrics.text_string_to_metric_families(  # type: ignore[no-untyped-call]
            answer.body.decode()
        )
    )
    assert len(families) >= len(METRICS)


async def test_who_may_see_them(api: Api) -> None:
    (await api.with_token(None)("GET", PATH)).problem(401)
    (await api.with_token("af_guessed")("GET", PATH)).problem(401)
    (await (await api.client(Scope.WRITE, "acme"))("GET", PATH)).problem(403, "of all tenants")
    assert (await (await api.client(Scope.READ))("GET", PATH)).status == 200


async def test_case_77_with_the_database_gone_it_lives_and_is_not_ready(
    own_server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has been let in lately is told the engine's numbers all the same."""
    monkeypatch.setattr(exposition, "FRESH_SECONDS", 0.0)
    port = free_port()
    dsn = await own_server.start()
    settings = settings_for(dsn, web={"port": port}, database={"retry_seconds_max": 0.2})
    await migrate(settings)
    async with Database(settings.database) as database:
        tokens = [(await add_token(database, "t", Scope.READ))["token"] for _ in range(2)]
    base = f"http://127.0.0.1:{port}"
    try:
        async with start_engine(settings), aiohttp.ClientSession() as session:
            known, other = (Client(session, base, token) for token in tokens)
            nobody = Client(session, base, None)
            assert (await told(known)).one("database_up") == 1
            assert (await nobody("GET", "//readyz")).status == 200
            await own_server.stop()
            answer = await nobody("GET", "//readyz")
            assert answer.status == 503
            assert b"Postgres cannot be reached\n" in answer.body
            assert (await nobody("GET", "//livez")).status == 200
            numbers = await told(known)
            assert (numbers.one("database_up"), numbers.one("ready")) == (0, 0)
            names = {family.name.removeprefix(PREFIX) for family in numbers.families}
            assert {it.name for it in OF_DATABASE} & names == {"database_up"}
            (await other("GET", PATH)).problem(503)
            await own_server.start()
            await until_ready(nobody)
            assert (await told(other)).one("database_up") == 1
    finally:
        await own_server.stop()


async def until_ready(client: Client) -> None:
    async def ask() -> bool:
        return (await client("GET", "//readyz")).status == 200

    await until(ask, "ready")


async def test_case_78_work_that_nobody_takes_is_noticed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = await world.endpoint("/limited", rate_per_second=0.01, burst=1)
    hanging = await world.endpoint("/hanging", "hang", max_in_flight=1)
    port = free_port()
    settings: dict[str, Any] = {
        "engine": {"stuck_after_seconds": 0.4, "grace_seconds": 0.1},
        "web": {"port": port},
    }
    async with world.engine(**settings) as engine, aiohttp.ClientSession() as session:
        client = Client(session, f"http://127.0.0.1:{port}", None)
        for _ in range(3):
            await world.emit()
        await world.receiver.wait_for(2)
        await asyncio.sleep(0.8)  # their work is due, and has to wait: that is as it should be
        assert (await client("GET", "//readyz")).status == 200
        monkeypatch.setattr(engine._lease, "_wanted", lambda: None)
        free = await world.endpoint("/free", "500,200", retry_schedule_seconds=[0.05])
        async with asyncio.timeout(10):
            await world.emit()  # fan-out goes on, and what is due again is not leased
            while (answer := await client("GET", "//readyz")).status == 200:
                await asyncio.sleep(0.1)
        assert "deliveries have been due for" in answer.body.decode()
        assert free["id"] in answer.body.decode()
        assert not {limited["id"], hanging["id"]} & set(answer.body.decode().split())
        monkeypatch.undo()
        await until_ready(client)


async def test_what_was_found_a_moment_ago_is_told_again(
    world: World, api: Api, monkeypatch: Any
) -> None:
    client = await api.client(Scope.READ)
    before, *_ = await asyncio.gather(*(told(client) for _ in range(5)))
    await world.endpoint()
    assert (await told(client)).sum("endpoints") == before.sum("endpoints") == 0
    monkeypatch.setattr(exposition, "FRESH_SECONDS", 0.0)
    assert (await told(client)).sum("endpoints") == 1


def test_what_was_not_waited_for_has_no_lag() -> None:
    """What is polled, and what was never posted since its version was not made."""
    at = unix_us_of(datetime.now(UTC))
    delivery = Delivery(0, "ep_1", "evt_1", 0, 1, 1, at, 0.0, False)
    attempt = Attempt(delivery, Answered(200, None, b""), Delivered(), at, 5, "a", "")
    counting = Attempts(10)
    counting.saw([attempt, attempt._replace(lag_seconds=0.02)])
    lags = counting.samples()["event_lag_seconds"]
    assert isinstance(lags, Histogram)
    assert (sum(lags.counts), lags.sum_seconds) == (1, 0.02)


async def test_a_postgres_that_hangs_keeps_nobody_waiting(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = asyncio.Event()

    async def hang(*_: object) -> None:
        hangs.set()
        await asyncio.sleep(3600)

    monkeypatch.setattr(exposition, "vitals", hang)
    monkeypatch.setattr(exposition, "LOOK_SECONDS", 0.1)
    client = await api.client(Scope.READ)
    first, second = await asyncio.gather(told(client), told(client))
    assert hangs.is_set()
    for numbers in (first, second):
        assert (numbers.one("database_up"), numbers.one("ready")) == (0, 1)
