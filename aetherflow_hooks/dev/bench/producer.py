"""Producer: emits events at a fixed rate, each committed by itself, and notes when it did so.

A process of its own. The rate is offered whatever the engine does: each event has its time, and
whoever of the connections is free emits it.

    go   → {event id: seconds of CLOCK_MONOTONIC at which its commit was asked for}
"""

import asyncio
import time
from typing import Any

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.bench.load import DATA
from aetherflow_hooks.dev.bench.server import connect

CONNECTIONS = 8
EMIT = "select aetherflow.emit($1, $2::text) /* bench */"


async def main(told: dict[str, Any]) -> None:
    """Emit {per_second} events for {seconds}, of {types} types in turn, into {dsn}."""
    connections = [await connect(told["dsn"]) for _ in range(CONNECTIONS)]
    talk.collect_no_garbage()
    talk.say("ready")
    while await talk.hear() == talk.GO:
        talk.say(await _emit(connections, told))
    for connection in connections:
        await connection.close(timeout=5)


async def _emit(connections: list[Any], told: dict[str, Any]) -> dict[str, float]:
    emitted: dict[str, float] = {}
    per_second, types = told["per_second"], told["types"]
    numbers = iter(range(int(per_second * told["seconds"])))
    began = time.monotonic()

    async def emit_some(connection: Any) -> None:
        statement = await connection.prepare(EMIT)
        for number in numbers:  # shared: each takes the next that nobody has taken
            await asyncio.sleep(began + number / per_second - time.monotonic())
            # One statement is one transaction, and this is when it is asked for.
            asked_at = time.monotonic()
            event_id = await statement.fetchval(f"t.{number % types}", DATA)
            emitted[event_id] = asked_at

    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(emit_some(connection))
    return emitted


if __name__ == "__main__":
    talk.run(main)
