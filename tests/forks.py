"""Forks: processes of the command line that start at once.

To start Python and import the package takes longer than most tests do. So one process has done it,
and each engine is a fork of that one. It has an environment, signals and an end of its own, and
runs what `python -m aetherflow_hooks` runs; that this can be started is tested elsewhere.
"""

import atexit
import faulthandler
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Fork:
    """A process of the command line: as much of `subprocess.Popen` as is needed."""

    def __init__(self, *arguments: str, environment: Mapping[str, str], stderr: Path) -> None:
        """Start it; what it says on stderr goes to the end of a file, on stdout nowhere."""
        asked = {"arguments": arguments, "environment": dict(environment), "stderr": str(stderr)}
        self.stderr = stderr
        self.pid: int = _parent().ask(asked)
        self._exit_code: int | None = None

    def poll(self) -> int | None:
        """Give what it ended with, as -9 where SIGKILL ended it; None: it runs."""
        if self._exit_code is None:
            self._exit_code = _parent().ask({"pid": self.pid})
        return self._exit_code

    def wait(self, timeout: float = 30) -> int:
        """Wait until it has ended; give what with."""
        give_up_at = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{self.pid} has not ended within {timeout} s")
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)


class _Parent:
    """The process that all are forks of."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        atexit.register(self._process.communicate)  # which ends it

    def ask(self, what: Mapping[str, Any]) -> Any:
        """Let it do something; give its answer."""
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            self._process.stdin.write(f"{json.dumps(what)}\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())


@functools.cache
def _parent() -> _Parent:
    return _Parent()


def _serve() -> None:
    """Start and wait for others as long as somebody asks; returns in each that was started."""
    for line in sys.stdin:
        asked = json.loads(line)
        if "pid" in asked:
            pid, status = os.waitpid(asked["pid"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if pid else None
        elif (answer := os.fork()) == 0:
            _become(**asked)
            return
        sys.stdout.write(f"{json.dumps(answer)}\n")
        sys.stdout.flush()
    sys.exit()


def _become(arguments: list[str], environment: dict[str, str], stderr: str) -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    file = os.open(stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for number, end in enumerate((nothing, nothing, file)):
        os.dup2(end, number)
    os.close(nothing)
    os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["aetherflow-hooks", *arguments]
    if "PYTHONFAULTHANDLER" in environment:
        faulthandler.enable()


if __name__ == "__main__":
    with suppress(ImportError):
        import uvloop  # noqa: F401  it is used where it is installed

    from aetherflow_hooks.cli import main

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()
    _serve()
    main()
