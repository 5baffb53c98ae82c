"""listen: live events to a program on this machine, in order, whoever goes away meanwhile."""

import asyncio
import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from aetherflow_hooks.dev.listen import Feed, FromApi, FromDatabase, Program, sources
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.manage.events import expunge_event
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.receive import verify, verify_body
from tests.conftest import World, settings_for, until
from tests.contract.test_cli import failed, process, run
from tests.faults.test_engines import engine_process
from tests.web.conftest import Api, free_port

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3"


class Listening:
    """The command, in a process of its own, at a terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int, folder: Path) -> None:
        self._process = process
        self._terminal = terminal
        self._out, self._err = folder / "out", folder / "err"

    @property
    def printed(self) -> str:
        return self._out.read_text()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What it printed, with --json."""
        lines = self.printed.split("\n")[:-1]  # the last one may be half there
        return [orjson.loads(line) for line in lines]

    @property
    def notes(self) -> str:
        return self._err.read_text()

    async def note(self, text: str) -> None:
        await self._until(lambda: text in self.notes)

    async def sent(self, count: int) -> list[dict[str, Any]]:
        """Wait for so many rows, and give them."""
        await self._until(lambda: len(self.rows) >= count)
        return self.rows

    async def prints(self, text: str) -> None:
        await self._until(lambda: text in self.printed)

    def types(self, text: str) -> None:
        """Let somebody type."""
        os.write(self._terminal, text.encode())

    def end(self, number: int = signal.SIGTERM) -> int:
        """Give the exit code that it ends with."""
        self._process.send_signal(number)
        return self._process.wait(10)

    async def _until(self, is_so: Callable[[], bool]) -> None:
        async def ask() -> bool:
            assert self._process.poll() is None, self.notes
            return is_so()

        try:
            await until(ask, timeout_seconds=30)
        except AssertionError:
            pytest.fail(f"{self.printed}\n{self.notes}")


@asynccontextmanager
async def listening(folder: Path, *arguments: str, **environment: str) -> AsyncIterator[Listening]:
    """Run `listen` until it listens, and end it."""
    terminal, end = pty.openpty()
    with (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "aetherflow_hooks", "listen", *arguments],
            stdin=end,
            stdout=out,
            stderr=err,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environment},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  no thread runs
        )
    try:
        running = Listening(process, terminal, folder)
        await running.note("Listening.")
        yield running
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
        os.close(end)


async def token_of(world: World, tenant: str | None = None) -> str:
    made = await add_token(world.database, "listens", Scope.READ, tenant=tenant)
    return str(made["token"])


async def emit_in_turn(world: World, numbers: range) -> list[str]:
    return [await world.emit("a.b", f'{{"n": {n}}}') for n in numbers]


async def serves(port: int) -> None:
    """Wait until somebody listens at a port."""

    async def ask() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(ask)


async def test_a_hundred_live_events_come_in_order_whoever_is_away(
    world: World, tmp_path: Path
) -> None:
    """The engine and the program are both started anew; a token that may only read is enough."""
    local = Receiver()
    await local.start()
    port = free_port()
    web = {"WEB__PORT": str(port)}
    api = ("--api", f"http://127.0.0.1:{port}")
    to = ("--forward-to", f"127.0.0.1:{local.port}/hook", "--secret", SECRET)
    token = await token_of(world)
    await world.emit("a.b", '{"n": "of before"}')
    with engine_process(world.dsn, **web) as first:
        await serves(port)
        async with listening(tmp_path, *api, *to, "--json", AETHERFLOW_TOKEN=token) as it:
            ids = await emit_in_turn(world, range(30))
            await it.sent(10)
            first.kill()
            first.wait()
            ids += await emit_in_turn(world, range(30, 60))
            await it.note("cannot be read, and are waited for")
            with engine_process(world.dsn, **web):
                await it.sent(60)
                await local.stop()
                ids += await emit_in_turn(world, range(60, 100))
                await it.note("Nobody listens at")
                async with Receiver(port=local.port) as again:
                    rows = await it.sent(100)
                    assert it.end() == 0
    assert [row["id"] for row in rows] == ids
    assert {row["status"] for row in rows} == {200}
    came = local.received + again.received
    for n, request in enumerate(came):
        verify(request.body, request.headers, SECRET)
        verify_body(request.body, request.headers["x-aetherflow-signature"], SECRET)
        assert request.path == "/hook"
        assert request.headers["webhook-id"] == ids[n]
        assert request.body.endswith(b'"data":{"n": %d}}' % n)
    assert len(came) == 100


