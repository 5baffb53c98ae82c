"""The README is run: every block does what it says, against a real database."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp.web
import asyncpg
import fastapi
import pytest
import sqlalchemy
from aiohttp.test_utils import TestServer
from sqlalchemy.orm import Session

from aetherflow_hooks.db import definition_of
from aetherflow_hooks.manage.doctor import CHECKS
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.secrets import rotate_secret
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.receive import verify
from aetherflow_hooks.rules.sealing import Keyring
from aetherflow_hooks.rules.states import mermaid
from aetherflow_hooks.testing import SECRET, sign_for_test
from tests.chaos.scenes import SCENES
from tests.conftest import PG_JSONSCHEMA, World
from tests.contract.test_cli import our_log_as_it_was  # noqa: F401  a fixture
from tests.contract.test_cli import run as run_here
from tests.story.test_testing import ALONE, OTHERS
from tests.web.conftest import free_port
from tests.web.test_listen import listening
from tests.web.test_prometheus import ALERTS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHOWN_ENDPOINT = "ep_7f3a9c21d04e"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def environment(world: World) -> dict[str, str]:
    folder = Path(sys.executable).parent
    return {
        **{name: value for name, value in os.environ.items() if "AETHERFLOW" not in name},
        "DATABASE_URL": world.dsn,
        "PATH": f"{folder}:{os.environ['PATH']}",
    }


async def run(command: list[str], world: World, cwd: Path = ROOT) -> str:
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment(world),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


async def run_line(line: str, world: World) -> str:
    """Run a line as a shell would: where it is one command of ours alone, in this process."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list(lexer)
    names = {"DATABASE_URL": world.dsn}
    while re.match(r"[A-Z_]+=", words[0]):
        name, _, names[name] = words.pop(0).partition("=")
    if words.pop(0) != "aetherflow-hooks" or any(set(word) <= set("();<>|&") for word in words):
        return await run(["/bin/sh", "-c", line], world)
    said = await asyncio.to_thread(run_here, *words, **names)
    assert said.code == 0, f"{line}\n{said.out}\n{said.err}"
    return said.out


def test_every_kind_of_block_is_known() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python", "sql", "json", "text", "mermaid"}


def commands() -> list[str]:
    return [line for text in blocks("sh") for line in text.splitlines()]


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("make ")])
async def test_make_has_what_the_readme_makes(line: str, world: World) -> None:
    told = await run([*line.split(), "--dry-run", "VENV=/nonexistent"], world)
    assert told


