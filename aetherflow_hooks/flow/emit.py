"""Emit: an event into the outbox, inside the caller's transaction.

Takes    a type and data, from the application.
Hands on a row of `events` and one of `outbox`, visible when the caller commits.
Holds    rolled back, it never happened; committed, it is never lost.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from aetherflow_hooks.db.statements import SCHEMA, statements
from aetherflow_hooks.drivers import fetch
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.schemas import check_data
from aetherflow_hooks.rules.words import channels_of_event
from aetherflow_hooks.watch.traces import current_traceparent


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """An event that is to be emitted: what `emit` takes, for `emit_many`."""

    type: str
    data: Mapping[str, Any] | str | bytes
    tenant: str = ""
    idempotency_key: str | None = None
    deliver_at: datetime | None = None
    expires_at: datetime | None = None
    ordering_key: str | None = None
    channels: Sequence[str] = ()


async def emit(
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

    `connection` is an asyncpg connection or pool, a psycopg AsyncConnection, or an AsyncConnection
    or AsyncSession of SQLAlchemy; where nothing is awaited, `aetherflow_hooks.sync` has the same.

    A mapping is written as JSON; text and bytes are taken as JSON already and are sent byte for
    byte. With an `idempotency_key` that this tenant has used before, the first event's id comes
    back and nothing new is sent. `deliver_at` and `expires_at` need a time zone. Endpoints with an
    order get the events of one `ordering_key` one after the other. Endpoints with channels get it
    only if one of its `channels`, at most 10, is theirs. With `validate` the data has to fit the
    JSON Schema that the type is registered with, which is asked for each time; one that is
    registered without takes anything. `schema` is the setting `database.schema_name`, where that is
    not the default. Within a span of OpenTelemetry, the event's attempts become spans of its trace.

    Raises:
        InputRefused: `data` cannot be written as JSON, a time has no zone, or a channel is none;
            with `validate`, the data does not fit, and the message says where, or the type is not
            registered. The caller's transaction can go on. So it can where `connection` is none
            that is known here.
        Exception: Postgres refuses the event and says why, by the driver's own error (such as
            `asyncpg.PostgresError`); the caller's transaction can go on only from a savepoint.
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
        found = await fetch(connection, statements(schema)["schema_of"], type)
        check_data(type, found[0][0], values.data)
    rows = await fetch(connection, statements(schema)["emit"], *values, current_traceparent())
    event_id: str = rows[0][0]
    return event_id


async def emit_many(
    connection: Any, events: Iterable[NewEvent], *, schema: str = SCHEMA
) -> list[str]:
    """Write events as `emit` does, in their order and by one statement; give their ids.

    All of them or none: what is wrong with one is raised before any is written.

    Raises:
        InputRefused: as for `emit`; the message says which of them.
        Exception: Postgres refuses one, by the driver's own error.
    """
    columns = columns_of(events)
    rows = await fetch(connection, statements(schema)["emit_many"], *columns, current_traceparent())
    return [row[0] for row in rows]


class Values(NamedTuple):
    """What an event is to the statements `emit` and `emit_many`, in their order."""

    type: str
    data: str
    tenant: str
    idempotency_key: str | None
    deliver_at: datetime | None
    expires_at: datetime | None
    ordering_key: str | None
    channels: list[str] | None


def values_of(event: NewEvent) -> Values:
    """Check an event, and write its data.

    Raises:
        InputRefused: as for `emit`.
    """
    for name in ("deliver_at", "expires_at"):
        moment = getattr(event, name)
        if moment is not None and moment.tzinfo is None:
            raise InputRefused(f"{name} = {moment} has no time zone")
    return Values(
        event.type,
        _text(event.data),
        event.tenant,
        event.idempotency_key,
        event.deliver_at,
        event.expires_at,
        event.ordering_key,
        channels_of_event(event.channels),
    )


def columns_of(events: Iterable[NewEvent]) -> list[list[Any]]:
    """Check events, and give their values by column.

    Raises:
        InputRefused: as for `emit`; the message says which of them.
    """
    rows = []
    for place, event in enumerate(events):
        try:
            values = values_of(event)
        except InputRefused as refused:
            raise InputRefused(f"event {place}: {refused}") from refused
        # An array of arrays would need them all of one length.
        joined = None if values.channels is None else ",".join(values.channels)
        rows.append(values._replace(channels=joined))  # type: ignore[arg-type]
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in Values._fields]


def _text(data: Mapping[str, Any] | str | bytes) -> str:
    try:
        if isinstance(data, str):
            data.encode()  # half of a surrogate pair is no text
            return data
        if isinstance(data, bytes):
            return data.decode()
        try:
            text = orjson.dumps(data).decode()
        except TypeError:
            text = _plain_json(data)  # integers beyond 64 bits, where orjson stops
            text.encode()
            return text
        if "null" in text:
            _plain_json(data, default=str)  # orjson makes null of NaN, which nobody means
    except (TypeError, ValueError, RecursionError) as error:
        raise InputRefused(f"data cannot be written as JSON: {error}") from error
    return text


def _plain_json(data: Mapping[str, Any], default: Callable[[Any], str] | None = None) -> str:
    return json.dumps(
        data, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=default
    )
