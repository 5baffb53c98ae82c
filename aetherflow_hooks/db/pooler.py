"""Pooler: whether something between us and Postgres lends a server's connection by the transaction.

PgBouncer and its like do. Behind one, nothing holds from one transaction to the next: no prepared
statement, no setting, no lock and no LISTEN. So every statement is then one transaction, with its
settings inside, and who listens goes to Postgres itself.
"""

import asyncio
from typing import Any, NamedTuple

import asyncpg

from aetherflow_hooks.config import DatabaseSettings

HEARD_SECONDS = 2.0  # a notification that has not come by then does not
_CHANNEL = "aetherflow_pooler"


class Pooler(NamedTuple):
    """What was found."""

    is_there: bool
    tells: bool  # notifications reach who listens


async def is_pooled(settings: DatabaseSettings) -> bool:
    """Tell whether a pooler is in between: it has another number for us than Postgres has."""
    connection = await _connect(settings.dsn, settings)
    try:
        return await _is_lent(connection)
    finally:
        await connection.close(timeout=settings.connect_timeout_seconds)


async def look_for_pooler(settings: DatabaseSettings) -> Pooler:
    """Try out what goes through; it takes a moment where no notification comes."""
    listening = await _connect(settings.listen_dsn or settings.dsn, settings)
    try:
        telling = await _connect(settings.dsn, settings)
        try:
            return Pooler(await _is_lent(telling), await _hears(listening, telling))
        finally:
            await telling.close(timeout=settings.connect_timeout_seconds)
    finally:
        await listening.close(timeout=settings.connect_timeout_seconds)


async def _connect(dsn: str, settings: DatabaseSettings) -> Any:
    """Connect as every pooler takes it."""
    return await asyncpg.connect(
        dsn,
        timeout=settings.connect_timeout_seconds,
        command_timeout=settings.command_timeout_seconds,
        statement_cache_size=0,
    )


async def _is_lent(connection: Any) -> bool:
    async with connection.transaction():
        pid: int = await connection.fetchval("select pg_backend_pid()")
    of_protocol: int = connection.get_server_pid()
    return pid != of_protocol


async def _hears(listening: Any, telling: Any) -> bool:
    """Tell whether a notification of one connection reaches another one, which is not lent."""
    if await _is_lent(listening):
        return False
    heard = asyncio.Event()
    await listening.add_listener(_CHANNEL, lambda *_: heard.set())
    await telling.execute(f"notify {_CHANNEL}")
    try:
        async with asyncio.timeout(HEARD_SECONDS):
            await heard.wait()
    except TimeoutError:
        return False
    return True
