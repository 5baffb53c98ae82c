"""Procrastinate: jobs are fetched and finished one by one, over a pool of connections.

One worker on psycopg's pool in its own size, which listens and keeps finished jobs.
"""

import asyncio
from typing import Any

import aiohttp
from procrastinate import App, PsycopgConnector

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.bench.peers.request import body_of, event_id_of, headers_of

LEFT = "select exists (select from procrastinate_jobs where status in ('todo', 'doing'))"
STORED = "select count(*) from procrastinate_jobs where status = 'succeeded'"


async def main(told: dict[str, Any]) -> None:
    """Make `jobs` stored requests to `url`, `concurrency` at once."""
    app = App(connector=PsycopgConnector(conninfo=told["dsn"], configure=_autocommit))
    async with (
        app.open_async(),
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):
        await app.schema_manager.apply_schema_async()
        await app.run_worker_async(wait=False)  # it has nothing to do yet, and is warm then
        await _store(app, session, told["url"], told["jobs"])
        talk.say({"left": LEFT, "stored": STORED})
        if await talk.hear() != talk.GO:
            return
        async with asyncio.TaskGroup() as group:
            worker = group.create_task(
                app.run_worker_async(
                    concurrency=told["concurrency"],
                    listen_notify=True,
                    delete_jobs="never",
                    install_signal_handlers=False,
                )
            )
            await talk.hear()  # our peak of memory is read before we end
            worker.cancel()  # its own way of being stopped


async def _autocommit(connection: Any) -> None:
    # All it does is single statements, which need no BEGIN and COMMIT around them.
    await connection.set_autocommit(True)


async def _store(app: App, session: aiohttp.ClientSession, url: str, jobs: int) -> None:
    async def post(event_id: str, text: str) -> None:
        body = text.encode()
        async with session.post(url, data=body, headers=headers_of(event_id, body)) as response:
            await response.read()
            response.raise_for_status()

    ids = [event_id_of(number) for number in range(jobs)]
    stored: list[Any] = [{"event_id": id_, "text": body_of(id_).decode()} for id_ in ids]
    await app.task(name="post")(post).batch_defer_async(*stored)
    # An installation has had its queue for long: autovacuum has seen it.
    await app.connector.execute_query_async("analyze procrastinate_jobs")


if __name__ == "__main__":
    talk.run(main)
