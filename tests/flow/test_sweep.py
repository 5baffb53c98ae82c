"""Sweep alone: what is past its time goes, and nothing else."""

import asyncio
import gzip
import json
import os
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks.db import Database
from aetherflow_hooks.flow import archive as archiving
from aetherflow_hooks.flow.archive import Archive
from aetherflow_hooks.flow.sweep import Sweep
from tests.conftest import World, settings_for

OLD = "evt_5f5e10000000000000000000a"


def sweep(world: World, **given: Any) -> Sweep:
    settings = world.settings(sweep=given)
    archive = Archive(world.database, settings.sweep.archive_folder)
    return Sweep(world.database, settings, shards=lambda: range(16), archive=archive.keep)


async def partitions(world: World, parent: str) -> list[str]:
    rows = await world.rows(
        "select inhrelid::regclass::text as name from pg_inherits"
        " where inhparent = $1::text::regclass order by 1",
        f"aetherflow.{parent}",
    )
    return [row["name"].removeprefix(f"aetherflow.{parent}_") for row in rows]


async def add_old_day(world: World) -> str:
    """Make the partitions of a day long ago, with an event in it; give the event's id."""
    for parent, low, high in (
        (
            "events",
            "aetherflow.event_id_at('2024-01-15Z')",
            "aetherflow.event_id_at('2024-01-16Z')",
        ),
        ("attempts", "'2024-01-15Z'::timestamptz", "'2024-01-16Z'::timestamptz"),
    ):
        bounds = await world.rows(f"select {low}::text as low, {high}::text as high")
        await world.connection.execute(
            f"create table aetherflow.{parent}_20240115 partition of aetherflow.{parent}"
            f" for values from ('{bounds[0]['low']}') to ('{bounds[0]['high']}')"
        )
    event_id: str = await world.value(
        "insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)"
        " select 3, aetherflow.event_id_at('2024-01-15 12:00Z') || '00000000003', '', 'a', '{}',"
        " '2024-01-15 12:00Z' returning id"
    )
    return event_id


async def test_partitions_are_made_ahead(world: World) -> None:
    await sweep(world, partitions_ahead_days=10).turn()
    today = await world.value("select (now() at time zone 'UTC')::date")
    for parent in ("events", "attempts"):
        days = await partitions(world, parent)
        assert len(days) == 12  # yesterday, today, ten more
        assert f"{today:%Y%m%d}" == days[1]


async def test_a_day_past_its_retention_is_dropped(world: World) -> None:
    event_id = await add_old_day(world)
    await sweep(world).turn()
    assert "20240115" not in await partitions(world, "events")
    assert "20240115" not in await partitions(world, "attempts")
    assert await world.value("select to_regclass('aetherflow.events_20240115')") is None
    assert not await world.rows("select from aetherflow.events where id = $1", event_id)


async def test_events_and_attempts_have_retentions_of_their_own(world: World) -> None:
    await add_old_day(world)
    await sweep(world, events_days=3650).turn()
    assert "20240115" in await partitions(world, "events")
    assert "20240115" not in await partitions(world, "attempts")


async def test_an_event_that_still_waits_in_the_outbox_keeps_its_day(world: World) -> None:
    event_id = await add_old_day(world)
    await world.connection.execute(
        "insert into aetherflow.outbox (shard, due_at, event_id, tenant, type)"
        " values (3, now(), $1, '', 'a')",
        event_id,
    )
    await sweep(world).turn()
    assert "20240115" in await partitions(world, "events")
    await world.connection.execute("delete from aetherflow.outbox")
    await sweep(world).turn()
    assert "20240115" not in await partitions(world, "events")


