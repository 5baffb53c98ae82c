"""Database: statements by name, over a pool of connections, with the driver's errors sorted.

What goes away by itself (a lost connection, a restart, a statement that took too long) becomes
DatabaseUnavailable; everything else passes through, for it is a defect of ours.
"""

import asyncio
import copy
import socket
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, Self

import asyncpg
import orjson

from aetherflow_hooks.config import DatabaseSettings
from aetherflow_hooks.db.statements import again_of, in_schema, statements
from aetherflow_hooks.errors import (
    AlreadyThere,
    ConfigInvalid,
    DatabaseUnavailable,
    DatabaseUnfit,
    InputRefused,
    TookTooLong,
)
from aetherflow_hooks.rules.measures import Summary

APPLICATION_NAME = "aetherflow-hooks"
CLOSE_SECONDS = 5.0  # for connections to say goodbye; then they are cut

# An engine's commit need not wait for the disk: what a crash of Postgres takes back of it is work
# that is done once more, and only the application's own commit has to last.
#
# Every statement of the flow walks an index to a few rows. The hot tables are empty one moment and
# hold millions of rows the next, so what Postgres remembers of their size is often wrong, and a
# plan made for an empty table would read all of a full one. So there is one plan for all values,
# and the ways that suit small tables are closed; a test looks at the plans of empty and full ones.
# Where a table seems to be empty all ways cost next to nothing, and an index of a level less than
# the right one would be walked, and what it finds sorted: so a sort is never worth it, and the
# order that a statement asks for says which index is meant. A plan for all values looks dear, and
# compiling it would take five times as long as running it.
FLOW_OPTIONS = {
    "synchronous_commit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_material": "off",
    "enable_sort": "off",
    "jit": "off",
}

_PLANNING = orjson.dumps(
    {name: value for name, value in FLOW_OPTIONS.items() if name != "synchronous_commit"}
).decode()

Row = Any  # asyncpg.Record, for which there are no types

_PASSING = (
    OSError,  # refused, reset, no such host; TimeoutError is one too
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # an idle connection that was just told of its end
    asyncpg.OperatorInterventionError,  # shutdown, restart, a cancelled statement
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is being promoted
)


CUT_SECONDS = 0.5
FIRST_OF_USERS = 16_384  # objects below this are Postgres' own, and the same in every database
_KNOWN_TYPES: dict[frozenset[int], Any] = {}


