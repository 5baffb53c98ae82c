"""Drivers: the connections to Postgres that applications have, each asked in its own way.

A statement is written once, with `$1` for its first value, and runs on a connection of asyncpg,
psycopg 3, SQLAlchemy 2 or Django, inside whatever transaction that is in. None of them is loaded
here: a connection is of a driver that its owner has loaded.

    awaited              asyncpg.Connection, asyncpg.Pool, psycopg.AsyncConnection,
                         sqlalchemy AsyncConnection and AsyncSession
    not awaited          psycopg.Connection, sqlalchemy Connection and Session,
                         django.db.connection

What such connections come from opens a transaction: an asyncpg.Pool, a pool of psycopg_pool, an
Engine or sessionmaker of SQLAlchemy, awaited or not, and django.db.connection.
"""

import functools
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, NamedTuple

from aetherflow_hooks.errors import InputRefused

_VALUE = re.compile(r"\$(\d+)(?:::([a-z][a-z0-9]*(?:\[\])?))?")
# An engine may be set to commit each statement, or to show what was there at the beginning.
_PLAIN = {"isolation_level": "READ COMMITTED"}

_REMARK = re.compile(r"^--.*\n", re.MULTILINE)

Rows = Sequence[Sequence[Any]]


class _Kind(NamedTuple):
    """What objects of a library are, and what they can do for us."""

    classes: tuple[tuple[str, str], ...]  # of which module
    fetch: Callable[..., Any]
    is_awaited: bool


class AtHand(NamedTuple):
    """What runs transactions, one after the other."""

    alone: Callable[..., Awaitable[Rows]]  # takes a statement and its values
    transaction: Callable[[], AbstractAsyncContextManager[Any]]  # gives a connection


async def fetch(connection: Any, sql: str, *values: Any) -> Rows:
    """Run a statement on a connection that is awaited; give its rows.

    Raises:
        InputRefused: it is none of a known driver, or one that is not awaited.
    """
    kind = _kind_of(connection)
    if not kind.is_awaited:
        raise InputRefused(
            f"{_named(connection)} is not awaited: use the same function of aetherflow_hooks.sync"
        )
    rows: Rows = await kind.fetch(connection, sql, values)
    return rows


def fetch_sync(connection: Any, sql: str, *values: Any) -> Rows:
    """Run a statement on a connection that is not awaited; give its rows.

    Raises:
        InputRefused: it is none of a known driver, or one that is awaited.
    """
    kind = _kind_of(connection)
    if kind.is_awaited:
        raise InputRefused(
            f"{_named(connection)} is awaited: use the same function of aetherflow_hooks"
        )
    rows: Rows = kind.fetch(connection, sql, values)
    return rows


def is_awaited(source: Any) -> bool:
    """Tell whether a transaction from `source` is opened by `transaction`, or `transaction_sync`.

    Raises:
        InputRefused: no transaction comes from it.
    """
    return _source_of(source)[1]


@asynccontextmanager
async def transaction(source: Any) -> AsyncIterator[Any]:
    """Give a connection within a transaction of its own, which ends with the block."""
    opens, _ = _source_of(source)
    async with opens(source) as connection:
        yield connection


@asynccontextmanager
async def at_hand(source: Any) -> AsyncIterator[AtHand]:
    """Give what runs one transaction after the other, as long as the block lasts.

    A connection of asyncpg is kept for them, and a statement that is a transaction by itself takes
    one way to Postgres in place of three.
    """
    if _is_one_of(source, _POOLS_OF_ASYNCPG):
        async with source.acquire() as connection:
            yield AtHand(connection.fetch, partial(_on_asyncpg, connection))
        return

    async def alone(sql: str, *values: Any) -> Rows:
        async with transaction(source) as connection:
            return await fetch(connection, sql, *values)

    yield AtHand(alone, partial(transaction, source))


@contextmanager
def transaction_sync(source: Any) -> Iterator[Any]:
    """Give a connection within a transaction of its own, where nothing is awaited."""
    opens, _ = _source_of(source)
    with opens(source) as connection:
        yield connection


