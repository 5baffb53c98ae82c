"""Emitting by whichever driver an application has, inside its own transaction."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import psycopg
import psycopg.rows
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

import aetherflow_hooks
from aetherflow_hooks import NewEvent, sync
from aetherflow_hooks.errors import InputRefused
from tests.conftest import World
from tests.django_database import connect


class Undo(Exception):
    """The application changes its mind."""


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def by_asyncpg_pool(dsn: str) -> AsyncIterator[Any]:
    async with (
        asyncpg.create_pool(dsn, min_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection


@asynccontextmanager
async def by_psycopg_awaited(dsn: str) -> AsyncIterator[Any]:
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        yield connection


@asynccontextmanager
async def by_psycopg(dsn: str) -> AsyncIterator[Any]:
    # whatever it makes of rows
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        yield connection


@asynccontextmanager
async def by_sqlalchemy_awaited(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+asyncpg:", 1))
    try:
        async with engine.begin() as connection:
            yield connection
    finally:
        await engine.dispose()


@asynccontextmanager
async def by_sqlalchemy_awaited_session(dsn: str) -> AsyncIterator[Any]:
    engine = create_async_engine(dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        async with AsyncSession(engine) as session, session.begin():
            yield session
    finally:
        await engine.dispose()


@asynccontextmanager
async def by_sqlalchemy(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@asynccontextmanager
async def by_sqlalchemy_session(dsn: str) -> AsyncIterator[Any]:
    engine = sqlalchemy.create_engine(dsn.replace("postgresql:", "postgresql+psycopg:", 1))
    try:
        with Session(engine) as session, session.begin():
            yield session
    finally:
        engine.dispose()


@asynccontextmanager
async def by_sqlalchemy_scoped_session(dsn: str) -> AsyncIterator[Any]:
    """As Flask-SQLAlchemy has it."""
    async with by_sqlalchemy(dsn) as connection:
        session = scoped_session(sessionmaker(connection))
        yield session
        session.commit()
        session.remove()


@asynccontextmanager
async def by_django(dsn: str) -> AsyncIterator[Any]:
    from django.db import transaction  # noqa: PLC0415  it wants settings first

    with connect(dsn) as connection, transaction.atomic():
        yield connection


Way = Callable[[str], AbstractAsyncContextManager[Any]]
AWAITED: list[Way] = [
    by_asyncpg,
    by_asyncpg_pool,
    by_psycopg_awaited,
    by_sqlalchemy_awaited,
    by_sqlalchemy_awaited_session,
]
NOT_AWAITED: list[Way] = [
    by_psycopg,
    by_sqlalchemy,
    by_sqlalchemy_session,
    by_sqlalchemy_scoped_session,
    by_django,
]


def call(way: Way, function: str) -> Callable[..., Awaitable[Any]]:
    """Give `emit` or `emit_many` of a way's kind, to be awaited in either case."""
    if way in AWAITED:
        awaited: Callable[..., Awaitable[Any]] = getattr(aetherflow_hooks, function)
        return awaited
    plain = getattr(sync, function)

    async def called(*given: Any, **options: Any) -> Any:
        return plain(*given, **options)

    return called


@pytest.mark.parametrize("way", [*AWAITED, *NOT_AWAITED])
async def test_committed_it_is_sent_once_and_rolled_back_never(way: Way, world: World) -> None:
    emit = call(way, "emit")
    await world.endpoint()

    async def change_its_mind() -> None:
        async with way(world.dsn) as connection:
            await emit(connection, "a.b", {"n": 0})
            raise Undo

    with pytest.raises(Undo):
        await change_its_mind()
    async with way(world.dsn) as connection:
        event_id = await emit(connection, "a.b", '{"n":  1, "é%": "%s :x $1"}')
    await world.deliver()
    (request,) = world.receiver.received
    assert request.headers["webhook-id"] == event_id
    assert '"data":{"n":  1, "é%": "%s :x $1"}}'.encode() in request.body


