"""Deliveries: look at them."""

import re
from typing import Any

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import NotFound
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.rules.states import State

_ID = {"endpoint": re.compile("ep_[0-9a-f]{12}"), "event": re.compile("evt_[0-9a-f]{24}")}
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
    """List deliveries of any state, those of the newest events first.

    Raises:
        NotFound: an id is not of the form that ids have.
    """
    for kind, text in (("endpoint", endpoint_id), ("event", event_id)):
        if text is not None and not _ID[kind].fullmatch(text):
            raise NotFound(kind, text)
    rows = await database.rows(
        "list_deliveries", state, endpoint_id, event_id, min(rows_max, ROWS_MAX)
    )
    return [{"id": delivery_id(row["event_id"], row["endpoint_id"]), **dict(row)} for row in rows]
