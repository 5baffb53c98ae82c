"""What opens transactions on Postgres, of every driver that receivers have."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
import psycopg_pool
import sqlalchemy
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker

from tests.django_database import connect


@asynccontextmanager
async def asyncpg_pool(dsn: str) -> AsyncIterator[Any]:
    async with asyncpg.create_pool(dsn, min_size=1) as pool:
        yield pool


@asynccontextmanager
async def psycopg_pool_awaited(dsn: str) -> AsyncIterator[Any]:
    async with psycopg_pool.AsyncConnectionPool(dsn, min_size=1, max_size=6) as pool:
        yield pool


@asynccontextmanager
async def psycopg_pool_sync(dsn: str) -> AsyncIterator[Any]:
    with psycopg_pool.ConnectionPool(dsn, min_size=1, max_size=6) as pool:
        yield pool


@asynccontextmanager
async def sqlalchemy_awaited(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:", 1))
    yield engine
    await engine.dispose()


@asynccontextmanager
async def sqlalchemy_awaited_sessions(dsn: str) -> AsyncIterator[Any]:
    async with sqlalchemy_awaited(dsn) as engine:
        yield async_sessionmaker(engine)


@asynccontextmanager
async def sqlalchemy_sync(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    yield engine
    engine.dispose()


@asynccontextmanager
async def sqlalchemy_sync_sessions(dsn: str) -> AsyncIterator[Any]:
    async with sqlalchemy_sync(dsn) as engine:
        yield sessionmaker(engine)


@asynccontextmanager
async def django_connection(dsn: str) -> AsyncIterator[Any]:
    with connect(dsn) as connection:
        yield connection


Source = Callable[[str], AbstractAsyncContextManager[Any]]
SOURCES: list[Source] = [
    asyncpg_pool,
    psycopg_pool_awaited,
    psycopg_pool_sync,
    sqlalchemy_awaited,
    sqlalchemy_awaited_sessions,
    sqlalchemy_sync,
    sqlalchemy_sync_sessions,
    django_connection,
]
