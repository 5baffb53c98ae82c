"""The engines of a run: processes of `aetherflow-hooks run`."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from tests.forks import Fork

TIMEOUT_SECONDS = 0.5
MARGIN_SECONDS = 5.0
LEASE_SECONDS = TIMEOUT_SECONDS + MARGIN_SECONDS
SHARD_SECONDS = 2.0
FAKETIME = next(map(str, Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), "")
SETTINGS = {
    "PROFILE": "development",
    "DATABASE__RETRY_SECONDS_MAX": "0.3",
    "DATABASE__COMMAND_TIMEOUT_SECONDS": "1",
    "DATABASE__CONNECT_TIMEOUT_SECONDS": "1",
    "ENGINE__RENEW_SECONDS": "0.2",
    "ENGINE__SHARD_LEASE_SECONDS": str(SHARD_SECONDS),
    "ENGINE__GRACE_SECONDS": "2",
    "LEASE__MARGIN_SECONDS": str(MARGIN_SECONDS),
    "PACE__DISCOVER_SECONDS": "0.3",
    "POST__TIMEOUT_SECONDS": str(TIMEOUT_SECONDS),
    "RETRY__SCHEDULE_SECONDS": "0.1, 0.2, 0.4, 0.4, 0.4, 0.4",
    "SWEEP__EVERY_SECONDS": "0.5",
    "LOG__LEVEL": "info",
    "LOG__FORM": "json",
}


class EngineProcess:
    """`aetherflow-hooks run`, which can be killed, frozen and starved."""

    def __init__(self, dsn: str, log: Path, *, has_clock: bool, **settings: str) -> None:
        """Start it; with a clock of its own, which can be set and costs time, if `has_clock`."""
        self.log = log
        self._was_asked = False
        self._clock = log.with_suffix(".clock")
        self.set_clock("+0")
        environment = {
            **os.environ,
            **{f"AETHERFLOW_HOOKS_{name}": it for name, it in (SETTINGS | settings).items()},
            "PYTHONFAULTHANDLER": "1",
        }
        command = ["run", "--dsn", dsn]
        self._process: Fork | subprocess.Popen[bytes]
        if has_clock:
            self._process = self._start_with_clock(command, environment)
        else:
            self._process = Fork(*command, environment=environment, stderr=log)
        self.pid = self._process.pid

    def _start_with_clock(
        self, command: list[str], environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        """Start it as a process that is no fork: where the clock is, is asked at its start."""
        environment |= {
            "LD_PRELOAD": FAKETIME,
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        with self.log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "aetherflow_hooks", *command], env=environment, stderr=file
            )

    @property
    def exit_code(self) -> int | None:
        """What it ended with; None: it runs."""
        return self._process.poll()

    def has_started(self) -> bool:
        """Tell whether it has ever taken part."""
        return "engine.started" in self.log.read_text()

    def set_clock(self, offset: str) -> None:
        """Move its wall clock, and not the monotonic one."""
        self._clock.write_text(f"{offset}\n")

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()
        for left in Path("/dev/shm").glob(f"*faketime_*_{self.pid}"):
            left.unlink(missing_ok=True)

    def freeze(self) -> None:
        """Let it stand still."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def ask_to_stop(self) -> None:
        """Let it drain and end; asked twice it would end at once."""
        if not self._was_asked:
            self._was_asked = True
            self._process.send_signal(signal.SIGTERM)

    def limit_files(self, most: int) -> int:
        """Let it open no more files than so many; give how many it might before."""
        before, hard = resource.prlimit(self.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (most, hard))
        return before

    def open_files(self) -> int:
        """Count its open files."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
