"""Events: emit one from outside an application's own transaction."""

from datetime import datetime

from aetherflow_hooks.db import Database


async def emit_event(
    database: Database,
    event_type: str,
    data: str,
    *,
    tenant: str = "",
    idempotency_key: str | None = None,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    ordering_key: str | None = None,
) -> str:
    """Emit an event in a transaction of its own; give its id.

    Raises:
        InputRefused: type, data or an option breaks a rule; the message says which.
    """
    event_id: str = await database.value(
        "emit", event_type, data, tenant, idempotency_key, deliver_at, expires_at, ordering_key
    )
    return event_id
