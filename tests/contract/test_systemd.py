"""The service: a unit that systemd takes and rates, and what the daemon tells it."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from aetherflow_hooks import engine as engine_module
from aetherflow_hooks import load_config
from aetherflow_hooks.config import DSN_CREDENTIAL
from aetherflow_hooks.db import Database
from aetherflow_hooks.watch import supervisor
from tests.conftest import World
from tests.contract.test_cli import failed, run

EXPOSURE_MAX = 1.5


class Systemd:
    """Listens where systemd would."""

    def __init__(self, path: str) -> None:
        self.address = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{path[1:]}" if path.startswith("@") else path)
        self._socket.setblocking(False)

    async def hear(self) -> str:
        async with asyncio.timeout(20):
            message = await asyncio.get_running_loop().sock_recv(self._socket, 1000)
        return message.decode()

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Systemd]:
    listening = Systemd(str(tmp_path / "notify"))
    monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
    yield listening
    listening.close()


def analyze(*arguments: str) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    ended = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=30
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


@pytest.mark.parametrize("arguments", [[], ["--user", "hooks"], ["--config"]])
def test_the_unit_is_good_and_leaves_little_exposed(tmp_path: Path, arguments: list[str]) -> None:
    if arguments == ["--config"]:
        file = tmp_path / "hooks.toml"
        file.write_text(
            '[database]\ndsn = "postgresql:///x"\n[secrets]\nkeys_file = "/etc/keys"\n'
            "[engine]\ngrace_seconds = 60\n"
        )
        arguments = ["--config", str(file)]
    said = run("systemd-unit", *arguments)
    assert said.code == 0
    assert re.findall(r"\$\w+", said.out) == ["$MAINPID"]
    assert ("LoadCredential=" in said.out) is ("--config" not in arguments)
    assert ("TimeoutStopSec=75" in said.out) is ("--config" in arguments)
    assert ("DynamicUser=yes" in said.out) is ("--user" not in arguments)
    # Every path in it but that of Python is of the machine where it is to run.
    assert f"ExecStart={sys.executable} -m aetherflow_hooks run" in said.out
    unit = tmp_path / "aetherflow-hooks.service"
    unit.write_text(said.out)
    assert analyze("verify", str(unit)) == ""
    rated = analyze("security", "--offline=yes", str(unit))
    exposure = re.search(r"Overall exposure level .*?: ([0-9.]+)", rated)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE_MAX


def test_what_could_say_more_than_it_should_does_not_get_into_a_unit(tmp_path: Path) -> None:
    for user in ("a b", "hooks\nExecStartPre=/bin/sh", "%i", "$HOME"):
        assert "cannot stand in a unit" in failed(run("systemd-unit", "--user", user))


async def test_the_daemon_says_when_it_is_ready_that_it_lives_and_when_it_stops(
    world: World, systemd: Systemd, tmp_path: Path
) -> None:
    (tmp_path / DSN_CREDENTIAL).write_text(world.dsn)
    (tmp_path / DSN_CREDENTIAL).chmod(0o400)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aetherflow_hooks", "run"),
        env={
            **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
            "NOTIFY_SOCKET": systemd.address,
            "WATCHDOG_USEC": "300000",
            "CREDENTIALS_DIRECTORY": str(tmp_path),
        },
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await systemd.hear() == "READY=1"
        assert [await systemd.hear() for _ in range(3)] == ["WATCHDOG=1"] * 3
        process.send_signal(signal.SIGTERM)
        while (message := await systemd.hear()) != "STOPPING=1":
            assert message == "WATCHDOG=1"
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_stage_that_does_not_get_on_is_noticed(
    world: World, systemd: Systemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "30000")
    monkeypatch.setattr(engine_module, "STUCK_SECONDS", 0.2)
    go_on = asyncio.Event()
    async with world.engine() as engine:
        assert engine.stuck() == []
        monkeypatch.setattr(Database, "rows", held(go_on))
        feeding = asyncio.create_task(supervisor.feed_watchdog(engine.stuck))
        while "stuck" not in (message := await systemd.hear()):
            assert message == "WATCHDOG=1"
        assert engine.stuck()
        go_on.set()
        while await systemd.hear() != "WATCHDOG=1":
            pass
        feeding.cancel()


def held(go_on: asyncio.Event) -> object:
    """A database that does not answer, and whose time limit does not work."""
    rows = Database.rows

    async def wait(self: Database, statement: str, *values: object) -> object:
        await go_on.wait()
        return await rows(self, statement, *values)

    return wait


@pytest.mark.parametrize("address", ["", "relative", "/nowhere/at/all", "vsock:2:1234"])
def test_where_nobody_listens_nothing_is_told(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    supervisor.tell("READY=1")
    monkeypatch.delenv("NOTIFY_SOCKET")
    supervisor.tell("READY=1")


@pytest.mark.skipif(sys.platform != "linux", reason="abstract addresses are Linux's")
async def test_an_abstract_address_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    listening = Systemd(f"@aetherflow-test-{os.getpid()}")
    monkeypatch.setenv("NOTIFY_SOCKET", listening.address)
    supervisor.tell("READY=1")
    assert await listening.hear() == "READY=1"
    listening.close()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        (None, None, None),
        ("30000000", None, 30.0),
        ("30000000", "ours", 30.0),
        ("30000000", "1", None),
        ("0", None, None),
        ("x", None, None),
    ],
)
def test_the_watchdog_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, usec: str | None, pid: str | None, seconds: float | None
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, str(os.getpid()) if value == "ours" else value)
    assert supervisor.watchdog_seconds() == seconds


def test_a_dsn_can_be_a_credential(tmp_path: Path) -> None:
    file = tmp_path / "aetherflow-hooks-dsn"
    file.write_text("postgresql:///a\n")
    file.chmod(0o400)
    environment = {"CREDENTIALS_DIRECTORY": str(tmp_path), "DATABASE_URL": "postgresql:///b"}
    assert load_config(environment=environment).database.dsn == "postgresql:///a"
    given = {"database": {"dsn": "postgresql:///c"}}
    assert load_config(environment=environment, given=given).database.dsn == "postgresql:///c"
    file.unlink()
    assert load_config(environment=environment).database.dsn == "postgresql:///b"


async def test_a_reload_changes_a_rate_and_loses_nothing(
    world: World, systemd: Systemd, tmp_path: Path
) -> None:
    """The log tells what has changed, and what takes a restart; bad settings change nothing."""
    file = tmp_path / "hooks.toml"
    file.write_text(RATED.format(rate=5, every=1, slots=50))
    await world.endpoint("/own", rate_per_second=20, burst=5, events=["slow"])
    await world.endpoint("/a")
    for _ in range(100):
        await world.emit()
    for _ in range(10):
        await world.emit("slow")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aetherflow_hooks", "run"),
        *("--dsn", world.dsn, "--config", str(file)),
        env=os.environ | {"NOTIFY_SOCKET": systemd.address},
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        assert await systemd.hear() == "READY=1"
        began = time.monotonic()
        await world.receiver.wait_for(5, "/a")
        seconds = time.monotonic() - began
        assert len(world.receiver.at("/a")) <= 1 + 5 * (seconds + 0.1)
        file.write_text("[pace]\nrate_per_second = -1\n")
        assert await reloaded(process, systemd) == "settings.refused"
        file.write_text(RATED.format(rate=0, every=0, slots=60))
        assert await reloaded(process, systemd) == "settings.reloaded"
        await world.settled()
        process.send_signal(signal.SIGTERM)
        told = [json.loads(line) async for line in process.stderr]
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
    assert len(world.receiver.at("/a")) == 110
    assert len({it.headers["webhook-id"] for it in world.receiver.at("/a")}) == 110
    times = [it.began for it in world.receiver.at("/own")]
    assert len(times) == 10
    assert times[-1] - times[0] >= 4 / 20  # its own rate held on
    assert not [it for it in told if it["event"] == "post.done"]  # none has a line any more
    assert await world.value("select count(*) from aetherflow.attempts") == 120


RATED = """
profile = "development"
[pace]
rate_per_second = {rate}
slots = {slots}
[log]
delivered_every = {every}
"""


async def reloaded(process: asyncio.subprocess.Process, systemd: Systemd) -> str:
    """Ask for the settings to be read anew; give the event that tells of it."""
    process.send_signal(signal.SIGHUP)
    assert (await systemd.hear()).startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert await systemd.hear() == "READY=1"
    assert process.stderr is not None
    async for line in process.stderr:
        event = json.loads(line)
        if event["event"] == "settings.reloaded":
            assert event["changed"] == ["pace.rate_per_second", "log.delivered_every"]
            assert event["needs_restart"] == ["pace.slots"]
        if event["event"].startswith("settings."):
            return str(event["event"])
    raise AssertionError("the process has ended")


HANGING = """
import sys, time
from aetherflow_hooks.cli import main
from aetherflow_hooks.flow.backlog import Backlog

