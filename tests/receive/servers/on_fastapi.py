"""FastAPI, with SQLAlchemy's asynchronous engine, behind uvicorn."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from aetherflow_hooks.receive import Hooks, SeenInPostgres, Webhook
from aetherflow_hooks.receive.frameworks.starlette import endpoint
from tests.receive.servers import DSN, HANDLED, PORT, SECRET, Dying, misbehave_awaited

engine = create_async_engine(DSN.replace("postgresql:", "postgresql+asyncpg:"))
seen = SeenInPostgres(engine)
hooks = Hooks(SECRET, seen=seen)


@hooks.on("*")
async def handle(webhook: Webhook[dict[str, Any]], connection: Any) -> None:
    await connection.execute(text(HANDLED.format(id=webhook.id)))
    await misbehave_awaited(webhook.data)


@asynccontextmanager
async def lifespan(_application: FastAPI) -> AsyncIterator[None]:
    await seen.create()
    yield
    await engine.dispose()


application = FastAPI(lifespan=lifespan)
application.add_route("/webhook", endpoint(Dying(hooks)), methods=["POST"])

if __name__ == "__main__":
    uvicorn.run(application, host="127.0.0.1", port=PORT)
