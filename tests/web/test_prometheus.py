"""A real Prometheus: it scrapes an engine, loads the rules, and each alert fires for its cause."""

import asyncio
import errno
import json
import re
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest
from click.testing import CliRunner

from aetherflow_hooks import Settings, migrate, start_engine
from aetherflow_hooks.cli import commands
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.flow.backlog import Backlog
from aetherflow_hooks.http.connections import Connector
from aetherflow_hooks.watch.metrics import METRICS, PREFIX, Kind
from aetherflow_hooks.web import exposition
from tests.conftest import World, settings_for, until
from tests.web.conftest import free_port

SHIPPED = files("aetherflow_hooks.watch") / "prometheus"
ALERTS = (SHIPPED / "alerts.yaml").read_text("utf-8")
DASHBOARD = (SHIPPED / "dashboard.json").read_text("utf-8")
NAMES = re.findall(r"- alert: (\w+)", ALERTS)

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="there is no Prometheus on this machine",
)


class Prometheus:
    """A server that scrapes one engine several times a second, and is asked by its API."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}/api/v1"

    async def get(self, path: str, **query: str) -> Any:
        async with self._session.get(f"{self._base}/{path}", params=query) as answer:
            found = await answer.json()
        assert found["status"] == "success", found
        return found["data"]

    async def firing(self) -> set[str]:
        alerts = (await self.get("alerts"))["alerts"]
        return {it["labels"]["alertname"] for it in alerts if it["state"] == "firing"}


def in_a_hurry(rules: str, **instead: str) -> str:
    """Give the rules with no patience: what holds for a moment fires."""
    rules = re.sub(r"\n +for: \w+", "", rules)
    rules = re.sub(r"\[\d+m\]", "[3s]", rules)
    for this, that in instead.items():
        assert rules.count(this) == 1
        rules = rules.replace(this, that)
    return rules


@asynccontextmanager
async def prometheus(folder: Path, target: int, rules: str) -> AsyncIterator[Prometheus]:
    port = free_port()
    (folder / "alerts.yaml").write_text(rules)
    (folder / "prometheus.yaml").write_text(
        "global: {scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}\n"
        "rule_files: [alerts.yaml]\n"
        "scrape_configs:\n"
        f"  - {{job_name: hooks, static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}\n"
    )
    process = await asyncio.create_subprocess_exec(
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
        env={"PATH": "/usr/bin:/bin", "GOMAXPROCS": "1"},
    )
    try:
        async with aiohttp.ClientSession() as session:
            server = Prometheus(session, port)

            async def is_there() -> bool:
                try:
                    return bool((await server.get("targets"))["activeTargets"])
                except (aiohttp.ClientError, json.JSONDecodeError):
                    return False

            await until(is_there, "Prometheus")
            yield server
    finally:
        process.kill()
        await process.wait()


async def fired(
    server: Prometheus, *names: str, meanwhile: Callable[[], Awaitable[object]] | None = None
) -> None:
    """Wait until these alerts fire, all at one time; `meanwhile` goes on happening."""
    firing: set[str] = set()

    async def all_of_them() -> bool:
        nonlocal firing
        if meanwhile is not None:
            await meanwhile()
        firing = await server.firing()
        return firing >= {f"AetherflowHooks{name}" for name in names}

    try:
        await until(all_of_them, ", ".join(names))
    except AssertionError as error:
        raise AssertionError(f"{names} were to fire, and {firing} do") from error


@asynccontextmanager
async def of_another(dsn: str, statement: str) -> AsyncIterator[None]:
    """Leave a transaction open that has done this."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "FRESH_SECONDS", 0.0)


def watched(world: World, port: int, **sections: Any) -> Settings:
    """Settings of an engine that Prometheus may ask."""
    return world.settings(web={"port": port}, metrics={"without_token": True}, **sections)


