"""Fuzz the API by its own document: whatever is sent, every answer is one that the document tells.

python -m tests.web.fuzz [EXAMPLES]   so many for each operation, and as many that must be refused
"""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from aetherflow_hooks import migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.manage.replays import NewReplay, start_replay
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.web.openapi import PATH as DOCUMENT
from tests.conftest import FAST, settings_for
from tests.folders import roomy_folder
from tests.web.conftest import free_port

# What is refused for what it means, and not for its form, no schema can say. That nothing is open
# without a token is tested elsewhere, since who has none is kept waiting; and a stream never ends.
LEFT_OUT = "positive_data_acceptance,ignored_auth"
EXAMPLES_DEFAULT = 400  # 10,000 requests


async def fuzz(dsn: str, examples: int, folder: Path) -> tuple[int, str]:
    """Send requests to an engine on a migrated database; give the exit code and what was told."""
    port = free_port()
    settings = settings_for(dsn, web={"port": port}, log={"level": "error"})
    async with Database(settings.database) as database, start_engine(settings):
        token = (await add_token(database, "fuzz", Scope.ADMIN))["token"]
        new = NewEndpoint(url="http://127.0.0.1:1/")
        endpoint_id = (await add_endpoint(database, new, settings=settings))["id"]
        new = NewEndpoint(polled=True, events=["a.*"])
        polled_id = (await add_endpoint(database, new, settings=settings))["id"]
        event_id = await emit_event(database, "a.b", '{"n": 1}')
        replay = await start_replay(database, NewReplay(only_failed=True))
        config = folder / "schemathesis.toml"
        config.write_text(
            "[parameters]\n"
            f'"path.endpoint_id" = "{endpoint_id}"\n'
            f'"path.event_id" = "{event_id}"\n'
            f'"path.delivery_id" = "{delivery_id(event_id, endpoint_id)}"\n'
            f'"path.replay_id" = "{replay["id"]}"\n'
            f'"query.endpoint_id" = "{polled_id}"\n'
            '"query.wait_seconds" = 0\n'
        )
        process = await asyncio.create_subprocess_exec(
            *(Path(sys.executable).with_name("schemathesis"), "--config-file", config, "run"),
            f"http://127.0.0.1:{port}{DOCUMENT}",
            *("--header", f"Authorization: Bearer {token}"),
            *("--phases", "fuzzing", "--max-examples", str(examples), "--continue-on-failure"),
            *("--exclude-checks", LEFT_OUT, "--exclude-path-regex", "tokens/|stream"),
            *("--request-timeout", "20", "--no-color", "--warnings", "off"),
            cwd=folder,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        told, _ = await process.communicate()
    return process.returncode or 0, told.decode()


def generated(told: str) -> int:
    """Read how many requests were made."""
    found = re.search(r"(\d+) generated", told)
    return int(found[1]) if found else 0


async def main(examples: int) -> int:
    """Fuzz on a Postgres of its own."""
    with tempfile.TemporaryDirectory(dir=roomy_folder()) as name:
        folder = Path(name)
        folder.chmod(0o711)
        postgres = EmbeddedPostgres(folder, settings=FAST, initdb_args=["--no-sync"])
        await postgres.start()
        try:
            await migrate(settings_for(postgres.dsn()))
            code, told = await fuzz(postgres.dsn(), examples, folder)
        finally:
            await postgres.stop()
    sys.stdout.write(told)
    return code


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else EXAMPLES_DEFAULT)))
