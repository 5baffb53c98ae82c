"""aiohttp, with asyncpg."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
from aiohttp import web

from aetherflow_hooks.receive import Hooks, SeenInPostgres, Webhook
from aetherflow_hooks.receive.frameworks.aiohttp import endpoint
from tests.receive.servers import DSN, HANDLED, PORT, SECRET, Dying, misbehave_awaited


async def main() -> web.Application:
    pool = await asyncpg.create_pool(DSN, min_size=1, max_size=8)
    seen = SeenInPostgres(pool)
    await seen.create()
    hooks = Hooks(SECRET, seen=seen)

    @hooks.on("*")
    async def handle(webhook: Webhook[dict[str, Any]], connection: Any) -> None:
        await connection.execute(HANDLED.format(id=webhook.id))
        await misbehave_awaited(webhook.data)

    async def close(_application: web.Application) -> AsyncIterator[None]:
        yield
        await pool.close()

    application = web.Application()
    application.router.add_post("/webhook", endpoint(Dying(hooks)))
    application.cleanup_ctx.append(close)
    return application


if __name__ == "__main__":
    web.run_app(main(), host="127.0.0.1", port=PORT, print=None)
