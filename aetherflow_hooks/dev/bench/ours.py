"""Ours: the engine under test, a process started as users start it."""

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from aetherflow_hooks.config import render
from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.process import Child
from aetherflow_hooks.dev.bench.server import Scratch

START_SECONDS_MAX = 30.0
SETTLE_SECONDS = 0.5  # what an engine does once, at its start, is no part of a turn

_OWNED = f"""
select bool_and(s.owner is not null and s.leased_until > now()) {OURS} from aetherflow.shards s
"""


@asynccontextmanager
async def engine(
    scratch: Scratch, *, certificate: Path | None = None, settle: bool = True
) -> AsyncIterator[Child]:
    """Run `aetherflow-hooks run` on a database; drain it at the end.

    With `settle` it owns every shard and has done what it does at its start.

    Its settings come as a file, which is private to this account: a DSN may hold a password.
    """
    with TemporaryDirectory(prefix="aetherflow-bench-") as folder:
        file = Path(folder, "engine.toml")
        file.write_text(render(scratch.settings, comments=False), encoding="utf-8")
        command = [sys.executable, "-m", "aetherflow_hooks", "run", "--config", str(file)]
        environment = {"SSL_CERT_FILE": str(certificate)} if certificate else {}
        async with Child.leashed("the engine", *command, environment=environment) as child:
            if settle:
                await _ready(scratch, child)
            yield child


async def _ready(scratch: Scratch, child: Child) -> None:
    give_up_at = time.monotonic() + START_SECONDS_MAX
    while not await scratch.connection.fetchval(_OWNED):
        child.check()
        if time.monotonic() > give_up_at:
            raise BenchFailed(f"the engine does not start: {child.complaint()}")
        await asyncio.sleep(0.02)
    await asyncio.sleep(SETTLE_SECONDS)
