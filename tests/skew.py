"""Skew: an older program, its tests and all, on the schema that this one makes.

While engines are upgraded one by one, those of the release before work on what the new one has
migrated. So the older program is taken as it was, its migrations are replaced by those of today,
and its stories have to hold.
"""

import argparse
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
MIGRATIONS = Path("aetherflow_hooks", "db", "migrations")


def main() -> None:
    """Run the stories of an older commit, by default of the newest tag."""
    parser = argparse.ArgumentParser(prog="make skew", description=main.__doc__)
    parser.add_argument("commit", nargs="?", help="a tag, or any commit of before")
    commit = parser.parse_args().commit or newest_tag()
    with tempfile.TemporaryDirectory() as name:
        older = Path(name)
        unpack(commit, older)
        known = {file.name for file in (older / MIGRATIONS).glob("*.sql")}
        shutil.rmtree(older / MIGRATIONS)
        shutil.copytree(ROOT / MIGRATIONS, older / MIGRATIONS)
        new = sorted({file.name for file in (older / MIGRATIONS).glob("*.sql")} - known)
        print(f"{commit} on a schema with {', '.join(new) or 'nothing new'}", flush=True)  # noqa: T201
        tests = [sys.executable, "-m", "pytest", "-q", "-n", "2", "tests/story"]
        ended = subprocess.run(tests, cwd=older, env=os.environ | {"PYTHONPATH": name}, check=False)
    sys.exit(ended.returncode)


def newest_tag() -> str:
    """Name the newest tag."""
    found = git("describe", "--tags", "--abbrev=0").decode().strip()
    return found or sys.exit("there is no tag: name a commit, make skew ARGS=…")


def unpack(commit: str, folder: Path) -> None:
    """Put the files of a commit into a folder."""
    with tarfile.open(fileobj=io.BytesIO(git("archive", commit))) as files:
        files.extractall(folder, filter="data")


def git(*arguments: str) -> bytes:
    """Ask git; empty: it has no answer."""
    return subprocess.run(["git", *arguments], cwd=ROOT, stdout=subprocess.PIPE, check=False).stdout


if __name__ == "__main__":
    main()