class _Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that needs no cleaning between uses: no statement of ours leaves a trace."""

    def get_reset_query(self) -> str:
        return ""

    async def _introspect_types(self, typeoids: Iterable[int], *rest: Any) -> Any:
        """Learn what types are made of; those that Postgres brings, once for all connections.

        The driver asks the catalogue anew for each connection, and that takes longer than any
        statement of ours.
        """
        asked = frozenset(typeoids)
        known = _KNOWN_TYPES.get(asked)
        if known is None:
            rows, statement = await super()._introspect_types(asked, *rest)
            known = rows, SimpleNamespace(name=statement.name)
            if max(asked) < FIRST_OF_USERS:
                _KNOWN_TYPES[asked] = known
        return known

    @property
    def address(self) -> Any:
        """What was connected to: a host and port, or the path of a socket."""
        return self._addr


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
        async with sorted_errors(), self._connection() as connection, connection.transaction():
            bound = copy.copy(self)
            bound._bound = connection  # noqa: SLF001  of our own kind
            if planned_as_flow:
                await bound.value("set_options", _PLANNING)
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

    async def open(self) -> Self:
        """Connect.

        Raises:
            DatabaseUnavailable: Postgres cannot be reached, or does not let us in.
        """
        settings = self._settings
        self._pool = asyncpg.create_pool(
            settings.dsn,
            min_size=1,
            max_size=settings.connections_max,
            connection_class=_Connection,
            **connect_options(settings, self._server_settings),
        )
        try:
            async with connecting():
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
        except (TimeoutError, *_PASSING, asyncpg.InterfaceError):
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
        took = self.took.get(statement) or self.took.setdefault(statement, Summary())
        began = time.monotonic()
        try:
            return await self._fetch(self._statements[statement], values)
        except AlreadyThere:
            again = self._statements.get(again_of(statement))
            if again is None:
                raise
            return await self._fetch(again, values)
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

    async def _fetch(self, sql: str, values: Sequence[Any]) -> Sequence[Row]:
        async with sorted_errors(), self._connection() as connection:
            found: Sequence[Row] = await connection.fetch(sql, *values)
            return found

    async def value(self, statement: str, *values: Any) -> Any:
        """Run a statement by its name; give the first column of its first row, or None."""
        found = await self.rows(statement, *values)
        return found[0][0] if found else None

    async def server_places(self) -> list[tuple[str, int]]:
        """Say where Postgres is that we speak to: its numeric addresses, each with its port.

        One that is reached by a socket file is taken to listen at this machine's loopback too.
        """
        async with sorted_errors():
            async with self._connection() as connection:
                address = connection.address
            if isinstance(address, str):  # it ends in .s.PGSQL.5432
                return [("127.0.0.1", int(address.rpartition(".")[2]))]
            host, port = address
            found = await asyncio.get_running_loop().getaddrinfo(
                host, port, type=socket.SOCK_STREAM
            )
        return [(str(place[0]), port) for *_, place in found]

    async def execute_alone(self, sql: str) -> None:
        """Run DDL that is made up at run time and may stand in no transaction."""
        async with sorted_errors(), self._connection() as connection:
            await connection.execute(in_schema(sql, self._settings.schema_name))

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def connect_options(
    settings: DatabaseSettings, server_settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Say how every connection of ours is made."""
    return {
        "timeout": settings.connect_timeout_seconds,
        "command_timeout": settings.command_timeout_seconds,
        # Our statements are few and always the same. To plan them anew now and then would make an
        # event wait that comes after a quiet time.
        "max_cached_statement_lifetime": 0,
        "server_settings": {
            "application_name": APPLICATION_NAME,
            "jit": "off",  # compiling costs more than these short statements
            "timezone": "UTC",
            **(server_settings or {}),
        },
    }


@asynccontextmanager
async def connecting() -> AsyncIterator[None]:
    """Sort the errors of making a connection, where the DSN itself may be what is wrong."""
    async with sorted_errors():
        try:
            yield
        except ValueError as error:
            raise ConfigInvalid("settings", [f"database.dsn cannot be used: {error}"]) from error


async def connect(settings: DatabaseSettings, **options: Any) -> Any:
    """Make one connection outside the pool, closed by whoever asked for it.

    Raises:
        ConfigInvalid: the DSN is none.
        DatabaseUnavailable: Postgres cannot be reached, or does not let us in.
    """
    async with connecting():
        return await asyncpg.connect(settings.dsn, **connect_options(settings) | options)


@asynccontextmanager
async def sorted_errors() -> AsyncIterator[None]:  # noqa: C901  a branch for each kind
    """Turn errors of the driver that time can heal into DatabaseUnavailable.

    What `emit` refuses becomes InputRefused, with the function's own words.
    """
    try:
        yield
    except asyncpg.InterfaceError as error:
        # The driver tells a closed connection and a value of the wrong type by one class; the
        # latter is a ValueError besides.
        if isinstance(error, ValueError):
            raise
        raise DatabaseUnavailable(str(error)) from error
    except TimeoutError as error:
        raise DatabaseUnavailable("Postgres did not answer in time") from error
    except OSError as error:
        raise DatabaseUnavailable(f"Postgres cannot be reached: {error}") from error
    except (
        asyncpg.InvalidParameterValueError,
        asyncpg.ProgramLimitExceededError,
        asyncpg.ConfigurationLimitExceededError,
    ) as error:
        raise InputRefused(error.message or str(error)) from error
    except asyncpg.QueryCanceledError as error:
        raise TookTooLong(str(error)) from error
    except _PASSING as error:
        raise DatabaseUnavailable(str(error) or type(error).__name__) from error
    except asyncpg.UniqueViolationError as error:
        raise AlreadyThere(str(error)) from error
    except asyncpg.DataError as error:
        raise InputRefused(f"Postgres cannot take a value: {error}") from error
    except asyncpg.InsufficientPrivilegeError as error:
        raise DatabaseUnfit(f"the role of the DSN lacks a right: {error}") from error
    except (
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
    ) as error:
        raise DatabaseUnavailable(f"Postgres does not let us in: {error}") from error