@pytest.mark.parametrize("text", [text for text in blocks("sh") if "make " not in text])
async def test_commands_run(text: str, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    endpoint = await world.endpoint()
    if "promote-secret" in text:
        await rotate_secret(world.database, endpoint["id"], keyring=Keyring({}), leads=False)
    for line in text.splitlines():
        if line.split()[-1] == "run":
            continue  # a daemon: what it does is the matter of tests/faults
        if line.endswith((" doctor", " --watch")):
            continue  # one finds that this Postgres is a toy, the other has no end
        if " listen " in line or "3000" in line or "receiver.py" in line:
            continue  # see below: two programs that talk to each other
        if re.match("export ", line):
            continue
        line = line.replace(SHOWN_ENDPOINT, endpoint["id"])  # noqa: PLW2901
        assert await run_line(line, world)


@pytest.mark.parametrize("text", blocks("sql"))
async def test_sql_runs(text: str, world: World) -> None:
    if "jsonb_matches_schema" in text:
        await world.connection.execute(PG_JSONSCHEMA)
    try:
        await world.connection.execute(text)
    finally:
        for role in re.findall(r"create role (\w+);", text):
            await world.connection.execute(f"drop owned by {role}; drop role {role}")


async def test_the_application_runs_and_its_event_arrives(world: World, tmp_path: Path) -> None:
    program = next(text for text in blocks("python") if "asyncio.run" in text)
    (tmp_path / "app.py").write_text(program)
    told = await run([sys.executable, "app.py"], world, tmp_path)
    event_id = told.removeprefix("committed ").strip()
    assert await world.value("select type from aetherflow.events where id = $1", event_id)


async def test_the_engine_runs_within_web_applications(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    names: dict[str, Any] = {}
    for part in ("def delivering", "def with_engine"):
        program = next(text for text in blocks("python") if part in text)
        exec(compile(program, "README.md", "exec"), names)
    monkeypatch.setenv("DATABASE_URL", world.dsn)
    monkeypatch.setenv("AETHERFLOW_HOOKS_PROFILE", "development")
    await world.endpoint()
    arrived = 0

    async def it_delivers() -> None:
        nonlocal arrived
        arrived += 1
        await world.emit()
        await world.receiver.wait_for(arrived)
        await world.settled()

    on_fastapi = fastapi.FastAPI(lifespan=names["delivering"])
    async with on_fastapi.router.lifespan_context(on_fastapi):
        await it_delivers()
    on_aiohttp = aiohttp.web.Application()
    on_aiohttp.cleanup_ctx.append(names["engine"])
    async with TestServer(on_aiohttp):
        await it_delivers()
    asked: list[str] = []

    async def django(scope: Any, _receive: object, _send: object) -> None:
        asked.append(scope["type"])

    told: list[str] = []

    async def send(message: Any) -> None:
        told.append(message["type"])

    stopping = asyncio.Event()
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        message = next(messages)
        if message == "lifespan.shutdown":
            await stopping.wait()
        return {"type": message}

    application = names["with_engine"](django)
    running = asyncio.create_task(application({"type": "lifespan"}, receive, send))
    await it_delivers()
    await application({"type": "http"}, receive, send)
    stopping.set()
    await running
    assert asked == ["http"]
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_the_doctors_words_are_its_own() -> None:
    shown = next(text for text in blocks("text") if "to look at" in text)
    assert f"{len(CHECKS)} checks; serious: 1, to look at: 1" in shown
    assert definition_of("deliveries_due", "aetherflow") in shown
    alerts = ALERTS.count("- alert:")
    assert f"Each of the {alerts} alerts" in README


async def test_a_program_emits_by_the_api(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "app.py").write_text(next(it for it in blocks("python") if "urlopen" in it))
    token = (await add_token(world.database, "ci", Scope.WRITE, tenant="acme"))["token"]
    port = free_port()
    monkeypatch.setenv("HOOKS_TOKEN", token)
    monkeypatch.setenv("HOOKS_URL", f"http://127.0.0.1:{port}")
    async with world.engine(web={"port": port}):
        told = json.loads(await run([sys.executable, "app.py"], world, tmp_path))
    assert await world.value("select tenant from aetherflow.events where id = $1", told["id"])


async def test_the_receivers_function_verifies(world: World) -> None:
    program = next(text for text in blocks("python") if "def handle" in text)
    names: dict[str, object] = {}
    exec(compile(program, "README.md", "exec"), names)
    handle = names["handle"]
    assert callable(handle)
    added = await world.endpoint()
    async with world.engine():
        await world.emit()
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    assert handle(request.body, dict(request.headers), added["secret"]) == 204
    assert handle(request.body + b" ", dict(request.headers), added["secret"]) == 401


async def test_an_application_emits_by_its_own_driver(world: World) -> None:
    program = next(text for text in blocks("python") if "def finish" in text)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    await world.endpoint()
    engine = sqlalchemy.create_engine(world.dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    with Session(engine) as session:
        names["finish"](session, "wf_1", ["u1", "u2"])
    engine.dispose()
    assert await world.value("select count(*) from aetherflow.events") == 3


async def pytest_runs(folder: Path, world: World) -> str:
    (folder / "pytest.ini").write_text(ALONE)
    return await run([sys.executable, "-m", "pytest", *OTHERS, "-pno:django"], world, folder)


async def test_an_application_is_tested(world: World, tmp_path: Path) -> None:
    application = next(text for text in blocks("python") if "def finish" in text)
    url = world.dsn.replace("postgresql:", "postgresql+psycopg:", 1)
    engine = f"import sqlalchemy\nengine = sqlalchemy.create_engine({url!r})\n"
    (tmp_path / "shop.py").write_text(f"{application}\n{engine}")
    tests = next(text for text in blocks("python") if "def aetherflow_connection" in text)
    (tmp_path / "test_shop.py").write_text(tests)
    assert "1 passed" in await pytest_runs(tmp_path, world)
    assert await world.value("select count(*) from aetherflow.events") == 0


async def test_a_receiver_is_tested(world: World, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        "import flask, pytest\n"
        "from aetherflow_hooks.receive import Hooks\n"
        "from aetherflow_hooks.receive.frameworks.flask import endpoint\n"
        "@pytest.fixture\n"
        "def client(webhook_secret):\n"
        "    application = flask.Flask('receiver')\n"
        "    hooks = Hooks(webhook_secret)\n"
        "    application.add_url_rule('/webhook', view_func=endpoint(hooks), methods=['POST'])\n"
        "    return application.test_client()\n"
    )
    tests = next(text for text in blocks("python") if "forged_webhook" in text)
    (tmp_path / "test_receiver.py").write_text(tests)
    assert "18 passed" in await pytest_runs(tmp_path, world)


async def test_the_first_webhook_arrives_as_the_guide_says(world: World, tmp_path: Path) -> None:
    guide = README.partition("### Five minutes")[2].partition("### Receive safely")[0]
    port = free_port()
    here = guide.replace("3000", str(port))
    program, *rest = re.findall(r"^```python\n(.*?)^```$", here, re.MULTILINE | re.DOTALL)
    assert not rest
    (tmp_path / "receiver.py").write_text(program)
    setting_up, going = re.findall(r"^```sh\n(.*?)^```$", here, re.MULTILINE | re.DOTALL)
    export, *commands_, start = setting_up.splitlines()
    names = dict(name.split("=") for name in export.split()[1:] if "DATABASE" not in name)
    assert names == {"AETHERFLOW_HOOKS_PROFILE": "development"}
    printed = ""
    for line in commands_:
        printed = await run_line(" ".join([*(f"{k}={v}" for k, v in names.items()), line]), world)
    secret = re.findall(r"whsec_\S+", printed)[0]
    assert start.split() == ["WEBHOOK_SECRET=whsec_…", "python", "receiver.py"]
    daemon, emit = going.splitlines()
    assert daemon == "aetherflow-hooks run"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "receiver.py"),
        cwd=tmp_path,
        env={**environment(world), "WEBHOOK_SECRET": secret},
        stdout=subprocess.PIPE,
    )
    try:
        async with world.engine(), asyncio.timeout(30):
            event_id = (await run_line(emit, world)).strip()
            await world.make_due()
            assert process.stdout is not None
            line = (await process.stdout.readline()).decode()
            await world.settled()
        assert line.split() == [
            *(event_id, "workflow.completed", "{'workflow':", "{'id':", "'wf_abc123'}}")
        ]
    finally:
        process.terminate()
        await process.wait()


async def test_a_receiver_remembers_in_its_own_transaction(world: World) -> None:
    program = next(text for text in blocks("python") if "def welcome" in text)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    await world.connection.execute("create table members (id text)")
    async with asyncpg.create_pool(world.dsn, min_size=1, max_size=4) as pool:
        hooks = await names["receiver"](pool, SECRET)
        for attempt in (1, 2):
            request = sign_for_test(
                "user.joined", {"user": {"id": "usr_1"}}, event_id="evt_1", attempt=attempt
            )
            assert (await hooks.receive(*request)).status == 200
    assert await world.value("select count(*) from members") == 1


async def test_endpoints_come_along_from_elsewhere(world: World, tmp_path: Path) -> None:
    program = next(text for text in blocks("python") if "filterTypes" in text)
    (tmp_path / "move.py").write_text(program)
    old: list[dict[str, Any]] = [
        {"app": "acme", "url": "https://example.com/a", "secret": SECRET, "filterTypes": ["a.b"]},
        {"app": "other", "url": "https://example.com/b", "secret": SECRET, "filterTypes": None},
    ]
    (tmp_path / "old.json").write_text(json.dumps(old))
    told = await run(["/bin/sh", "-c", f"{sys.executable} move.py < old.json"], world, tmp_path)
    assert [line.split()[1] for line in told.splitlines()] == [it["url"] for it in old]
    rows = await world.rows(
        "select e.tenant, e.state, array(select s.pattern from aetherflow.subscriptions s"
        " where s.endpoint_id = e.id), s.secret from aetherflow.endpoints e"
        " join aetherflow.secrets s on s.endpoint_id = e.id order by e.tenant"
    )
    assert [tuple(row) for row in rows] == [
        ("acme", "paused", ["a.b"], SECRET),
        ("other", "paused", ["*"], SECRET),
    ]


async def test_the_receiver_stores_answers_and_processes(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = next(text for text in blocks("python") if "def lifespan" in text)
    (tmp_path / "readme_receiver.py").write_text(program)
    added = await world.endpoint()
    monkeypatch.setenv("WEBHOOK_SECRET", added["secret"])
    monkeypatch.setenv("RECEIVER_DSN", world.dsn)
    await world.connection.execute("create table failures (event_id text, workflow_id text)")
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "readme_receiver:application", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, cwd=tmp_path)
    try:
        url = f"http://127.0.0.1:{port}/webhook"
        await world.change(added["id"], url=url, retry_schedule_seconds=[0.1] * 50)
        async with world.engine():
            data = '{"workflow": {"id": "wf_1"}}'
            event_id = await world.emit("workflow.failed", data)
            await world.until("select exists (select from failures)", timeout_seconds=30)
            await world.settled()
        (row,) = await world.rows("select * from failures")
        assert tuple(row) == (event_id, "wf_1")
    finally:
        process.terminate()
        await process.wait()


async def test_a_program_under_development_gets_live_events(world: World, tmp_path: Path) -> None:
    line = next(it for it in commands() if " listen " in it)
    shown = next(text for text in blocks("text") if "Listening." in text).splitlines()
    *arguments, url = line.partition(" listen ")[2].split()
    token = (await add_token(world.database, "ada", Scope.READ, tenant="acme"))["token"]
    names = {"AETHERFLOW_API": f"http://127.0.0.1:{free_port()}", "AETHERFLOW_TOKEN": token}
    assert set(names) == set(re.findall(r"([A-Z_]+)=", line))
    there = f"127.0.0.1:{world.receiver.port}{url.partition('3000')[2]}"
    async with (
        world.engine(web={"port": int(names["AETHERFLOW_API"].rpartition(":")[2])}),
        listening(tmp_path, *arguments, there, **names) as it,
    ):
        await world.emit("workflow.completed", tenant="acme")
        await it.prints("200 in")
        notes, printed = it.notes.splitlines(), it.printed.splitlines()
        assert notes[0].split(" to ")[0] == shown[0].split(" to ")[0]
        assert notes[1] == shown[1]
        assert printed[0] == shown[2]
        assert re.sub(r"[0-9a-f]{24}|\d", "", printed[1]) == re.sub(
            r"[0-9a-f]{24}|\d", "", shown[3]
        )
    (request,) = world.receiver.received
    verify(request.body, request.headers, notes[0].rpartition(" ")[2])


async def test_the_consumer_polls_verifies_and_acknowledges(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = next(text for text in blocks("python") if "def consume" in text)
    names: dict[str, Any] = {}
    exec(compile(program, "README.md", "exec"), names)
    added = await add_endpoint(world.database, NewEndpoint(polled=True), settings=world.settings())
    token = (await add_token(world.database, "consumer", Scope.WRITE))["token"]
    port = free_port()
    monkeypatch.setenv("HOOKS_TOKEN", token)
    monkeypatch.setenv("HOOKS_URL", f"http://127.0.0.1:{port}")
    async with world.engine(web={"port": port}):
        consuming = asyncio.create_task(names["consume"](added["id"], added["secret"]))
        for n in range(3):
            event_id = await world.emit(data=f'{{"n": {n}}}')
            await world.until(
                "select count(*) = 1 from aetherflow.attempts"
                " where event_id = $1 and verdict = 'delivered'",
                event_id,
            )
            assert f'{event_id} {{"event":"a.b"' in capsys.readouterr().out
        consuming.cancel()
        await asyncio.gather(consuming, return_exceptions=True)


async def test_the_body_shown_is_of_the_form_that_is_sent(world: World) -> None:
    (shown,) = blocks("json")
    await world.endpoint()
    data = '{"workflow": {"id": "wf_abc123"}}'
    async with world.engine():
        event_id = await world.emit("workflow.completed", data)
        (request,) = await world.receiver.wait_for(1)
        await world.settled()
    sent = json.loads(request.body)
    expected = shown.strip().replace("evt_660fcb9c315393f9fd35ca00", event_id)
    assert request.body.decode() == expected.replace("2024-01-15T10:30:00Z", sent["timestamp"])


def test_the_chart_is_the_table_of_states() -> None:
    (chart,) = blocks("mermaid")
    assert sorted(chart.split("\n")) == sorted([*mermaid().split("\n"), ""])


def test_what_shows_a_promise_is_there() -> None:
    """Each test and scene that the durability statement names; they are run elsewhere."""
    statement = README.partition("### What is never lost")[2].partition("## How it works")[0]
    named = set(re.findall(r"`(test_\w+)`", statement))
    scenes = set(re.findall(r"--scene (\w+)`", statement))
    there = {file.stem for file in (ROOT / "tests").rglob("test_*.py")} | {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }
    assert len(named) > 5
    assert [name for name in named if not any(it.startswith(name) for it in there)] == []
    assert scenes == SCENES.keys()


async def test_the_demo_shows_what_the_readme_shows(world: World) -> None:
    """Once, on the test's database: twelve delivered, exit code 0."""
    shown = next(text for text in blocks("text") if "Twelve events" in text)
    demo = [sys.executable, "-m", "aetherflow_hooks", "demo", "--once", "--dsn", world.dsn]
    told = await run(demo, world)
    assert told.count("  verified  ") == 12
    assert told.splitlines()[-1] == "12 of 12 delivered and verified."
    for line in (shown.splitlines()[2], shown.splitlines()[-1]):
        assert line.split() in [spoken.split() for spoken in told.splitlines()]
    left = await world.rows("select state from aetherflow.endpoints")
    assert [row["state"] for row in left] == ["deleted"]