async def test_what_matches_is_shown_with_its_answer_and_sent_again_on_demand(
    world: World, tmp_path: Path
) -> None:
    """Straight from the database, without an engine; at a terminal."""
    await world.emit("user.joined", '{"n": 1}')
    second = await world.emit("user.invited", '{"n": 2}')
    await world.emit("billing.updated")
    third = await world.emit("user.joined", '{"n": 3}')
    url = world.receiver.url("/here", "200,500;body=no%1b,204")
    async with listening(
        tmp_path,
        *("--dsn", world.dsn, "--forward-to", url, "--events", "user.*,a.b"),
        *("--replay-last", "2", "--print"),
    ) as it:
        secret = it.notes.split("signed with ")[1].split()[0]
        await it.prints("-> no")
        await world.emit("b.c")
        await world.emit("a.b")
        await it.prints("a.b")
        it.types("2\n")
        await it.prints("attempt 2")
        it.types("\n")
        await world.receiver.wait_for(5)
        it.types("4\n")
        await it.note("no such event")
        it.types("again\n")
        await it.note("A number and Enter")
        assert it.end(signal.SIGINT) == 0
    came = world.receiver.received
    kinds = [request.headers["x-aetherflow-event"] for request in came]
    assert kinds == ["user.invited", "user.joined", "a.b", "user.joined", "a.b"]
    assert [request.headers["x-aetherflow-attempt"] for request in came] == list("11122")
    assert {request.headers["webhook-id"] for request in came} >= {second, third}
    for request in came:
        verify(request.body, request.headers, secret)
    assert '"data":{"n": 3}}' in it.printed
    assert "500 in" in it.printed
    assert "\x1b" not in it.printed
    rows = [line.split() for line in it.printed.splitlines() if line.lstrip()[0].isdigit()]
    assert [row[0] for row in rows[:4]] == ["1", "2", "3", "2"]


async def test_a_tenants_token_hears_of_that_tenant_alone(api: Api, tmp_path: Path) -> None:
    token = await token_of(api.world, "acme")
    async with listening(
        tmp_path, "--api", f"{api.base}/api/v1/", "--print", "--json", AETHERFLOW_TOKEN=token
    ) as it:
        await api.world.emit("a.b", tenant="other")
        mine = await api.world.emit("a.b", '{"mine":1.0}', tenant="acme")
        (row,) = await it.sent(1)
    assert (row["id"], row["tenant"], row["attempt"]) == (mine, "acme", 0)
    assert row["body"].endswith('"data":{"mine":1.0}}')


async def test_an_event_that_is_committed_late_is_not_overlooked(world: World) -> None:
    feed = Feed(FromDatabase(world.database, tenant=None, channel=None), ["*"])
    late = await asyncpg.connect(world.dsn)
    transaction = late.transaction()
    await transaction.start()
    first = await late.fetchval("select aetherflow.emit('a.b', '{}')")
    await world.emit()
    assert await feed.begin() == []
    second = await world.emit()
    assert [it.id for it in await feed.look()] == [second]
    await transaction.commit()
    await late.close()
    assert [it.id for it in await feed.look()] == [first]
    for _ in range(60):
        assert await feed.look() == []


async def test_an_event_whose_data_was_expunged_is_told_and_not_sent(
    world: World, tmp_path: Path
) -> None:
    event_id = await world.emit()
    await expunge_event(world.database, event_id)
    async with listening(
        tmp_path,
        *("--dsn", world.dsn, "--forward-to", world.receiver.url(), "--json"),
        *("--replay-last", "5"),
    ) as it:
        (row,) = await it.sent(1)
    assert (row["id"], row["status"]) == (event_id, None)
    assert "no more" in row["error"]
    assert not world.receiver.received


async def test_no_answer_is_tried_again_and_then_shown(world: World, tmp_path: Path) -> None:
    """A program that dies of an event does not hold up those behind it."""
    await world.emit()
    async with listening(
        tmp_path,
        *("--dsn", world.dsn, "--json", "--replay-last", "1"),
        *("--forward-to", world.receiver.url("/x", "close,reset,close,reset,200")),
    ) as it:
        await it.sent(1)
        await world.emit()
        rows = await it.sent(2)
    assert [(row["attempt"], row["status"]) for row in rows] == [(4, None), (1, 200)]
    assert rows[0]["error"]


