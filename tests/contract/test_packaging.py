"""What is published: the same bytes wherever it is built, and all that it needs in it."""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from aetherflow_hooks.cli import commands
from aetherflow_hooks.cli.help import TOPICS
from aetherflow_hooks.config import RELOADABLE, Settings
from tests.contract.test_cli import run

ROOT = Path(__file__).parents[2]


def built(folder: Path, *, umask: int, moment: float) -> dict[str, Path]:
    """Build from a copy whose files are of another time and mode."""
    source = folder / "source"
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in files.splitlines():
        if (ROOT / name).exists():
            copy = source / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            os.utime(copy, (moment, moment))
            copy.chmod(0o666 & ~umask)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")],
        cwd=source,
        check=True,
        capture_output=True,
    )
    return {file.name: file for file in (folder / "dist").iterdir()}


def test_wheel_and_sdist_are_the_same_bytes_wherever_they_are_built(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    one = built(tmp_path / "one", umask=0o022, moment=1e9)
    other = built(tmp_path / "other", umask=0o002, moment=1.5e9)
    assert len(one) == 2
    assert digests(one) == digests(other)
    (wheel,) = [file for name, file in one.items() if name.endswith(".whl")]
    (sdist,) = [file for name, file in one.items() if name.endswith(".tar.gz")]
    inside = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "aetherflow_hooks"
    needed = {
        str(file.relative_to(ROOT))
        for file in package.rglob("*")
        if file.is_file() and not {"__pycache__", "pictures"} & set(file.parts)
    }
    assert needed <= inside
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"README.md", "Makefile", "pyproject.toml", "tests/conftest.py"} <= names


def digests(files: dict[str, Path]) -> dict[str, str]:
    return {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}


def test_the_container_file_is_of_this_release() -> None:
    said = run("container-file")
    assert f"aetherflow-hooks=={run('--version').out.split()[-1]}" in said.out
    assert "USER 10001" in said.out
    assert 'ENTRYPOINT ["aetherflow-hooks"]\nCMD ["run"]\n' in said.out


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("aetherflow-hooks endp", "plain,endpoint"),
        ("aetherflow-hooks endpoint a", "plain,add"),
        ("aetherflow-hooks endpoint add --ord", "plain,--ordering"),
        ("aetherflow-hooks endpoint add --ordering b", "plain,block"),
    ],
)
def test_a_shell_completes_commands_options_and_their_values(typed: str, offered: str) -> None:
    words = typed.split()
    ended = subprocess.run(
        [Path(sys.executable).parent / "aetherflow-hooks"],
        env=os.environ
        | {
            "_AETHERFLOW_HOOKS_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in ended.stdout.splitlines()


def test_bash_takes_the_completion() -> None:
    said = run("completion", "bash")
    told = subprocess.run(
        ["bash", "-c", f"{said.out}\ncomplete -p aetherflow-hooks"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    assert "_aetherflow_hooks_completion" in told.stdout


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_is_explained(topic: str) -> None:
    said = run("help", topic)
    assert said.code == 0
    assert len(said.out.splitlines()) >= 3
    assert topic in run("help").out


def test_help_explains_commands_as_they_do_themselves() -> None:
    assert run("help", "endpoint", "add").out == run("endpoint", "add", "--help").out
    assert "neither a topic nor a command" in run("help", "endpoint", "nonsense").err
    assert run("help", "nonsense").code == 2


def test_what_can_be_reloaded_are_settings() -> None:
    for path in RELOADABLE:
        section, _, name = path.partition(".")
        assert hasattr(getattr(Settings(), section), name)
    assert set(commands.commands) >= {"help", "completion", "container-file", "doctor"}
