"""Leash: run a program that does not watch its stdin, until ours ends.

It is run as a file by a Python without site packages: 10 ms and 10 MB. Its only line says the
program's process id; whatever the program prints goes to stderr.
"""

import contextlib
import subprocess
import sys
import threading

END_SECONDS_MAX = 30.0


def hold(command: list[str]) -> int:
    """Run `command`; end it when stdin ends; give its exit code."""
    program = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)  # noqa: S603  our own words
    sys.stdout.write(f'{{"pid": {program.pid}}}\n')
    sys.stdout.flush()

    def end() -> None:
        sys.stdin.read()
        program.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(END_SECONDS_MAX)
        program.kill()

    threading.Thread(target=end, daemon=True).start()
    return program.wait()


if __name__ == "__main__":
    sys.exit(hold(sys.argv[1:]))