async def test_an_api_that_does_not_let_in_or_is_none_is_one_clear_line(api: Api) -> None:
    async def told(url: str, token: str) -> str:
        arguments = ("listen", "--print", "--api", url, "--token", token)
        return failed(await asyncio.to_thread(process, *arguments))

    assert "a token is needed" in await told(api.base, "af_nobody")
    assert "is not the API" in await told(api.world.receiver.url(), "af_x")


@asynccontextmanager
async def told_by_api(told: Any) -> AsyncIterator[FromApi]:
    """Read from a server that tells one thing whatever it is asked."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(told)

    application = web.Application()
    application.router.add_get("/{asked:.*}", answer)
    async with (
        TestServer(application) as server,
        FromApi(str(server.make_url("/")), "af_x", tenant=None, channel=None) as source,
    ):
        yield source


ROW = {"id": "evt_" + "0" * 24, "type": "a.b", "tenant": "", "emitted_at": "2024-01-15T10:30:00Z"}
LIST = {"items": [ROW], "before": None, "as_of": "2024-01-15T10:30:00Z"}


@pytest.mark.parametrize(
    "told",
    [
        [],
        {},
        {**LIST, "items": 3},
        {**LIST, "items": [{}]},
        {**LIST, "items": [{**ROW, "type": "a.b\r\nX-Evil: 1"}]},
        {**LIST, "items": [{**ROW, "id": "../../../secret?x="}]},
        {**LIST, "items": [{**ROW, "emitted_at": "yesterday"}]},
        {**LIST, "before": "evt_"},
        {**LIST, "as_of": None},
    ],
)
async def test_an_api_that_lies_is_refused(told: Any) -> None:
    """What it says goes into a URL, and into headers that the local program trusts."""
    async with told_by_api(told) as source:
        with pytest.raises(InputRefused, match="is not the API"):
            await source.listed(before=None, since=None)


async def test_data_that_is_no_text_and_endless_answers_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sources, "ANSWER_BYTES_MAX", 1_000)
    for told in ({"data": {"a": 1}}, {"data": "x" * 1_000}):
        async with told_by_api(told) as source:
            with pytest.raises(InputRefused, match="is not the API"):
                await source.data("evt_" + "0" * 24)


async def test_a_reader_that_goes_ends_it(world: World) -> None:
    """As `| head -1` does."""
    for _ in range(3):
        await world.emit()
    listen = f"{sys.executable} -m aetherflow_hooks listen --print --replay-last 3"
    ended = await asyncio.to_thread(
        subprocess.run,
        f"{listen} --dsn '{world.dsn}' | head -1",
        shell=True,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert ended.stdout.split()[0] == "#"
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--print", "--token", "af_x"], "--api https://"),
        (["--print", "--api", "http://x", "--token", "af_\n"], "the token is not one"),
        (["--print", "--events", "a*"], "chooses no events"),
        (["--print", "--secret", "short"], "16 to 256"),
        (["--forward-to", "99999"], "is not a port"),
    ],
)
def test_what_cannot_be_listened_to_is_one_clear_line(arguments: list[str], why: str) -> None:
    assert why in failed(run("listen", *arguments))


def test_there_is_nothing_to_do_without_a_program_and_without_printing() -> None:
    assert run("listen").code == 2


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("3000", "http://localhost:3000/"),
        ("localhost:3000/a?b=c", "http://localhost:3000/a?b=c"),
        ("http://host.docker.internal:81/x", "http://host.docker.internal:81/x"),
        ("https://10.1.2.3", "https://10.1.2.3/"),
        ("[::1]:3000", "http://[::1]:3000/"),
        ("api:6379/x", "http://api:6379/x"),
    ],
)
def test_where_it_is_sent_to_is_written_briefly(given: str, url: str) -> None:
    assert Program(given, SECRET, settings_for("postgresql://x").post).url == url


@pytest.mark.parametrize("given", ["", "http://", "ftp://localhost", "http://[", "a b"])
def test_what_is_no_url_is_refused(given: str) -> None:
    with pytest.raises(InputRefused):
        Program(given, SECRET, settings_for("postgresql://x").post)
