"""Deliveries: look at them."""

from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.states import State

ROWS_DEFAULT = 50
ROWS_MAX = 1_000


async def list_deliveries(
    database: Database,
    *,
    state: State | None = None,
    endpoint_id: str | None = None,
    event_id: str | None = None,
    rows_max: int = ROWS_DEFAULT,
) -> list[dict[str, Any]]:
    """List deliveries of any state, those of the newest events first."""
    rows = await database.rows(
        "list_deliveries", state, endpoint_id, event_id, min(rows_max, ROWS_MAX)
    )
    return [{"id": delivery_id(row["event_id"], row["endpoint_id"]), **dict(row)} for row in rows]
