"""Webhook: what a verified request says."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from aetherflow_hooks.errors import NotAWebhook
from aetherflow_hooks.receive.signatures import TOLERANCE_SECONDS, lower_names, verify

_DELIVERY = re.compile(r"[A-Za-z0-9_-]{1,128}", re.ASCII)
_ATTEMPT = re.compile(r"[0-9]{1,9}", re.ASCII)

Data = TypeVar("Data")


@dataclass(frozen=True, slots=True)
class Webhook(Generic[Data]):
    """An event as it was delivered.

    For the types of the catalogue, `data` is of a type of its own: see `catalogue`.
    """

    id: str  # of the event: the same for every delivery and attempt
    type: str
    timestamp: datetime  # when it was emitted, UTC
    data: Data
    body: bytes = field(repr=False)
    # Not signed, unlike all the others: good for a log, and for no decision.
    delivery: str = ""
    attempt: int = 1


AnyWebhook: TypeAlias = Webhook[dict[str, Any]]


def read(
    body: bytes,
    headers: Mapping[str, str],
    secret: str | Sequence[str],
    *,
    tolerance_seconds: float = TOLERANCE_SECONDS,
    now_unix_seconds: float | None = None,
) -> AnyWebhook:
    """Verify a request as `verify` does, and read it.

    Raises:
        BadSignature: it was not signed with the secret, or not now.
        NotAWebhook: it was, and its body is none that we make.
    """
    event_id = verify(
        body,
        headers,
        secret,
        tolerance_seconds=tolerance_seconds,
        now_unix_seconds=now_unix_seconds,
    )
    given = lower_names(headers)
    delivery = given.get("x-aetherflow-delivery", "")
    attempt = given.get("x-aetherflow-attempt", "")
    return parse(
        body,
        event_id,
        delivery=delivery if _DELIVERY.fullmatch(delivery) else "",
        attempt=int(attempt) if _ATTEMPT.fullmatch(attempt) else 1,
    )


def parse(body: bytes, event_id: str, *, delivery: str = "", attempt: int = 1) -> AnyWebhook:
    """Read a body that was verified before.

    Raises:
        NotAWebhook: it is not JSON, or has not what a webhook has.
    """
    try:
        told = json.loads(bytes(body).decode())
        timestamp = datetime.fromisoformat(told["timestamp"])
        kind, data, named = told["event"], told["data"], told["id"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotAWebhook(f"the body cannot be read: {type(error).__name__}") from error
    if named != event_id:
        raise NotAWebhook("the body is of another event than webhook-id")
    if not isinstance(kind, str) or not isinstance(data, dict):
        raise NotAWebhook("the body has no type of event, or no data")
    return Webhook(event_id, kind, timestamp, data, bytes(body), delivery, attempt)
