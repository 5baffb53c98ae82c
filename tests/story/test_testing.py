"""The plugin for pytest: applications with tests of their own, and every driver."""

import asyncio
import collections
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import aetherflow_hooks
from aetherflow_hooks import sync, testing
from aetherflow_hooks.receive import Hooks, read
from aetherflow_hooks.receive.examples import EXAMPLES
from aetherflow_hooks.testing import (
    FORGERIES,
    SECRET,
    DeliverNow,
    Emitted,
    forge_for_test,
    sign_for_test,
)
from tests import applications
from tests.conftest import World
from tests.story.test_drivers import AWAITED, NOT_AWAITED

ROOT = Path(__file__).parents[2]
DATA = '{"n":  1.0}'
ALONE = "[pytest]\nfilterwarnings = error\n"
OTHERS = [f"-pno:{plugin}" for plugin in ("asyncio", "anyio", "xdist", "schemathesis")]


async def results_of(application: str, world: World, folder: Path, **names: str) -> str:
    """Run the tests of an application as its people would; give what pytest says."""
    settings = folder / "pytest.ini"
    settings.write_text(ALONE)
    its = Path(str(applications.__file__)).parent / application
    done = await asyncio.to_thread(
        subprocess.run,
        [
            *(sys.executable, "-m", "pytest", *OTHERS, "-p", "no:cacheprovider"),
            *("-c", str(settings), "--confcutdir", str(its), str(its)),
        ],
        cwd=ROOT,
        env={**os.environ, "DATABASE_URL": world.dsn, "PYTHONPATH": str(ROOT), **names},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_an_application_on_sqlalchemy(world: World, tmp_path: Path) -> None:
    await world.endpoint("/all")
    told = await results_of("on_sqlalchemy", world, tmp_path)
    assert "6 passed" in told
    (request,) = world.receiver.at("/all")
    assert request.headers["x-aetherflow-event"] == "order.placed"
    assert await world.value("select count(*) from aetherflow.events") == 1


async def test_an_application_on_django(world: World, tmp_path: Path) -> None:
    settings = {"DJANGO_SETTINGS_MODULE": "tests.applications.on_django.settings"}
    told = await results_of(
        "on_django", world, tmp_path, ENDPOINT=world.receiver.url("/all"), **settings
    )
    assert "24 passed" in told
    assert len(world.receiver.at("/all")) == 1


@pytest.mark.parametrize("way", [*AWAITED, *NOT_AWAITED])
async def test_what_is_emitted_is_seen_before_it_is_committed(
    way: Callable[[str], AbstractAsyncContextManager[Any]], world: World
) -> None:
    await world.endpoint("/x", tenant="acme")
    await world.emit("of.before")
    options: dict[str, Any] = {"tenant": "acme", "ordering_key": "k", "channels": ["eu", "us"]}
    async with way(world.dsn) as connection:
        emitted = Emitted(connection)
        if way in AWAITED:
            event_id = await aetherflow_hooks.emit(connection, "a.b", DATA, **options)
            await aetherflow_hooks.emit(connection, "a.c", {})
            (event,) = await emitted.fetch("a.b")
            kinds = [it.type for it in await emitted.fetch()]
            assert len(await emitted.fetch("a.b", "a.c", "a.d")) == 2
        else:
            event_id = sync.emit(connection, "a.b", DATA, **options)
            sync.emit(connection, "a.c", {})
            (event,) = emitted("a.b")
            kinds = [it.type for it in emitted()]
            assert len(emitted("a.b", "a.c", "a.d")) == 2
    assert kinds == ["a.b", "a.c"]
    assert (event.id, event.data, event.tenant) == (event_id, {"n": 1.0}, "acme")
    assert (event.ordering_key, event.channels) == ("k", ["eu", "us"])
    await world.deliver()
    (request,) = world.receiver.at("/x")
    assert request.body == event.body
    body, headers = event.signed()
    assert read(body, headers, SECRET).id == event_id
    assert {name.lower() for name in headers} == set(request.headers) - {
        *("host", "content-length", "user-agent", "accept", "accept-encoding")
    }


async def test_of_what_is_committed_one_says_from_when(world: World) -> None:
    await world.emit("of.before")
    emitted = Emitted(world.connection)
    emitted.since = await world.value("select clock_timestamp()")
    await world.emit("a.b")
    assert [event.type for event in await emitted.fetch()] == ["a.b"]


async def test_deliver_now_tries_each_once(world: World) -> None:
    good = await world.endpoint("/good")
    bad = await world.endpoint("/bad", "500")
    ordered = await world.endpoint("/ordered", "503", ordering="block")
    paused = await world.endpoint("/paused")
    await world.database.value("set_endpoint_state", paused["id"], "paused")
    ids = [await world.emit() for _ in range(2)]
    await world.emit("in.a.week", deliver_at=datetime.now(UTC) + timedelta(days=7))
    attempts = await DeliverNow(world.settings()).run()
    told = {(it.endpoint_id, it.event_id, it.status) for it in attempts}
    assert told == {
        *((good["id"], event_id, 200) for event_id in ids),
        *((bad["id"], event_id, 500) for event_id in ids),
        (ordered["id"], ids[0], 503),
    }
    assert len(attempts) == 5
    assert await DeliverNow(world.settings()).run() == []


@pytest.mark.parametrize("script", ["500", "close"])
async def test_deliver_now_does_not_wait_for_an_endpoint_that_is_left_alone(
    world: World, script: str
) -> None:
    bad = await world.endpoint("/bad", script, tenant="bad")
    good = await world.endpoint("/good")
    for _ in range(40):
        await world.emit(tenant="bad")
        await world.emit()
    attempts = await DeliverNow(world.settings()).run()
    by_endpoint = collections.Counter(it.endpoint_id for it in attempts)
    assert by_endpoint[good["id"]] == 40
    assert 3 <= by_endpoint[bad["id"]] <= 40


async def test_deliver_now_says_when_it_does_not_come_to_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(testing, "DELIVER_SECONDS_MAX", 0.2)
    await world.endpoint("/slow", "hang")
    await world.emit()
    with pytest.raises(TimeoutError, match="not everything that is due was sent"):
        await DeliverNow(world.settings(engine={"grace_seconds": 0.1})).run()


@pytest.mark.parametrize("event_type", EXAMPLES)
def test_a_sample_is_taken(event_type: str) -> None:
    body, headers = sign_for_test(event_type)
    webhook = read(body, headers, SECRET)
    assert (webhook.type, webhook.data) == (event_type, EXAMPLES[event_type])


@pytest.mark.parametrize("kind", FORGERIES)
def test_a_forgery_is_refused(kind: str) -> None:
    hooks = Hooks(SECRET)
    assert hooks.receive_sync(*forge_for_test(kind)).status == 401
    assert hooks.receive_sync(*sign_for_test()).status == 200


def test_an_unknown_forgery_is_told() -> None:
    with pytest.raises(ValueError, match="is none of with another secret"):
        forge_for_test("with nothing")


async def test_the_examples_are_those_of_the_catalogue(world: World) -> None:
    rows = await world.rows("select type, example from aetherflow.event_types where is_built_in")
    assert {row["type"]: json.loads(row["example"]) for row in rows} == EXAMPLES


def test_pytest_alone_knows_the_fixtures_and_loads_nothing_more(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text(ALONE)
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_light():\n"
        "    heavy = {'asyncpg', 'aiohttp', 'orjson', 'pydantic', 'structlog', 'cryptography'}\n"
        "    assert not heavy & set(sys.modules)\n"
        "def test_sample(sample_webhook, webhook_secret): assert sample_webhook.body\n"
        "def test_forged(forged_webhook): assert forged_webhook.body\n"
        "def test_connection(emitted): pass\n"
        "def test_dsn(deliver_now): pass\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("DATABASE", "AETHER"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *OTHERS, "-pno:django", str(tmp_path)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "19 passed, 2 errors" in done.stdout, done.stdout
    assert "a fixture named aetherflow_connection" in done.stdout
    assert "set DATABASE_URL" in done.stdout
