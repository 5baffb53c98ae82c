"""The bench: that it measures what it says, and never a turn that lost something."""

import asyncio
import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from aetherflow_hooks.config import load
from aetherflow_hooks.dev.bench import BenchFailed, drain, peers, plan, plot, suite
from aetherflow_hooks.dev.bench.figures import Leg, Turn, quantile, ratios, spread, summary
from aetherflow_hooks.dev.bench.process import Child, clean_environment
from aetherflow_hooks.dev.bench.receivers import own_sink
from aetherflow_hooks.dev.bench.report import as_text
from aetherflow_hooks.dev.bench.server import Server
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from tests.conftest import World


def turn(contender: str, round_: int, per_second: float) -> Turn:
    return Turn(contender=contender, round=round_, deliveries=1_000, seconds=1_000 / per_second)


def test_a_ratio_compares_turns_of_the_same_round() -> None:
    """The machine was twice as fast in the second round, which makes no ratio."""
    turns = [turn("ours", 1, 300), turn("bare", 1, 200), turn("ours", 2, 600), turn("bare", 2, 400)]
    assert ratios(turns, "ours", "bare") == [pytest.approx(1.5)] * 2
    first, second = summary(turns, "bare")
    assert (first["contender"], first["ratio"]) == ("ours", pytest.approx(1.5))
    assert first["per_second"] == pytest.approx(450)
    assert second["ratio"] == 1


def test_a_quantile_is_a_value_that_was_seen() -> None:
    values = [float(number) for number in range(100, 0, -1)]
    assert quantile(values, 0.5) == 50
    assert quantile(values, 0.99) == 99
    assert quantile([7.0], 0.99) == 7
    assert spread([0.001, 0.002])["max_ms"] == 2


@pytest.fixture(scope="module")
def measured(server: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the short legs of a little of everything, as a user would."""
    folder = tmp_path_factory.mktemp("plots")
    command = [sys.executable, "-m", "aetherflow_hooks", "bench", "--quick", "--json"]
    command += ["--dsn", server.dsn(), "--own-receiver", "drain", "latency"]
    ended = subprocess.run(command, capture_output=True, cwd=folder, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    assert b"round 1 of 1: ours " in ended.stderr  # progress
    return orjson.loads(ended.stdout)


def test_it_measures_ours_beside_the_bare_loop(measured: Any) -> None:
    drained, _ = measured["legs"]
    rows = {row["contender"]: row for row in drained["rows"]}
    assert {"ours", "bare"} <= set(rows)
    assert {name for name in peers.NEEDS if peers.is_installed(name)} <= set(rows)
    ours = rows["ours"]
    assert ours["deliveries"] == plan.QUICK.events
    assert ours["ratio"] == pytest.approx(ours["per_second"] / rows["bare"]["per_second"])
    assert 0 < ours["wal_bytes_per_1000"] < 10_000_000
    assert 1 <= ours["connections_max"] <= 8
    if sys.platform == "linux":
        assert ours["cpu_us"] > 0
        assert ours["memory_max_mib"] > 10
    assert "our own" in measured["machine"]["receiver"]


def test_it_measures_the_way_from_commit_to_receiver(measured: Any) -> None:
    _, latency = measured["legs"]
    single, least, offered = latency["rows"]
    assert single["events"] == least["events"] == plan.QUICK.single_events
    assert offered["events"] == plan.QUICK.offered_per_second * plan.QUICK.offered_seconds
    for row in (single, least, offered):
        assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert [points[-1][1] for points in latency["series"].values()] == [100.0] * 3


def test_it_is_told_as_tables_and_drawn(measured: Any, tmp_path: Path) -> None:
    legs = [Leg(**leg) for leg in measured["legs"]]
    text = as_text(measured | {"legs": legs})
    assert "Drain of stored events" in text
    assert "wal bytes" not in text
    assert "WAL KB /1,000" in text
    if importlib.util.find_spec("matplotlib"):
        (file,) = plot.draw(legs, tmp_path)
        assert file.read_text("utf-8").startswith("<?xml")


def test_plots_that_cannot_be_drawn_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "find_spec", lambda _: None)
    with pytest.raises(BenchFailed, match=r"aetherflow-hooks\[bench\]"):
        plot.check()


async def test_a_turn_that_lost_something_is_no_figure(world: World, tmp_path: Path) -> None:
    """Half of its deliveries are thrown away behind its back."""
    settings = load(environment={}, given={"profile": "development"})
    async with (
        Server(settings, tmp_path, world.dsn) as server,
        own_sink() as sink,
        server.database() as scratch,
    ):
        await scratch.connection.execute(
            "create rule some_are_lost as on insert to aetherflow.attempts "
            "where new.event_id < 'g' do instead nothing"
        )
        with pytest.raises(BenchFailed, match="stored as delivered"):
            await drain.drain_ours(scratch, sink, events=50, endpoints=5)


async def test_a_contender_that_breaks_says_why() -> None:
    async with Child("peers.nobody") as child:
        with pytest.raises(BenchFailed, match=r"peers\.nobody ended too early: .*No module named"):
            await child.ask({})


async def test_nothing_is_left_behind(world: World, tmp_path: Path) -> None:
    settings = load(environment={}, given={"profile": "development"})
    async with Server(settings, tmp_path, world.dsn) as server:
        async with server.database() as scratch, own_sink() as sink:
            await drain.drain_ours(scratch, sink, events=10, endpoints=2)
        names = await server._admin.fetch("select datname from pg_database")
        await asyncio.sleep(0)
    assert not [name for (name,) in names if name.startswith("aetherflow_bench")]


def test_no_child_learns_of_a_real_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://real/")
    monkeypatch.setenv("AETHERFLOW_HOOKS_DATABASE__DSN", "postgresql://real/")
    assert not [value for value in clean_environment().values() if "real/" in value]


def test_every_leg_can_be_asked_for() -> None:
    from aetherflow_hooks.cli.bench import LEGS  # noqa: PLC0415

    assert tuple(suite.LEGS) == LEGS
