"""Emit: an event into the outbox, inside the caller's transaction.

Takes    a type and data, from the application.
Hands on a row of `events` and one of `outbox`, visible when the caller commits.
Holds    rolled back, it never happened; committed, it is never lost.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import orjson

from aetherflow_hooks.db.statements import SCHEMA, statements
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.schemas import check_data
from aetherflow_hooks.rules.words import channels_of_event


class Connection(Protocol):
    """An asyncpg connection or pool."""

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run a query; give the first column of its first row."""


async def emit(
    connection: Connection,
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

    A mapping is written as JSON; text and bytes are taken as JSON already and are sent byte for
    byte. With an `idempotency_key` that this tenant has used before, the first event's id comes
    back and nothing new is sent. `deliver_at` and `expires_at` need a time zone. Endpoints with an
    order get the events of one `ordering_key` one after the other. Endpoints with channels get it
    only if one of its `channels`, at most 10, is theirs. With `validate` the data has to fit the
    JSON Schema that the type is registered with, which is asked for each time; one that is
    registered without takes anything. `schema` is the setting `database.schema_name`, where that is
    not the default.

    Raises:
        InputRefused: `data` cannot be written as JSON, a time has no zone, or a channel is none;
            with `validate`, the data does not fit, and the message says where, or the type is not
            registered. The caller's transaction can go on.
        asyncpg.PostgresError: Postgres refuses the event and says why; the caller's transaction
            can go on only from a savepoint.
    """
    for name, moment in (("deliver_at", deliver_at), ("expires_at", expires_at)):
        if moment is not None and moment.tzinfo is None:
            raise InputRefused(f"{name} = {moment} has no time zone")
    text = _text(data)
    on_channels = channels_of_event(channels)
    if validate:
        found = await connection.fetchval(statements(schema)["schema_of"], type)
        check_data(type, found, text)
    event_id: str = await connection.fetchval(
        statements(schema)["emit"],
        type,
        text,
        tenant,
        idempotency_key,
        deliver_at,
        expires_at,
        ordering_key,
        on_channels,
    )
    return event_id


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