def _kind_of(connection: Any) -> _Kind:
    for kind in _KINDS:
        if _is_one_of(connection, kind.classes):
            return kind
    raise InputRefused(
        f"{_named(connection)} is no connection of asyncpg, psycopg, SQLAlchemy or Django"
    )


def _source_of(source: Any) -> tuple[Callable[[Any], Any], bool]:
    for classes, opens, awaited in _SOURCES:
        if _is_one_of(source, classes):
            return opens, awaited
    raise InputRefused(
        f"{_named(source)} opens no transactions: give an asyncpg pool, a pool of psycopg_pool, an "
        "Engine or sessionmaker of SQLAlchemy, or django.db.connection"
    )


def _is_one_of(value: Any, classes: tuple[tuple[str, str], ...]) -> bool:
    for module, name in classes:
        loaded = sys.modules.get(module)
        if loaded is not None and isinstance(value, getattr(loaded, name, ())):
            return True
    return False


def _named(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


async def _fetch_asyncpg(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    rows: Rows = await connection.fetch(statement, *values)
    return rows


async def _fetch_psycopg_awaited(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    text, order = _in_format_style(statement)
    # Whatever its owner makes of rows, and of statements.
    driver, plain = sys.modules["psycopg"], sys.modules["psycopg.rows"].tuple_row
    async with driver.AsyncCursor(connection, row_factory=plain) as cursor:
        await cursor.execute(text, [values[place] for place in order])
        return await cursor.fetchall() if cursor.description else []


def _fetch_psycopg(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    driver, plain = sys.modules["psycopg"], sys.modules["psycopg.rows"].tuple_row
    return _by_cursor(driver.Cursor(connection, row_factory=plain), statement, values)


def _fetch_by_cursor(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    return _by_cursor(connection.cursor(), statement, values)


def _by_cursor(cursor: Any, statement: str, values: Sequence[Any]) -> Rows:
    text, order = _in_format_style(statement)
    with cursor:
        cursor.execute(text, [values[place] for place in order])
        rows: Rows = cursor.fetchall() if cursor.description else []
    return rows


async def _fetch_sqlalchemy_awaited(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    result = await connection.execute(*_for_sqlalchemy(statement, values))
    return result.all() if result.returns_rows else []


def _fetch_sqlalchemy(connection: Any, statement: str, values: Sequence[Any]) -> Rows:
    result = connection.execute(*_for_sqlalchemy(statement, values))
    return result.all() if result.returns_rows else []


def _for_sqlalchemy(statement: str, values: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    named = {f"value_{number}": value for number, value in enumerate(values, 1)}
    return sys.modules["sqlalchemy"].text(_in_named_style(statement)), named


@functools.cache
def _in_format_style(statement: str) -> tuple[str, tuple[int, ...]]:
    """Write a statement with `%s` for each value; tell which value stands where.

    >>> _in_format_style("select $2::text, $1::int % 7")
    ('select %s::text, %s::int %% 7', (1, 0))
    """
    text = _REMARK.sub("", statement)
    order = tuple(int(found[1]) - 1 for found in _VALUE.finditer(text))
    written = _VALUE.sub(
        lambda found: f"%s::{found[2]}" if found[2] else "%s", text.replace("%", "%%")
    )
    return written, order


@functools.cache
def _in_named_style(statement: str) -> str:
    """Write a statement with names for its values, and casts that leave those names alone.

    >>> _in_named_style("select $2::text, $1")
    'select cast(:value_2 as text), :value_1'
    """
    return _VALUE.sub(
        lambda found: (
            f"cast(:value_{found[1]} as {found[2]})" if found[2] else f":value_{found[1]}"
        ),
        _REMARK.sub("", statement),
    )


@asynccontextmanager
async def _from_asyncpg(pool: Any) -> AsyncIterator[Any]:
    async with pool.acquire() as connection, connection.transaction():
        yield connection


@asynccontextmanager
async def _on_asyncpg(connection: Any) -> AsyncIterator[Any]:
    async with connection.transaction():
        yield connection


@asynccontextmanager
async def _from_psycopg_awaited(pool: Any) -> AsyncIterator[Any]:
    async with pool.connection() as connection, connection.transaction():  # in autocommit too
        yield connection


@contextmanager
def _from_psycopg(pool: Any) -> Iterator[Any]:
    with pool.connection() as connection, connection.transaction():
        yield connection


def _from_sqlalchemy(engine: Any) -> Any:
    return engine.execution_options(**_PLAIN).begin()


@asynccontextmanager
async def _from_sqlalchemy_sessions_awaited(make: Any) -> AsyncIterator[Any]:
    async with make() as session, session.begin():
        await session.connection(execution_options=_PLAIN)
        yield session


@contextmanager
def _from_sqlalchemy_sessions(make: Any) -> Iterator[Any]:
    with make() as session, session.begin():
        session.connection(execution_options=_PLAIN)
        yield session


@contextmanager
def _from_django(connection: Any) -> Iterator[Any]:
    """Open it on this thread's own connection, which ends when Django's would after a request."""
    django = sys.modules["django.db"]
    own = django.connections[connection.alias]
    is_outermost = not own.in_atomic_block
    if is_outermost:
        own.close_if_unusable_or_obsolete()
    try:
        with django.transaction.atomic(using=connection.alias):
            yield own
    finally:
        if is_outermost:
            own.close_if_unusable_or_obsolete()


_KINDS = (
    _Kind(
        (
            ("asyncpg.connection", "Connection"),
            ("asyncpg.pool", "Pool"),
            ("asyncpg.pool", "PoolConnectionProxy"),
        ),
        _fetch_asyncpg,
        is_awaited=True,
    ),
    _Kind((("psycopg", "AsyncConnection"),), _fetch_psycopg_awaited, is_awaited=True),
    _Kind((("psycopg", "Connection"),), _fetch_psycopg, is_awaited=False),
    _Kind(
        (
            ("sqlalchemy.ext.asyncio", "AsyncConnection"),
            ("sqlalchemy.ext.asyncio", "AsyncSession"),
        ),
        _fetch_sqlalchemy_awaited,
        is_awaited=True,
    ),
    _Kind(
        (
            ("sqlalchemy.engine", "Connection"),
            ("sqlalchemy.orm", "Session"),
            ("sqlalchemy.orm", "scoped_session"),
        ),
        _fetch_sqlalchemy,
        is_awaited=False,
    ),
    _Kind(
        (
            ("django.db.backends.base.base", "BaseDatabaseWrapper"),
            ("django.utils.connection", "ConnectionProxy"),
        ),
        _fetch_by_cursor,
        is_awaited=False,
    ),
)

_POOLS_OF_ASYNCPG = (("asyncpg.pool", "Pool"),)
_SOURCES: tuple[tuple[tuple[tuple[str, str], ...], Callable[[Any], Any], bool], ...] = (
    (_POOLS_OF_ASYNCPG, _from_asyncpg, True),
    ((("psycopg_pool", "AsyncConnectionPool"),), _from_psycopg_awaited, True),
    ((("psycopg_pool", "ConnectionPool"),), _from_psycopg, False),
    ((("sqlalchemy.ext.asyncio", "AsyncEngine"),), _from_sqlalchemy, True),
    ((("sqlalchemy.engine", "Engine"),), _from_sqlalchemy, False),
    (
        (("sqlalchemy.ext.asyncio", "async_sessionmaker"),),
        _from_sqlalchemy_sessions_awaited,
        True,
    ),
    ((("sqlalchemy.orm", "sessionmaker"),), _from_sqlalchemy_sessions, False),
    (
        (
            ("django.db.backends.base.base", "BaseDatabaseWrapper"),
            ("django.utils.connection", "ConnectionProxy"),
        ),
        _from_django,
        False,
    ),
)
