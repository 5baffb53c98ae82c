"""Status: per endpoint, what waits now and how the last hour went."""

from typing import Any

from aetherflow_hooks.db import Database


async def endpoint_status(database: Database, *, tenant: str | None = None) -> list[dict[str, Any]]:
    """Give a row per endpoint.

    Keys: id, tenant, url, state, waiting, in_flight, oldest_seconds (of what waits; None: nothing
    does), and of the last hour attempts, success_rate (0 to 1), p50_ms, p95_ms (None: no attempt).
    """
    return [dict(row) for row in await database.rows("endpoint_status", tenant)]
