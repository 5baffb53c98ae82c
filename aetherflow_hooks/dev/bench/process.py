"""Processes: what is measured runs in one of its own, and ends when we end.

Ours are told things by lines of JSON on stdin and answer so on stdout; the end of stdin is the end
of them, so that none outlives a bench that was killed.
"""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from aetherflow_hooks.dev.bench import BenchFailed

END_SECONDS_MAX = 40.0  # more than an engine's grace and its last writes
LINE_BYTES_MAX = 1 << 28  # the notes of a long leg come in one line
TAIL_BYTES = 2_000

_LEASH = Path(__file__).with_name("leash.py")
_proc = Path("/proc")


class Child:
    """A process of ours: `async with Child("module", …)`; it is stopped at the end."""

    def __init__(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> None:
        """Prepare `python -m aetherflow_hooks.dev.bench.<module>`."""
        self.name = module
        self._command = [sys.executable, "-m", f"aetherflow_hooks.dev.bench.{module}", *arguments]
        self._environment = clean_environment() | dict(environment or {})
        self._process: asyncio.subprocess.Process | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  closed with the process
        self.pid = 0

    @classmethod
    def leashed(
        cls, name: str, *command: str, environment: Mapping[str, str] | None = None
    ) -> "Child":
        """Prepare a program that does not watch its stdin; `pid` is its own."""
        child = cls(name, environment=environment)
        child._command = [sys.executable, "-I", "-S", str(_LEASH), *command]
        return child

    async def hear(self, timeout_seconds: float = 60.0) -> Any:
        """Wait for its next line.

        Raises:
            BenchFailed: it ended, or said nothing in time; with the end of what it complained of.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(timeout_seconds):
                line = await self._process.stdout.readline()
        except TimeoutError:
            raise BenchFailed(
                f"{self.name} said nothing for {timeout_seconds:g} s: {self.complaint()}"
            ) from None
        if not line:
            raise BenchFailed(f"{self.name} ended too early: {self.complaint()}")
        return orjson.loads(line)

    async def say(self, what: object) -> None:
        """Send it a line."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(what) + b"\n")
        with contextlib.suppress(ConnectionError):  # it has ended; `hear` tells of it
            await self._process.stdin.drain()

    async def ask(self, what: object) -> Any:
        """Send it a line and wait for the answer."""
        await self.say(what)
        return await self.hear()

    def complaint(self) -> str:
        """Give the end of what it wrote to stderr, on one line."""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - TAIL_BYTES))
        told = self._errors.read().decode(errors="replace").split("\n")
        return " | ".join(line.strip() for line in told if line.strip()) or "no word of why"

    def check(self) -> None:
        """Make sure that it still runs.

        Raises:
            BenchFailed: it does not.
        """
        assert self._process is not None
        if self._process.returncode is not None:
            raise BenchFailed(f"{self.name} ended too early: {self.complaint()}")

    async def stop(self) -> None:
        """End it and wait for its end."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            async with asyncio.timeout(END_SECONDS_MAX):
                await self._process.wait()
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            await self._process.wait()
            raise
        finally:
            self._process = None
            self._errors.close()

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._errors,
            env=self._environment,
            limit=LINE_BYTES_MAX,
            start_new_session=True,  # Ctrl-C is meant for the bench, which ends its children
        )
        self.pid = self._process.pid
        try:
            if str(_LEASH) in self._command:
                self.pid = (await self.hear())["pid"]
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def clean_environment() -> dict[str, str]:
    """Give our environment without what would point a child at somebody's real database."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AETHERFLOW_HOOKS_", "PGQUEUER_")) and name != "DATABASE_URL"
    }


def cpu_seconds(pid: int, *, with_reaped: bool = False) -> float | None:
    """Tell the CPU time that a process has used; None where /proc does not say.

    `with_reaped` adds that of its children that have ended.
    """
    fields = _stat(pid)
    if fields is None:
        return None
    ticks = sum(int(field) for field in fields[11 : 15 if with_reaped else 13])
    return ticks / os.sysconf("SC_CLK_TCK")


def children_of(pid: int) -> list[int]:
    """List the living children of a process."""
    found = []
    for folder in _proc.glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None and int(fields[1]) == pid:
            found.append(int(folder.name))
    return found


def parent_of(pid: int) -> tuple[int, str] | None:
    """Tell a process's parent and its own short name; None where /proc does not say."""
    fields = _stat(pid)
    if fields is None:
        return None
    try:
        return int(fields[1]), (_proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return None


def memory_bytes(pid: int, *, peak: bool = False) -> int | None:
    """Tell a process's resident memory, now or at its peak; None where /proc does not say."""
    try:
        lines = (_proc / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    wanted = "VmHWM:" if peak else "VmRSS:"
    for line in lines:
        if line.startswith(wanted):
            return int(line.split()[1]) * 1024
    return None


def _stat(pid: int) -> list[str] | None:
    """Give the fields of /proc/<pid>/stat behind the name, which may hold anything."""
    try:
        text = (_proc / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text.rpartition(")")[2].split()
