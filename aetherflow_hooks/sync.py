"""Sync: emitting from code that awaits nothing, as part of its own transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aetherflow_hooks.db.statements import SCHEMA, statements
from aetherflow_hooks.drivers import fetch_sync
from aetherflow_hooks.flow.emit import NewEvent, columns_of, values_of
from aetherflow_hooks.rules.schemas import check_data
from aetherflow_hooks.watch.traces import current_traceparent

__all__ = ["NewEvent", "emit", "emit_many"]


def emit(
    connection: Any,
    type: str,  # noqa: A002  the word of the contract
    data: Mapping[str, Any] | str | bytes,
    *,
    tenant: str = "",
    idempotency_key: str | None = None,
    deliver_at: datetime | None = None,
    expires_at: datetime | None = None,
    ordering_key: str | None = None,
    channels: Sequence[str] = (),
    validate: bool = False,
    schema: str = SCHEMA,
) -> str:
    """Write an event as part of the transaction that `connection` is in; give its id, `evt_…`.

    `connection` is a psycopg Connection, a Connection or Session of SQLAlchemy, or
    `django.db.connection`. Everything else is as `aetherflow_hooks.emit` has it.

    Raises:
        InputRefused: as `aetherflow_hooks.emit` says.
        Exception: Postgres refuses the event, by the driver's own error.
    """
    event = NewEvent(
        type=type,
        data=data,
        tenant=tenant,
        idempotency_key=idempotency_key,
        deliver_at=deliver_at,
        expires_at=expires_at,
        ordering_key=ordering_key,
        channels=channels,
    )
    values = values_of(event)
    if validate:
        found = fetch_sync(connection, statements(schema)["schema_of"], type)
        check_data(type, found[0][0], values.data)
    rows = fetch_sync(connection, statements(schema)["emit"], *values, current_traceparent())
    event_id: str = rows[0][0]
    return event_id


def emit_many(connection: Any, events: Iterable[NewEvent], *, schema: str = SCHEMA) -> list[str]:
    """Write events in their order and by one statement, all or none; give their ids.

    Raises:
        InputRefused: as for `emit`; the message says which of them.
        Exception: Postgres refuses one, by the driver's own error.
    """
    columns = columns_of(events)
    rows = fetch_sync(connection, statements(schema)["emit_many"], *columns, current_traceparent())
    return [row[0] for row in rows]