@needs_prometheus
async def test_alerts_of_receivers_fire_and_none_where_all_is_well(
    world: World, tmp_path: Path
) -> None:
    port = free_port()
    await world.endpoint("/well")
    rules = in_a_hurry(ALERTS)
    async with prometheus(tmp_path, port, rules) as server:
        async with start_engine(watched(world, port)):
            for _ in range(5):
                await world.emit()
            await world.settled()
            delivered = f'{PREFIX}attempts_total{{verdict="delivered"}} == 5'
            await until(lambda: found(server, delivered), "a scrape")
            assert (await server.get("rules"))["groups"][0]["name"] == "aetherflow-hooks"
            await until(lambda: _none(server), "the first moments to pass")
            for path in ("/dead", "/broken", "/failing"):
                await world.endpoint(path, "500", retry_schedule_seconds=[])
            late = await world.endpoint("/late", "200;wait=1", events=["to.late"])
            await world.connection.execute(
                "update aetherflow.endpoints set failing_since = now() where url like '%dead%'"
            )
            await fired(server, "MostFail", "GivenUp", "EndpointsFail", meanwhile=world.emit)
            await world.emit("to.late")
            await world.until(
                "select count(*) = 1 from aetherflow.deliveries where endpoint_id = $1"
                " and leased_until > now()",
                late["id"],
            )
            await world.connection.execute(
                "update aetherflow.deliveries set lease_token = 1 where endpoint_id = $1",
                late["id"],
            )
            await fired(server, "LeasesLost")
        for _ in range(3):
            await world.emit()
        await world.connection.execute(
            "update aetherflow.outbox set due_at = due_at - interval '5 minutes'"
        )
        async with start_engine(watched(world, port)):
            await fired(server, "Late")
        await fired(server, "NoEngine")


async def _none(server: Prometheus) -> bool:
    return not await server.firing()


async def found(server: Prometheus, query: str) -> bool:
    return bool((await server.get("query", query=query))["result"])


@needs_prometheus
async def test_alerts_of_postgres_fire(
    own_server: EmbeddedPostgres, receiver: Receiver, tmp_path: Path
) -> None:
    port = free_port()
    dsn = await own_server.start()
    settings = settings_for(
        dsn,
        web={"port": port},
        metrics={"without_token": True},
        database={"retry_seconds_max": 0.2},
        emit={"backlog_max": 2},
        sweep={"every_seconds": 3600},
    )
    await migrate(settings)
    rules = in_a_hurry(ALERTS, **{"> 1800": "> 0.5", "> 5e6": "> 5"})
    connection = await asyncpg.connect(dsn)
    try:
        async with Database(settings.database) as database:
            world = World(dsn, connection, database, receiver)
            await world.endpoint("/a")
            await world.endpoint("/b", events=["to.b"])
            await connection.execute(
                "alter table aetherflow.deliveries set (autovacuum_enabled = off)"
            )
            async with prometheus(tmp_path, port, rules) as server, start_engine(settings):
                for _ in range(20):
                    await world.emit()
                    await world.settled()
                for row in await world.rows(
                    "select relname from pg_class where relname ~ '^events_2' and relkind = 'r'"
                    " and right(relname, 8) > to_char(now() at time zone 'UTC', 'YYYYMMDD')"
                ):
                    await connection.execute(f"drop table aetherflow.{row['relname']}")
                async with of_another(dsn, "create table of_the_application (id int)"):
                    await fired(server, "VacuumHeldUp", "DeadRows", "PartitionsMissing")
                async with of_another(dsn, "lock table aetherflow.deliveries in exclusive mode"):
                    await world.emit()
                    await connection.execute(
                        "update aetherflow.outbox set due_at = due_at - interval '1 hour'"
                    )
                    await fired(server, "FanoutLate")
                await world.settled()
                await connection.execute("update aetherflow.endpoints set state = 'paused'")
                for _ in range(3):
                    await world.emit()
                await fired(server, "BacklogFull")
                await connection.close()
                await database.close()
                await own_server.stop()
                await fired(server, "PostgresAway", "NotReady")
    finally:
        await own_server.stop()


