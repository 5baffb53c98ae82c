"""Notified: the least that an application on Postgres can do by itself to tell of an event.

It stores a row and notifies of it in one commit; who listens reads the row and POSTs it. Nothing is
leased, retried or recorded, so how long that takes is what the machine takes for it.
"""

import asyncio
from typing import Any

import aiohttp
import asyncpg

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.bench.peers.request import headers_of

CHANNEL = "notified"

STORE = f"""
with stored as (
    insert into notified (id, body) values ($1, $2) returning id
)
select pg_notify('{CHANNEL}', id) from stored
"""
READ = "select body from notified where id = $1"


async def main(told: dict[str, Any]) -> None:
    """POST to `url` what is stored in the database `dsn`, until we are told to end."""
    connection = await asyncpg.connect(told["dsn"])
    try:
        await connection.execute("create table notified (id text primary key, body text not null)")
        async with aiohttp.ClientSession() as session, asyncio.TaskGroup() as group:
            heard: asyncio.Queue[str] = asyncio.Queue()

            async def post_each() -> None:
                while True:
                    event_id = await heard.get()
                    body = (await connection.fetchval(READ, event_id)).encode()
                    async with session.post(
                        told["url"], data=body, headers=headers_of(event_id, body)
                    ) as response:
                        await response.read()
                        response.raise_for_status()

            await connection.add_listener(CHANNEL, lambda *it: heard.put_nowait(it[-1]))
            posting = group.create_task(post_each())
            talk.say("ready")
            await talk.hear()
            posting.cancel()
    finally:
        await connection.close(timeout=5)


if __name__ == "__main__":
    talk.run(main)
