"""Bare: aiohttp's POST in a loop, which stores nothing, retries nothing and forgets everything.

The mark that all are measured by. One session, its connector without a limit of its own, so many
coroutines that each make the next request when the last was answered. On asyncio's own loop or, as
`bare-uvloop`, on uvloop.
"""

import asyncio
import time
from typing import Any

import aiohttp

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.bench.peers.request import body_of, event_id_of, headers_of


async def main(told: dict[str, Any]) -> None:
    """Make `jobs` requests to `url`, `concurrency` at once."""
    url = told["url"]
    numbers = iter(range(told["jobs"]))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def post_some() -> None:
            for number in numbers:  # shared: each takes the next that nobody has taken
                event_id = event_id_of(number)
                body = body_of(event_id)
                async with session.post(
                    url, data=body, headers=headers_of(event_id, body)
                ) as response:
                    await response.read()
                    response.raise_for_status()

        talk.say("ready")
        if await talk.hear() != talk.GO:
            return
        began, used = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for _ in range(told["concurrency"]):
                group.create_task(post_some())
        talk.say({"seconds": time.monotonic() - began, "cpu_seconds": time.process_time() - used})
        await talk.hear()  # our peak of memory is read before we end


if __name__ == "__main__":
    talk.run(main)
