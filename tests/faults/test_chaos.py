"""Ten runs of `make chaos`, shorter ones: nothing is lost, and nothing doubled without a reason."""

import subprocess
import sys
from pathlib import Path


def test_ten_seeds_lose_nothing() -> None:
    command = [sys.executable, "-m", "tests.chaos", "--seeds", "1-10", "--seconds", "1.2"]
    played = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    assert "10 runs, 0 wrong" in played.stdout