@needs_prometheus
async def test_alerts_of_the_engine_itself_fire(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def defect(_: Backlog) -> float:
        raise RuntimeError("a defect")

    make, lacking = Connector._socket, asyncio.Event()

    def sometimes(self: Connector, address_info: Any) -> socket.socket:
        if lacking.is_set():
            raise OSError(errno.EMFILE, "Too many open files")
        return make(self, address_info)

    port = free_port()
    settings = watched(
        world,
        port,
        pace={"slots": 1},
        record={"waiting_max": 1, "batch_max": 1},
        engine={"stuck_after_seconds": 0.4, "grace_seconds": 0.1},
    )
    monkeypatch.setattr(Backlog, "turn", defect)
    monkeypatch.setattr(Connector, "_socket", sometimes)
    await world.endpoint("/hang", "hang", timeout_seconds=60, events=["to.hang"])
    await world.endpoint("/quick", events=["to.quick"])
    async with prometheus(tmp_path, port, in_a_hurry(ALERTS)) as server:
        async with start_engine(settings) as engine:
            await fired(server, "Defect")
            async with of_another(world.dsn, "lock table aetherflow.attempts in exclusive mode"):
                await world.emit("to.quick")
                await fired(server, "ResultsPileUp")
            await world.settled()
            lacking.set()
            elsewhere = world.receiver.url("/new").replace("127.0.0.1", "localhost")
            await world.endpoint(url=elsewhere, events=["to.new"])  # with no connection yet
            await world.emit("to.new")
            await fired(server, "Prevented")
            lacking.clear()
            await world.settled()
            with monkeypatch.context() as idle:
                idle.setattr(engine._lease, "_wanted", lambda: None)
                await world.endpoint(
                    "/newer", "500,200", retry_schedule_seconds=[0.05], events=["to.newer"]
                )
                await world.emit("to.newer")
                await fired(server, "Stuck")
            await world.settled()
            await world.emit("to.hang")
            await fired(server, "Saturated")
        async with start_engine(settings, restored=True):
            await fired(server, "NotReady")


def test_each_alert_is_made_to_fire() -> None:
    tried = set(re.findall(r'"(\w+)"', Path(__file__).read_text("utf-8")))
    assert {name.removeprefix("AetherflowHooks") for name in NAMES} <= tried


@needs_prometheus
def test_promtool_finds_nothing_wrong_and_each_alert_has_a_cure(tmp_path: Path) -> None:
    printed = CliRunner().invoke(commands, ["monitoring", "alerts"])
    (tmp_path / "alerts.yaml").write_text(printed.output)
    checked = subprocess.run(
        ["promtool", "check", "rules", tmp_path / "alerts.yaml"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stderr
    assert f"{len(NAMES)} rules found" in checked.stdout
    assert ALERTS.count("cure:") == ALERTS.count("summary:") == len(NAMES)


@pytest.mark.parametrize("text", [ALERTS, DASHBOARD])
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(text: str) -> None:
    there = {metric.full_name for metric in METRICS.values()} | {
        f"{metric.full_name}_{part}"
        for metric in METRICS.values()
        for part in ("bucket", "sum", "count")
        if metric.kind in {Kind.HISTOGRAM, Kind.SUMMARY}
    }
    asked = set(re.findall(rf"\b{PREFIX}\w+", text))
    assert asked <= there
    assert len(asked) > 10


@needs_prometheus
async def test_the_dashboard_has_something_to_show(world: World, tmp_path: Path) -> None:
    port = free_port()
    await world.endpoint("/well")
    await world.endpoint("/dead", "500", retry_schedule_seconds=[0.05])
    queries = [
        target["expr"].replace("$__rate_interval", "1m").replace("$instance", ".*")
        for panel in json.loads(DASHBOARD)["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(queries) > 40
    async with (
        prometheus(tmp_path, port, "groups: []") as server,
        start_engine(watched(world, port)),
    ):
        for deliveries in (1, 2):  # what appears with its first count has no rate yet
            await world.emit()
            seen = f'{PREFIX}attempts_total{{verdict="dead"}} == {deliveries}'
            await until(partial(found, server, seen), "a scrape")
        for query in queries:
            await until(partial(found, server, query), query)
