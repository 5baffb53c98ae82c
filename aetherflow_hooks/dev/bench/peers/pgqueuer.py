"""PgQueuer: jobs are claimed and logged in batches, over one connection.

A worker as its guide to tuning has it: a connection of its own, large batches, autovacuum set for
the queue. Results go to its log through its buffer, a batch or 0.1 s at a time, and all is durable.
"""

import asyncio
from typing import Any

import aiohttp
import asyncpg
import orjson
from pgqueuer import Job, PgQueuer, Queries

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.bench.peers.request import body_of, event_id_of, headers_of

BATCH = 100  # jobs per claim, and results per write; more of them gain nothing
ENTRYPOINT = "post"

LEFT = "select exists (select from pgqueuer)"
STORED = "select count(*) from pgqueuer_log where status = 'successful'"


async def main(told: dict[str, Any]) -> None:
    """Make `jobs` stored requests to `url`, `concurrency` at once."""
    # The session holds requests back: PgQueuer's own limits count jobs until their results are
    # written, so that each of them has the worker wait for its buffer.
    connector = aiohttp.TCPConnector(limit=told["concurrency"])
    connection = await asyncpg.connect(told["dsn"])
    try:
        await _store(connection, told["jobs"])
        async with aiohttp.ClientSession(connector=connector) as session:
            worker = _worker(connection, session, told["url"])
            talk.say({"left": LEFT, "stored": STORED})
            if await talk.hear() != talk.GO:
                return
            async with asyncio.TaskGroup() as group:
                group.create_task(worker.run(batch_size=BATCH))
                await talk.hear()  # our peak of memory is read before we end
                worker.shutdown.set()
    finally:
        await connection.close(timeout=5)


async def _store(connection: Any, jobs: int) -> None:
    queries = Queries.from_asyncpg_connection(connection)
    await queries.install()
    await queries.optimize_autovacuum()
    bodies: list[bytes | None] = [body_of(event_id_of(number)) for number in range(jobs)]
    await queries.enqueue([ENTRYPOINT] * jobs, bodies, [0] * jobs)
    # An installation has had its queue for long: autovacuum has seen it.
    await connection.execute("analyze pgqueuer")


def _worker(connection: Any, session: aiohttp.ClientSession, url: str) -> PgQueuer:
    async def post(job: Job) -> None:
        body = job.payload
        assert body is not None
        event_id = orjson.loads(body)["id"]
        async with session.post(url, data=body, headers=headers_of(event_id, body)) as response:
            await response.read()
            response.raise_for_status()

    worker = PgQueuer.from_asyncpg_connection(connection)
    worker.entrypoint(ENTRYPOINT)(post)
    return worker


if __name__ == "__main__":
    talk.run(main)
