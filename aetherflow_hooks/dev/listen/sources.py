"""Sources: where events are read, through the API with a token, or in the database."""

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self

import aiohttp
import orjson

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import DatabaseUnavailable, InputRefused, NotFound
from aetherflow_hooks.manage.events import list_events, show_event
from aetherflow_hooks.manage.pages import ROWS_MAX

PREFIX = "/api/v1"
TIMEOUT_SECONDS = 15.0


class Emitted(NamedTuple):
    """An event as a list tells it."""

    id: str
    type: str
    tenant: str
    emitted_at: datetime


class Listed(NamedTuple):
    """Some events, the newest first."""

    events: list[Emitted]
    before: str | None  # there may be more behind it
    as_of: datetime  # about when, by the clock over there


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
            Emitted(row["id"], row["type"], row["tenant"], row["emitted_at"]) for row in page.rows
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
        told, answered_at = await self._get("/events", query)
        events = [
            Emitted(
                row["id"], row["type"], row["tenant"], datetime.fromisoformat(row["emitted_at"])
            )
            for row in told["items"]
        ]
        return Listed(events, told["before"], answered_at)

    async def data(self, event_id: str) -> str | None:
        """See `Source`."""
        try:
            told, _ = await self._get(f"/events/{event_id}", {})
        except NotFound:
            return None
        data: str | None = told["data"]
        return data

    async def _get(self, path: str, query: Mapping[str, str]) -> tuple[Any, datetime]:
        """Give what is answered, and when.

        Raises:
            AwayError: nobody answers, or somebody who cannot now.
            NotFound: it is not there.
            InputRefused: the token does not open it, or it is no API of ours.
        """
        try:
            async with self._session.get(
                self._base + path, params=query, allow_redirects=False
            ) as answer:
                text = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise AwayError(str(error) or type(error).__name__) from None
        return self._read(answer, text, path)

    def _read(self, answer: aiohttp.ClientResponse, text: bytes, path: str) -> tuple[Any, datetime]:
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR or (
            answer.status == HTTPStatus.TOO_MANY_REQUESTS
        ):
            raise AwayError(f"it answered {answer.status}")
        try:
            told = orjson.loads(text)
            answered_at = parsedate_to_datetime(answer.headers["Date"])
        except (ValueError, KeyError):
            told = None
        is_ours = answer.content_type in ("application/json", "application/problem+json")
        if not is_ours or not isinstance(told, dict):
            raise InputRefused(
                f"{self._base} is not the API of AetherFlow Hooks: it answered {answer.status}"
            )
        if answer.status == HTTPStatus.NOT_FOUND and path != "/events":
            raise NotFound("event", path)
        if answer.status != HTTPStatus.OK:
            raise InputRefused(f"the API answered {answer.status}: {told.get('detail', '')}")
        return told, answered_at

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
