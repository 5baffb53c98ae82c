"""Sources: where events are read, through the API with a token, or in the database."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import aiohttp
import orjson

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable, InputRefused, NotFound
from aetherflow_hooks.manage.events import list_events, show_event
from aetherflow_hooks.manage.pages import ROWS_MAX
from aetherflow_hooks.rules.topics import is_type

PREFIX = "/api/v1"
TIMEOUT_SECONDS = 15.0
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # an event's data is 16 MiB at the very most

_EVENT_ID = re.compile(r"evt_[0-9a-f]{24}", re.ASCII)


class EventRow(NamedTuple):
    """An event as a list tells it."""

    id: str
    type: str
    tenant: str
    emitted_at: datetime


class Listed(NamedTuple):
    """Some events, the newest first."""

    events: list[EventRow]
    before: str | None  # there may be more behind it
    as_of: datetime  # when, by the clock of Postgres, which the events' own times are of


class AwayError(Exception):
    """Nothing can be read now; trying again later can help."""


class Source(Protocol):
    """Where events are read. Each method may raise AwayError."""

    async def listed(self, *, before: str | None, since: datetime | None) -> Listed:
        """List events that were emitted from `since` on, behind `before`, the newest first."""

    async def data(self, event_id: str) -> str | None:
        """Give the data of an event, a JSON text; None: it is there no more."""


class FromDatabase:
    """Reads in the database."""

    def __init__(self, database: Database, *, tenant: str | None, channel: str | None) -> None:
        """Read what is of a tenant, or on a channel; None: of all."""
        self._database = database
        self._tenant = tenant
        self._channel = channel

    async def listed(self, *, before: str | None, since: datetime | None) -> Listed:
        """See `Source`."""
        try:
            as_of = await self._database.value("clock")
            page = await list_events(
                self._database,
                before=before,
                since=since,
                tenant=self._tenant,
                channel=self._channel,
                rows_max=ROWS_MAX,
            )
        except DatabaseUnavailable as error:
            raise AwayError(str(error)) from None
        events = [
            EventRow(row["id"], row["type"], row["tenant"], row["emitted_at"]) for row in page.rows
        ]
        return Listed(events, page.before, as_of)

    async def data(self, event_id: str) -> str | None:
        """See `Source`."""
        try:
            shown = await show_event(self._database, event_id)
        except DatabaseUnavailable as error:
            raise AwayError(str(error)) from None
        except NotFound:
            return None
        data: str | None = shown["data"]
        return data


class FromApi:
    """Reads through the API; use it as `async with`."""

    def __init__(self, url: str, token: str, *, tenant: str | None, channel: str | None) -> None:
        """Ask the server at `url`, of which `/api/v1` is told by itself.

        Raises:
            InputRefused: the token holds what no header can.
        """
        if not token.isascii() or not token.isprintable():
            raise InputRefused("the token is not one: `aetherflow-hooks token add` makes them")
        self._base = url.rstrip("/").removesuffix(PREFIX) + PREFIX
        self._token = token
        self._of = {
            name: value
            for name, value in (("tenant", tenant), ("channel", channel))
            if value is not None
        }

    async def listed(self, *, before: str | None, since: datetime | None) -> Listed:
        """See `Source`."""
        query = {"limit": str(ROWS_MAX), **self._of}
        if before is not None:
            query["before"] = before
        if since is not None:
            query["since"] = since.astimezone(UTC).isoformat()
        told = await self._get("/events", query)
        try:
            return Listed(
                [_row(row) for row in told["items"]],
                None if told["before"] is None else _id(told["before"]),
                datetime.fromisoformat(told["as_of"]),
            )
        except (KeyError, TypeError, ValueError):
            raise self._no_api("its list of events cannot be read") from None

    async def data(self, event_id: str) -> str | None:
        """See `Source`."""
        try:
            told = await self._get(f"/events/{event_id}", {})
        except NotFound:
            return None
        data = told.get("data")
        if data is not None and not isinstance(data, str):
            raise self._no_api("the data of an event is no text")
        return data

    async def _get(self, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """Give what is answered.

        Raises:
            AwayError: nobody answers, or somebody who cannot now.
            NotFound: it is not there.
            InputRefused: the token does not open it, or it is no API of ours.
        """
        try:
            async with self._session.get(
                self._base + path, params=query, allow_redirects=False
            ) as answer:
                text = bytearray()
                async for part in answer.content.iter_any():
                    text += part
                    if len(text) > ANSWER_BYTES_MAX:
                        raise self._no_api("its answer is too large")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AwayError(str(error) or type(error).__name__) from None
        return self._read(answer, text, path)

    def _read(
        self, answer: aiohttp.ClientResponse, text: bytes | bytearray, path: str
    ) -> dict[str, Any]:
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or (
            answer.status == HTTPStatus.TOO_MANY_REQUESTS
        ):
            raise AwayError(f"it answered {answer.status}")
        try:
            told = orjson.loads(text)
        except ValueError:
            told = None
        is_ours = answer.content_type in ("application/json", "application/problem+json")
        if not is_ours or not isinstance(told, dict):
            raise self._no_api(f"it answered {answer.status}")
        if answer.status == HTTPStatus.NOT_FOUND and path != "/events":
            raise NotFound("event", path)
        if answer.status != HTTPStatus.OK:
            raise InputRefused(f"the API answered {answer.status}: {told.get('detail', '')}")
        return told

    def _no_api(self, why: str) -> InputRefused:
        return InputRefused(f"{self._base} is not the API of AetherFlow Hooks: {why}")

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Authorization": f"Bearer {self._token}"},
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_SECONDS),
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()


def _row(told: Any) -> EventRow:
    """Read an event of a list: id and type go into headers, and the id into a URL."""
    if not is_type(told["type"]) or not isinstance(told["tenant"], str):
        raise ValueError("no event")
    emitted_at = datetime.fromisoformat(told["emitted_at"])
    return EventRow(_id(told["id"]), told["type"], told["tenant"], emitted_at.astimezone(UTC))


def _id(told: Any) -> str:
    if not isinstance(told, str) or not _EVENT_ID.fullmatch(told):
        raise ValueError("no event's id")
    return told