async def test_a_delivery_that_outlives_its_event_is_given_up_and_said_to_be(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    event_id = await add_old_day(world)
    new = await world.emit()
    await world.connection.execute(
        "insert into aetherflow.deliveries"
        " (shard, event_shard, endpoint_id, event_id, due_at, attempt) values"
        " (5, 3, 'ep_000000000005', $1, now(), 2), (5, 3, 'ep_000000000005', $2, now(), 0)",
        event_id,
        new,
    )
    await sweep(world).turn()
    left = await world.rows("select event_id from aetherflow.deliveries")
    assert [row["event_id"] for row in left] == [new]
    dead = await world.rows("select event_id, reason, attempts from aetherflow.dead")
    assert [tuple(row) for row in dead] == [(event_id, "expired", 2)]
    assert "sweep.expired" in caplog.text


async def test_a_day_whose_dropping_was_cut_short_is_dropped_by_the_next_sweep(
    world: World,
) -> None:
    await add_old_day(world)
    reader = await asyncpg.connect(world.dsn)
    transaction = reader.transaction(isolation="repeatable_read")
    await transaction.start()
    await reader.fetch("select * from aetherflow.events")  # what a detaching has to wait for
    await world.connection.execute("set statement_timeout = 300")
    with pytest.raises(asyncpg.QueryCanceledError):
        await world.connection.execute(
            "alter table aetherflow.events detach partition aetherflow.events_20240115 concurrently"
        )
    await world.connection.execute("reset statement_timeout")
    await transaction.rollback()
    await reader.close()
    await sweep(world).turn()
    assert "20240115" not in await partitions(world, "events")


async def test_a_day_that_goes_keeps_no_delivery_waiting(world: World) -> None:
    """Case 74, but for its 10 million rows: those are measured, `bench retention`.

    Even while somebody reads the day, so that it can only be detached once they are done.
    """
    await add_old_day(world)
    reader = await asyncpg.connect(world.dsn)
    transaction = reader.transaction(isolation="repeatable_read")
    await transaction.start()
    await reader.fetch("select * from aetherflow.attempts")
    await world.endpoint()
    async with world.engine(sweep={"every_seconds": 0.1, "attempts_days": 1}):
        await world.until(
            "select exists (select from pg_stat_activity"
            " where query ~ 'detach partition' and wait_event_type = 'Lock')"
        )
        for _ in range(20):
            await world.emit()
        await world.receiver.wait_for(20)
        await world.settled()
        assert await world.value("select count(*) from aetherflow.attempts") == 20
        assert await world.value("select to_regclass('aetherflow.attempts_20240115')") is not None
        await transaction.rollback()
        await reader.close()
        await world.until("select to_regclass('aetherflow.attempts_20240115') is null")


async def test_idempotency_keys_and_the_dead_go_with_their_events(world: World) -> None:
    old = "evt_5f00000000000000000000a0"
    await world.connection.execute(
        "insert into aetherflow.idempotency_keys values (2, '', 'old', $1)", old
    )
    await world.emit(idempotency_key="new")
    for died_at, event_id in (("31 days", old), ("1 day", "evt_660000000000000000000000")):
        await world.connection.execute(
            "insert into aetherflow.dead values (1, 'ep_1', $1, 1, 4, 'exhausted',"
            f" now() - interval '{died_at}')",
            event_id,
        )
    await sweep(world, batch_max=1).turn()
    assert [
        row["key"] for row in await world.rows("select key from aetherflow.idempotency_keys")
    ] == ["new"]
    assert await world.value("select count(*) from aetherflow.dead") == 1


async def test_settings_reach_emit(world: World) -> None:
    settings = world.settings(emit={"data_max_bytes": 10_000}, sweep={"events_days": 3})
    archive = Archive(world.database, "").keep
    await Sweep(world.database, settings, shards=lambda: [0], archive=archive).turn()
    control = await world.rows("select data_max_bytes, events_days from aetherflow.control")
    assert [tuple(row) for row in control] == [(10_000, 3)]


async def test_a_day_that_was_detached_and_not_dropped_is_dropped_by_the_next_sweep(
    world: World,
) -> None:
    await add_old_day(world)
    await world.connection.execute(
        "alter table aetherflow.events detach partition aetherflow.events_20240115"
    )
    await sweep(world).turn()
    assert await world.value("select to_regclass('aetherflow.events_20240115')") is None


async def test_deleted_endpoints_leave_nothing_behind(world: World) -> None:
    """Several at once, with more waiting than one statement removes."""
    ids = [(await world.endpoint(f"/{number}"))["id"] for number in range(3)]
    await world.connection.execute("update aetherflow.endpoints set shard = 7")
    for endpoint_id in ids:
        await world.connection.execute(
            "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)"
            " select 7, 0, $1, 'evt_' || n, now() from generate_series(1, 5) n",
            endpoint_id,
        )
        await world.database.value("delete_endpoint", endpoint_id)
    await world.connection.execute("update aetherflow.endpoints set updated_at = '2020-01-01Z'")
    for _ in range(3):
        await sweep(world, batch_max=4).turn()
    assert await world.value("select count(*) from aetherflow.deliveries") == 0
    assert await world.value("select count(*) from aetherflow.endpoints") == 0


def lines_in(file: Path) -> list[Any]:
    with gzip.open(file, "rt", encoding="utf-8") as opened:
        return [json.loads(line) for line in opened]


async def test_a_day_is_archived_before_it_goes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiving, "BYTES_TOGETHER", 20_000)
    await add_old_day(world)
    await world.connection.execute(
        "insert into aetherflow.events (shard, id, tenant, type, data, emitted_at)"
        " select 3, aetherflow.event_id_at('2024-01-15 13:00Z') || lpad(to_hex(n), 11, '0'), 'ä',"
        r""" 'a', '{"text":"\\ \n ü \u0001","n":' || n || '}', '2024-01-15 13:00Z'"""
        " from generate_series(1, 1000) n"
    )
    there = await world.rows("select row_to_json(e)::text from aetherflow.events e order by e.id")
    await sweep(world, archive_folder=str(tmp_path)).turn()
    assert "20240115" not in await partitions(world, "events")
    assert "20240115" not in await partitions(world, "attempts")
    database = await world.value("select current_database()")
    file = tmp_path / f"{database}.aetherflow.events_20240115.ndjson.gz"
    assert file.stat().st_mode & 0o777 == 0o600  # it holds what customers are told
    found = lines_in(file)
    assert sorted(found, key=lambda row: str(row["id"])) == [json.loads(row[0]) for row in there]
    assert lines_in(tmp_path / f"{database}.aetherflow.attempts_20240115.ndjson.gz") == []
    assert len(list(tmp_path.iterdir())) == 2


