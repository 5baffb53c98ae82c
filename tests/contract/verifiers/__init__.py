"""Receivers in three languages and two official libraries, asked what they think of requests.

    lines = node_accepts([case(secret, headers, body), …])

gives for each request `ok` or `refused: <why>`. Where a language is not installed, or npm cannot
get its package, the test that asks is skipped with the reason. The programs know nothing of this
project; `verify.py`, `verify.mjs` and `verify.go` beside this file can be run by hand.
"""

import atexit
import base64
import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

__all__ = [
    "Case",
    "case",
    "go_accepts",
    "node_accepts",
    "node_official_accepts",
    "python_accepts",
    "python_official_accepts",
]

HERE = Path(__file__).parent
RUN_SECONDS_MAX = 30
NPM_SECONDS_MAX = 60
GO_BUILD_SECONDS_MAX = 120  # 9 s on two cores where Go has to compile its own library first


class Case(TypedDict):
    """One request as it reached a receiver, with the secret that the receiver holds."""

    secret: str
    headers: dict[str, str]
    body_base64: str


def case(secret: str, headers: Mapping[str, str], body: bytes) -> Case:
    """Make a case of what was captured."""
    return {
        "secret": secret,
        "headers": dict(headers),
        "body_base64": base64.b64encode(body).decode(),
    }


def python_accepts(cases: Sequence[Case]) -> list[str]:
    """Ask `verify.py` about X-AetherFlow-Signature and the body."""
    return _ask([sys.executable, "-I", str(HERE / "verify.py")], cases)


def node_accepts(cases: Sequence[Case]) -> list[str]:
    """Ask `verify.mjs` about X-AetherFlow-Signature and the body."""
    return _ask([_program("node"), str(HERE / "verify.mjs")], cases)


def go_accepts(cases: Sequence[Case]) -> list[str]:
    """Ask `verify.go`, built once per session, about X-AetherFlow-Signature and the body."""
    return _ask([str(_go_binary(_program("go")))], cases)


def node_official_accepts(cases: Sequence[Case]) -> list[str]:
    """Ask the npm package `standardwebhooks` about webhook-signature; 5 minutes of age pass."""
    node, npm = _program("node"), _program("npm")
    folder = _npm_folder(npm)
    if isinstance(folder, str):
        pytest.skip(folder)
    return _ask([node, str(folder / "verify.mjs"), "official"], cases)


def python_official_accepts(cases: Sequence[Case]) -> list[str]:
    """Ask the PyPI package `standardwebhooks` about webhook-signature; 5 minutes of age pass."""
    return [_python_official_verdict(one) for one in cases]


def _python_official_verdict(one: Case) -> str:
    secret = one["secret"]
    try:
        # A secret that the user brought is its own key; the library takes such a key as bytes.
        webhook = Webhook(secret if secret.startswith("whsec_") else secret.encode())
        webhook.verify(base64.b64decode(one["body_base64"]), one["headers"])
    except (WebhookVerificationError, ValueError) as error:
        return f"refused: {type(error).__name__}: {error}"
    return "ok"


def _ask(command: Sequence[str], cases: Sequence[Case]) -> list[str]:
    done = subprocess.run(
        command,
        input=json.dumps(cases).encode(),
        capture_output=True,
        check=False,
        timeout=RUN_SECONDS_MAX,
    )
    lines = done.stdout.decode().split("\n")[:-1]
    # A verifier that fell over must not pass for one that refused.
    assert len(lines) == len(cases), f"{command}: {done.stdout!r} {done.stderr.decode()}"
    assert done.returncode == int(any(line != "ok" for line in lines)), done.stderr.decode()
    return lines


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _session_folder(name: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"aetherflow-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@functools.cache
def _go_binary(go: str) -> Path:
    binary = _session_folder("go") / "verify"
    # One file of standard library: no module, no download, no C compiler. Unoptimised it is built
    # in two thirds of the time.
    settings = {"CGO_ENABLED": "0", "GOFLAGS": "", "GOPROXY": "off", "GOTOOLCHAIN": "local"}
    built = subprocess.run(
        [go, "build", "-gcflags=all=-N -l", "-o", str(binary), str(HERE / "verify.go")],
        env={**os.environ, **settings},
        cwd=binary.parent,
        capture_output=True,
        check=False,
        timeout=GO_BUILD_SECONDS_MAX,
    )
    assert built.returncode == 0, built.stderr.decode()
    return binary


@functools.cache
def _npm_folder(npm: str) -> Path | str:
    """Install the pinned package beside a copy of the verifier; a text says why it could not be.

    A failure is remembered too: without a network each further try would cost seconds.
    """
    folder = _session_folder("npm")
    for name in ("package.json", "package-lock.json", "verify.mjs"):
        shutil.copy(HERE / name, folder)
    flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"]
    try:
        done = subprocess.run(
            [npm, "ci", *flags, *patience],
            cwd=folder,
            capture_output=True,
            check=False,
            timeout=NPM_SECONDS_MAX,
        )
    except subprocess.TimeoutExpired:
        return f"npm could not install standardwebhooks within {NPM_SECONDS_MAX} s"
    if done.returncode != 0:
        errors = [line for line in done.stderr.decode().splitlines() if "error" in line.lower()]
        return f"npm could not install standardwebhooks: {' '.join(errors[:3])}"
    return folder
