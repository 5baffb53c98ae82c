"""Database: statements by name, over a pool of connections."""

import asyncio
import copy
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import asyncpg

from aetherflow_hooks.config import DatabaseSettings
from aetherflow_hooks.db.connections import (
    FLOW_OPTIONS,
    PASSING,
    PLANNING,
    Connection,
    connect_options,
    connecting,
    set_local,
    sorted_errors,
)
from aetherflow_hooks.db.pooler import Pooler, is_pooled, look_for_pooler
from aetherflow_hooks.db.statements import again_of, in_schema, statements
from aetherflow_hooks.errors import AlreadyThere, TookTooLong
from aetherflow_hooks.rules.measures import Summary

CLOSE_SECONDS = 5.0  # for connections to say goodbye; then they are cut
CUT_SECONDS = 0.5

Row = Any  # asyncpg.Record, for which there are no types


class Database:
    """A pool of connections to one database, whose objects are in one schema."""

    def __init__(
        self,
        settings: DatabaseSettings,
        *,
        for_flow: bool = False,
        server_settings: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare; `open` connects. `for_flow`: see FLOW_OPTIONS; others are Postgres's own."""
        self._settings = settings
        self._server_settings = FLOW_OPTIONS if for_flow else server_settings or {}
        self._statements = statements(settings.schema_name)
        self._pool: Any = None
        self._bound: Any = None  # the one connection of a transaction
        self.is_pooled = False  # known when it is open
        self.actor = "python"  # who asks; kept with what is changed by hand
        self.took: dict[str, Summary] = {}  # by statement, whether it failed or not

    def acting(self, actor: str) -> Self:
        """Give this database, over the same connections, for somebody else who asks."""
        theirs = copy.copy(self)
        theirs.actor = actor
        return theirs

    @asynccontextmanager
    async def transaction(self, *, planned_as_flow: bool = False) -> AsyncIterator[Self]:
        """Give this database for statements that take effect together, or not at all.

        Those that walk the hot tables want to be `planned_as_flow`: see FLOW_OPTIONS.

        Raises:
            DatabaseUnavailable: the end of it may have been carried out, or not.
        """
        async with (
            sorted_errors(),
            self._connection() as connection,
            self._transaction(connection),
        ):
            bound = copy.copy(self)
            bound._bound = connection  # noqa: SLF001  of our own kind
            if planned_as_flow:
                await bound.value("set_options", PLANNING)
            yield bound

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """Give a connection: that of the transaction, or one of the pool."""
        if self._bound is not None:
            yield self._bound
            return
        seconds = self._settings.command_timeout_seconds
        async with self._pool.acquire(timeout=seconds) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, connection: Any) -> AsyncIterator[None]:
        """Begin a transaction; behind a pooler, with the settings of a connection of ours."""
        async with connection.transaction():
            if self.is_pooled and self._bound is None:
                await connection.execute(set_local(self._server_settings))
            yield

    async def open(self) -> Self:
        """Connect.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, or does not let us in.
        """
        settings = self._settings
        async with connecting():
            self.is_pooled = await is_pooled(settings)
            self._pool = asyncpg.create_pool(
                settings.dsn,
                min_size=1,
                max_size=settings.connections_max,
                connection_class=Connection,
                **connect_options(settings, self._server_settings, is_pooled=self.is_pooled),
            )
            try:
                await self._pool
            except BaseException:
                self._pool.terminate()
                raise
        return self

    async def close(self) -> None:
        """End every connection, those in use too after a moment."""
        if self._pool is None:
            return
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._pool.close()
        except (TimeoutError, *PASSING, asyncpg.InterfaceError):
            self._pool.terminate()

    @property
    def connections(self) -> dict[str, int]:
        """Count connections by what they are: `busy` or `idle`."""
        idle = self._pool.get_idle_size()
        return {"busy": self._pool.get_size() - idle, "idle": idle}

    def terminate(self) -> None:
        """Cut every connection at once, without waiting."""
        if self._pool is not None:
            self._pool.terminate()

    async def rows(self, statement: str, *values: Any) -> Sequence[Row]:
        """Run a statement by its name; give all its rows.

        One that fails since a row is there already is run once more in its `again` form, if it
        has one.

        Raises:
            DatabaseUnavailable: it may have been carried out, or not.
        """
        return await self.rows_of_each(statement, [values])

    async def rows_of_each(self, statement: str, each: Sequence[Sequence[Any]]) -> Sequence[Row]:
        """Run a statement once with each of these values, in one round trip; give all its rows.

        Together they are one transaction. Raises as `rows` does.
        """
        took = self.took.get(statement) or self.took.setdefault(statement, Summary())
        began = time.monotonic()
        try:
            return await self._fetch(self._statements[statement], each)
        except AlreadyThere:
            again = self._statements.get(again_of(statement))
            if again is None:
                raise
            return await self._fetch(again, each)
        finally:
            took.saw(time.monotonic() - began)

    async def rows_within(self, statement: str, *values: Any, milliseconds: int) -> Sequence[Row]:
        """Run a statement by its name that ends after so long, in a transaction of its own.

        Where Postgres does not break off what it is at, as some of its functions have it, the
        connection is cut a moment later.

        Raises:
            TookTooLong: it has been ended; it had no effect.
            DatabaseUnavailable: it may have been carried out, or not.
        """
        async with sorted_errors(), self._connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            try:
                if self.is_pooled:
                    await connection.execute(set_local(self._server_settings))
                await connection.fetch(self._statements["limit_statement"], milliseconds)
                found: Sequence[Row] = await connection.fetch(
                    self._statements[statement], *values, timeout=milliseconds / 1000 + CUT_SECONDS
                )
            except TimeoutError:
                connection.terminate()  # to roll back would wait for its end
                raise TookTooLong(f"{statement} has not ended within {milliseconds} ms") from None
            except BaseException:
                await transaction.rollback()
                raise
            await transaction.commit()
            return found

    async def _fetch(self, sql: str, each: Sequence[Sequence[Any]]) -> Sequence[Row]:
        async with sorted_errors(), self._connection() as connection:
            if self.is_pooled and self._bound is None:
                async with self._transaction(connection):
                    return await _fetch_each(connection, sql, each)
            return await _fetch_each(connection, sql, each)

    async def value(self, statement: str, *values: Any) -> Any:
        """Run a statement by its name; give the first column of its first row, or None."""
        found = await self.rows(statement, *values)
        return found[0][0] if found else None

    async def server_places(self) -> list[tuple[str, int]]:
        """Say where Postgres is that we speak to: its numeric addresses, each with its port.

        One that is reached by a socket file is taken to listen at this machine's loopback too. And
        behind a pooler, Postgres says itself where it is; one that the pooler reaches by a socket
        file is where the pooler is.
        """
        (own,) = await self.rows("server_place")
        async with sorted_errors():
            async with self._connection() as connection:
                address = connection.address
            if isinstance(address, str):  # it ends in .s.PGSQL.5432
                address = "127.0.0.1", int(address.rpartition(".")[2])
            host, port = address
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        places = {(str(place[0]), port) for *_, place in found}
        behind = {own["host"]} if own["host"] else {host for host, _ in places}
        return sorted(places | {(host, own["port"]) for host in behind})

    async def execute_alone(self, sql: str) -> None:
        """Run DDL that is made up at run time and may stand in no transaction."""
        async with sorted_errors(), self._connection() as connection:
            await connection.execute(in_schema(sql, self._settings.schema_name))

    async def look_for_pooler(self) -> Pooler:
        """Tell whether a pooler is in between, and whether notifications come all the same."""
        setting = "database.listen_dsn" if self._settings.listen_dsn else "database.dsn"
        async with connecting(setting):
            return await look_for_pooler(self._settings)

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


async def _fetch_each(connection: Any, sql: str, each: Sequence[Sequence[Any]]) -> Sequence[Row]:
    found: Sequence[Row]
    if len(each) == 1:
        found = await connection.fetch(sql, *each[0])
    else:
        found = await connection.fetchmany(sql, each)
    return found
