"""status: how all of it is going, once or again and again."""

import asyncio
import os
import signal
import sys

from tests.conftest import World
from tests.contract.test_cli import run


async def test_status_tells_how_all_is_going_and_each_endpoint(world: World) -> None:
    dead = await world.endpoint("/dead", "500", retry_schedule_seconds=[])
    well = await world.endpoint("/well", tenant="acme")
    async with world.engine():
        for _ in range(3):
            await world.emit()
            await world.emit(tenant="acme")
        await world.settled()
        await world.connection.execute(
            "update aetherflow.endpoints set failing_since = now() where id = $1", dead["id"]
        )
        await world.until(  # numbers are written a moment later
            "select coalesce(sum(attempts), 0) = 6 from aetherflow.tallies"
            " where span = 60 and subject like 'ep_%'"
        )
        said = await asyncio.to_thread(run, "status", "--dsn", world.dsn)
        of_one = await asyncio.to_thread(run, "status", "--dsn", world.dsn, "--tenant", "acme")
    lines = {line[:12].strip(): line for line in said.out.splitlines()}
    assert "6 attempts, 50 % delivered" in lines["hour"]
    assert lines["engines"].endswith(" 1")
    assert "3 deliveries" in lines["given up"]
    assert "2 active" in lines["endpoints"]
    assert f"look at {dead['id']}" in said.out
    assert "3 attempts, 100 % delivered" in of_one.out
    assert "given up" not in of_one.out  # which are of all tenants
    assert well["id"] in of_one.out
    assert dead["id"] not in of_one.out


async def test_watching_goes_on_until_it_is_ended(world: World) -> None:
    """A Postgres that is away for a moment does not end it."""
    program = (
        "from aetherflow_hooks.cli import main\n"
        "import sys; sys.modules['aetherflow_hooks.cli.status'].WATCH_SECONDS = 0.05\n"
        "main()"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "status", "--watch", "--dsn", world.dsn),
        env=os.environ | {"TERM": "dumb"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await world.endpoint()
    seen = 0
    async with asyncio.timeout(20):
        async for line in process.stdout:
            seen += line.startswith(b"endpoints") and b"1 active" in line
            if seen == 2:
                await world.value(
                    "select count(pg_terminate_backend(pid)) from pg_stat_activity"
                    " where application_name = 'aetherflow-hooks'"
                    " and datname = current_database()"
                )
            if seen == 4:
                break
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 0
