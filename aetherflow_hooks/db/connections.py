"""Connections: how each is made, and the driver's errors sorted.

What goes away by itself (a lost connection, a restart, a statement that took too long) becomes
DatabaseUnavailable; everything else passes through, for it is a defect of ours.
"""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import asyncpg
import orjson

from aetherflow_hooks.config import DatabaseSettings
from aetherflow_hooks.db.pooler import is_pooled
from aetherflow_hooks.errors import (
    AlreadyThere,
    ConfigInvalid,
    DatabaseUnavailable,
    DatabaseUnfit,
    InputRefused,
    TookTooLong,
)

APPLICATION_NAME = "aetherflow-hooks"

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

PLANNING = orjson.dumps(
    {name: value for name, value in FLOW_OPTIONS.items() if name != "synchronous_commit"}
).decode()

PASSING = (
    OSError,  # refused, reset, no such host; TimeoutError is one too
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # an idle connection that was just told of its end
    asyncpg.OperatorInterventionError,  # shutdown, restart, a cancelled statement
    asyncpg.InsufficientResourcesError,  # too many connections, disk full
    asyncpg.TransactionRollbackError,  # deadlock, serialization
    asyncpg.LockNotAvailableError,
    asyncpg.ReadOnlySQLTransactionError,  # a standby that is being promoted
)
FIRST_OF_USERS = 16_384  # objects below this are Postgres' own, and the same in every database
_KNOWN_TYPES: dict[frozenset[int], Any] = {}


class Connection(asyncpg.Connection):  # type: ignore[misc]  # the driver has no types
    """A connection that needs no cleaning between uses: no statement of ours leaves a trace."""

    def get_reset_query(self) -> str:
        """Give none."""
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


# Of a pooler's client nothing is taken at the start but what all poolers keep track of.
_KEPT_BY_POOLERS = {"application_name": APPLICATION_NAME, "timezone": "UTC"}
_OF_ALL = {"jit": "off"}  # compiling costs more than these short statements


def set_local(server_settings: Mapping[str, str]) -> str:
    """Write the settings of a connection, for a transaction of its own."""
    wanted = (_OF_ALL | dict(server_settings)).items()
    return ";".join(f"set local {name} = '{value}'" for name, value in wanted)


def connect_options(
    settings: DatabaseSettings,
    server_settings: Mapping[str, str] | None = None,
    *,
    is_pooled: bool = False,
) -> dict[str, Any]:
    """Say how every connection of ours is made."""
    common = {
        "timeout": settings.connect_timeout_seconds,
        "command_timeout": settings.command_timeout_seconds,
    }
    if is_pooled:
        return common | {"server_settings": _KEPT_BY_POOLERS, "statement_cache_size": 0}
    return common | {
        # Our statements are few and always the same. To plan them anew now and then would make an
        # event wait that comes after a quiet time.
        "max_cached_statement_lifetime": 0,
        "server_settings": {**_KEPT_BY_POOLERS, **_OF_ALL, **(server_settings or {})},
    }


@asynccontextmanager
async def connecting(setting: str = "database.dsn") -> AsyncIterator[None]:
    """Sort the errors of making a connection, where the DSN itself may be what is wrong."""
    async with sorted_errors():
        try:
            yield
        except ValueError as error:
            raise ConfigInvalid("settings", [f"{setting} cannot be used: {error}"]) from error


async def connect(settings: DatabaseSettings, **options: Any) -> Any:
    """Make one connection outside the pool, closed by whoever asked for it.

    Behind a pooler it has neither settings nor prepared statements, and each statement with values
    wants a transaction.

    Raises:
        ConfigInvalid: the DSN is none.
        DatabaseUnavailable: Postgres cannot be reached, or does not let us in.
    """
    async with connecting():
        chosen = connect_options(settings, is_pooled=await is_pooled(settings))
        return await asyncpg.connect(settings.dsn, **chosen | options)


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
    except PASSING as error:
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