async def test_what_cannot_be_archived_keeps_its_day(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await add_old_day(world)
    nowhere = tmp_path / "not" / "there"
    await sweep(world, archive_folder=str(nowhere)).turn()
    assert "20240115" in await partitions(world, "events")
    assert "sweep.unarchived" in caplog.text
    nowhere.mkdir(parents=True)
    await sweep(world, archive_folder=str(nowhere)).turn()
    assert "20240115" not in await partitions(world, "events")
    (file,) = nowhere.glob("*.events_*")
    assert len(lines_in(file)) == 1


async def test_an_archive_that_was_cut_short_is_written_anew(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_id = await add_old_day(world)
    reached = asyncio.Event()
    rows = Database.rows

    async def held(self: Database, name: str, *values: Any) -> Any:
        if name == "read_partition":
            reached.set()
            await asyncio.sleep(3600)
        return await rows(self, name, *values)

    with monkeypatch.context() as patched:
        patched.setattr(Database, "rows", held)
        turn = asyncio.create_task(sweep(world, archive_folder=str(tmp_path)).turn())
        await reached.wait()
        turn.cancel()
        await asyncio.gather(turn, return_exceptions=True)
    assert [it for it in tmp_path.iterdir() if ".attempts_" not in it.name] == []
    assert "20240115" in await partitions(world, "events")
    await sweep(world, archive_folder=str(tmp_path)).turn()
    (file,) = tmp_path.glob("*.events_*")
    (row,) = lines_in(file)
    assert row["id"] == event_id


async def test_an_archive_is_never_written_over(world: World, tmp_path: Path) -> None:
    """It may be of another database of the same name, or of a process that was killed."""
    await add_old_day(world)
    database = await world.value("select current_database()")
    left = tmp_path / f".{database}.aetherflow.events_20240115.0123456789abcdef.part"
    left.write_bytes(b"half of it")
    there = tmp_path / f"{database}.aetherflow.events_20240115.ndjson.gz"
    there.write_bytes(b"of somebody else")
    await sweep(world, archive_folder=str(tmp_path)).turn()
    assert there.read_bytes() == b"of somebody else"
    assert not left.exists()
    (row,) = lines_in(tmp_path / f"{database}.aetherflow.events_20240115.2.ndjson.gz")
    assert row["type"] == "a"


async def test_who_owns_no_table_archives_and_drops_all_the_same(
    world: World, tmp_path: Path
) -> None:
    await world.connection.execute("select aetherflow.make_roles()")
    user = f"worker_{os.getpid()}"
    await world.connection.execute(f"create role {user} login in role aetherflow_engine")
    try:
        await add_old_day(world)
        settings = settings_for(
            world.dsn.replace("postgres@", f"{user}@"), sweep={"archive_folder": str(tmp_path)}
        )
        async with Database(settings.database, for_flow=True) as database:
            archive = Archive(database, str(tmp_path))
            await Sweep(database, settings, shards=lambda: [0], archive=archive.keep).turn()
        assert "20240115" not in await partitions(world, "events")
        (file,) = tmp_path.glob("*.events_*")
        assert len(lines_in(file)) == 1
    finally:
        await world.connection.execute(f"drop role {user}")