@pytest.mark.parametrize("way", [*AWAITED, *NOT_AWAITED])
async def test_every_option_is_heard(way: Way, world: World) -> None:
    emit = call(way, "emit")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    options: dict[str, Any] = {
        "tenant": "acme",
        "idempotency_key": "once",
        "deliver_at": at,
        "expires_at": at + timedelta(days=1),
        "ordering_key": "key",
        "channels": ["eu", "us"],
    }
    async with way(world.dsn) as connection:
        first = await emit(connection, "user.joined", b'{"user": {"id": "1"}}', **options)
        assert await emit(connection, "a.b", {}, **options) == first
        with pytest.raises(InputRefused, match="does not fit"):
            await emit(connection, "user.joined", {"user": 1}, validate=True)
        with pytest.raises(InputRefused, match="is no channel"):
            await emit(connection, "a.b", {}, channels=["a b"])
    (row,) = await world.rows(
        "select tenant, due_at, expires_at, ordering_key, channels from aetherflow.outbox"
    )
    assert dict(row) == {
        "tenant": "acme",
        "due_at": at,
        "expires_at": at + timedelta(days=1),
        "ordering_key": "key",
        "channels": '["eu", "us"]',
    }


@pytest.mark.parametrize("way", [*AWAITED, *NOT_AWAITED])
async def test_many_are_emitted_by_one_statement_all_or_none(way: Way, world: World) -> None:
    emit_many = call(way, "emit_many")
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    events = [
        NewEvent(type="a.b", data={"n": 1}),
        NewEvent(type="a.c", data='{"n": 2}', tenant="acme", idempotency_key="k", deliver_at=at),
        NewEvent(type="a.d", data=b"{}", channels=["eu", "us"], ordering_key="o", expires_at=at),
        NewEvent(type="a.e", data={}, tenant="acme", idempotency_key="k"),
    ]
    async with way(world.dsn) as connection:
        ids = await emit_many(connection, iter(events))
        assert await emit_many(connection, []) == []
        with pytest.raises(InputRefused, match="event 1: "):
            await emit_many(connection, [events[0], NewEvent(type="a", data={"x": object()})])
    assert len(set(ids)) == 3
    assert ids[1] == ids[3]
    found = await world.rows(
        "select event_id, type, tenant, ordering_key, channels, expires_at from aetherflow.outbox"
    )
    assert {row["event_id"]: tuple(row)[1:] for row in found} == {
        ids[0]: ("a.b", "", None, None, None),
        ids[1]: ("a.c", "acme", None, None, None),
        ids[2]: ("a.d", "", "o", '["eu", "us"]', at),
    }


async def test_what_postgres_refuses_leaves_the_others_out_too(world: World) -> None:
    async with by_asyncpg(world.dsn) as connection:
        with pytest.raises(asyncpg.PostgresError, match="type"):
            async with connection.transaction():
                await aetherflow_hooks.emit_many(
                    connection,
                    [NewEvent(type="a.b", data={}), NewEvent(type="not a type", data={})],
                )
    assert await world.value("select count(*) from aetherflow.events") == 0


async def test_what_is_no_connection_is_refused(world: World) -> None:
    async with by_asyncpg(world.dsn) as awaited:
        with pytest.raises(InputRefused, match=r"is awaited: use .* aetherflow_hooks"):
            sync.emit(awaited, "a.b", {})
    async with by_psycopg(world.dsn) as plain:
        with pytest.raises(InputRefused, match=r"not awaited: use .* aetherflow_hooks\.sync"):
            await aetherflow_hooks.emit(plain, "a.b", {})
    for nothing in (None, "postgresql://", object()):
        with pytest.raises(InputRefused, match="no connection of asyncpg, psycopg, SQLAlchemy"):
            await aetherflow_hooks.emit(nothing, "a.b", {})
