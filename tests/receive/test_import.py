"""Who only receives loads nothing of the engine."""

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "asyncpg", "orjson", "structlog", "pydantic", "cryptography", "asyncio")
NAMES = "Hooks, Inbox, SeenInMemory, SeenInPostgres, SeenInRedis, Webhook, read, verify"


@pytest.mark.parametrize(
    ("program", "heavy"),
    [
        ("import aetherflow_hooks.receive", HEAVY),
        ("from aetherflow_hooks import verify; from aetherflow_hooks.receive import read", HEAVY),
        (f"from aetherflow_hooks.receive import {NAMES}", HEAVY[:-1]),
    ],
)
def test_what_receivers_import_is_light(program: str, heavy: tuple[str, ...]) -> None:
    told = f"{program}; import sys; print(*[name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_every_public_name_is_found() -> None:
    told = (
        "import aetherflow_hooks, aetherflow_hooks.receive as receive\n"
        "for module in (aetherflow_hooks, receive):\n"
        "    assert set(module.__all__) <= set(dir(module))\n"
        "    for name in module.__all__:\n"
        "        assert getattr(module, name).__name__ == name or name == 'load_config'\n"
        "    try:\n"
        "        module.nothing\n"
        "    except AttributeError as error:\n"
        "        assert 'nothing' in str(error)\n"
        "    else:\n"
        "        raise AssertionError\n"
    )
    subprocess.run([sys.executable, "-c", told], check=True, timeout=60)