async def hang(_):
    time.sleep(3600)

if sys.argv[-1] == "hang":
    Backlog.turn = hang
    sys.argv.pop()
main()
"""


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_loop_that_hangs_is_not_kept_alive(
    world: World, systemd: Systemd, hangs: bool
) -> None:
    """systemd ends and restarts whatever gives no sign of life for WATCHDOG_USEC."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HANGING, "run", "--dsn", world.dsn, *["hang"] * hangs),
        env=os.environ | {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "300000"},
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await systemd.hear() == "READY=1"
        heard = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(1.5):
                while await systemd.hear() == "WATCHDOG=1":
                    heard += 1
        assert (heard <= 1) is hangs
    finally:
        process.kill()
        await process.wait()


def test_a_unit_that_archives_may_write_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text(f'[sweep]\narchive_folder = "{tmp_path}"\n')
    assert "--user" in failed(run("systemd-unit", "--config", str(file)))
    said = run("systemd-unit", "--config", str(file), "--user", "hooks")
    assert f"ReadWritePaths={tmp_path}" in said.out
    assert f"install -d -m 700 -o hooks {tmp_path}" in said.out


def test_a_template_lets_instances_differ(tmp_path: Path) -> None:
    said = run("systemd-unit", "--template")
    assert "aetherflow-hooks@.service" in said.out
    assert "EnvironmentFile=-/etc/aetherflow-hooks/%i.env" in said.out
    unit = tmp_path / "aetherflow-hooks@.service"
    unit.write_text(said.out)
    assert analyze("verify", str(unit)) == ""
