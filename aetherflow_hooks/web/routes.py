"""Routes: each says what it takes and gives, in types; the API's document is made from them."""

import asyncio
import inspect
import io
import json
import re
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Self

from aiohttp import web
from pydantic import BaseModel, ConfigDict, ValidationError

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import HooksError, NotFound
from aetherflow_hooks.manage.polls import OnRecorded
from aetherflow_hooks.manage.tokens import Access, Scope
from aetherflow_hooks.manage.trial import TryOut
from aetherflow_hooks.watch.log import LogEvent, log
from aetherflow_hooks.web.guard import harden
from aetherflow_hooks.web.live import Live
from aetherflow_hooks.web.problems import Problem, mistaken
from aetherflow_hooks.web.repeats import HEADER, once
from aetherflow_hooks.web.waiting import Waiting

PREFIX = "/api/v1"
JSON = "application/json"
EVENT_STREAM = "text/event-stream"
LARGE_BYTES = 262_144
IDS = {
    "endpoint_id": r"ep_[0-9a-f]{12}",
    "event_id": r"evt_[0-9a-f]{24}",
    "delivery_id": r"dlv_[0-9a-f]{24}_[0-9a-f]{12}",
    "replay_id": r"rpl_[0-9a-f]{12}",
    "token_id": r"[0-9a-f]{12}",
    "link_id": r"[0-9a-f]{12}",
}

_PARAMETER = re.compile(r"\{(\w+)\}")


class Shape(BaseModel):
    """What stands in a request or an answer. Unknown names are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True)
class Lent:
    """What the engine and the server lend to routes."""

    try_out: TryOut
    live: Live
    waiting: Waiting
    on_recorded: OnRecorded  # counts attempts that are on record
    is_released: Callable[[], bool]  # unless the database was restored, and nobody accepted it
    counting: asyncio.Semaphore  # what takes long, one at a time


@dataclass(frozen=True, slots=True)
class Call:
    """A request that was let in."""

    access: Access
    database: Database  # which knows who asks
    settings: Settings
    lent: Lent
    still_in: Callable[[], Awaitable[bool]]  # whether the token opens what it did
    is_gone: Callable[[], bool]  # whether nobody waits for the answer any more
    raw: bytes = b""  # the body as it came
    traceparent: str = ""  # as whoever asks has told it

    def on(self, database: Database) -> Self:
        """Give the same call for another database: a transaction's."""
        return replace(self, database=database)

    def check(self, needed: Scope) -> None:
        """Make sure that whoever asks may do this.

        Raises:
            Problem: 403, their scope does not cover it.
        """
        if not self.access.scope.covers(needed):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                f"this token's scope is {self.access.scope}, and {needed} is needed",
            )

    def tenant(self, asked: str | None = None) -> str | None:
        """Give the tenant whose things are meant; None: everybody's.

        Raises:
            NotFound: another one is asked for than this token is for.
        """
        own = self.access.tenant
        if own is None:
            return asked
        if asked not in (None, own):
            raise NotFound("tenant", asked or "")
        return own

    def own(self, kind: str, name: str, found: dict[str, Any]) -> dict[str, Any]:
        """Give what was found by its name, if it is there for this token.

        Raises:
            NotFound: it is another tenant's.
        """
        if self.access.tenant not in (None, found["tenant"]):
            raise NotFound(kind, name)
        return found


Stream = AsyncGenerator[tuple[str, BaseModel] | None, None]
Handler = Callable[..., Awaitable[BaseModel | None] | Stream]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A method at a path: who may use it, what it takes, and what it gives."""

    method: str
    path: str
    scope: Scope
    status: HTTPStatus
    tag: str
    handler: Handler
    query: type[Shape] | None
    body: type[Shape] | None
    gives: type[BaseModel] | None
    is_stream: bool = False  # server-sent events, each of which it gives
    repeats: bool = False  # an idempotency key lets it take effect once
    conflicts: bool = False  # it may be refused as things stand: 409

    @property
    def name(self) -> str:
        """Name the operation."""
        return f"{self.tag}_{self.handler.__name__.strip('_')}".replace("-", "_")

    @property
    def parameters(self) -> list[str]:
        """Name the parts of the path that vary."""
        return _PARAMETER.findall(self.path)

    async def answer(self, request: web.Request, call: Call) -> web.StreamResponse:
        """Carry out a request.

        Raises:
            Problem: the query or the body cannot be used.
            HooksError: as the function that carries it out.
        """
        given: dict[str, Any] = {**checked_ids(request, self.parameters)}
        if self.query is not None:
            given["query"] = _query(self.query, request)
        elif request.query_string:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "there is nothing to ask for by a query")
        if self.body is not None:
            given["body"] = _body(self.body, request, call.raw)
        if self.is_stream:
            return await streamed(request, self.handler(call, **given))  # type: ignore[arg-type]
        key = request.headers.get(HEADER) if self.repeats else None
        if key is None:
            text = await self._told(call, given)
        else:
            text = await once(
                call.database,
                call.settings.keyring(),
                actor=call.access.actor,
                key=key,
                request=f"{self.method} {request.path}\n".encode() + call.raw,
                make=lambda bound: self._told(call.on(bound), given),
            )
        body = text.encode()
        return web.Response(
            status=self.status,
            # one that is large is written a piece at a time, so that others get their turn
            body=io.BytesIO(body) if len(body) > LARGE_BYTES else body,
            content_type=JSON if text else None,
        )

    async def _told(self, call: Call, given: dict[str, Any]) -> str:
        """Carry out the request; give the answer as it is sent."""
        answer: BaseModel | None = await self.handler(call, **given)  # type: ignore[misc]
        return "" if answer is None else answer.model_dump_json(by_alias=True)


def route(
    method: str,
    path: str,
    scope: Scope,
    *,
    status: HTTPStatus = HTTPStatus.OK,
    streams: type[BaseModel] | None = None,
    repeats: bool = False,
    conflicts: bool = False,
) -> Callable[[Handler], Route]:
    """Make a route of a function: `call`, the path's parts, and `query` and `body` as shapes.

    One that `streams` gives pairs of an event's name and such a shape, and None to show that it is
    there still. One that `repeats` takes an idempotency key.
    """

    def make(handler: Handler) -> Route:
        hints = typing.get_type_hints(handler)
        gives = streams or hints["return"]
        return Route(
            method=method,
            path=PREFIX + path,
            scope=scope,
            status=HTTPStatus.NO_CONTENT if gives is type(None) else status,
            tag=inspect.getmodule(handler).__name__.rpartition(".")[2],  # type: ignore[union-attr]
            handler=handler,
            query=hints.get("query"),
            body=hints.get("body"),
            gives=None if gives is type(None) else gives,
            is_stream=streams is not None,
            repeats=repeats,
            conflicts=conflicts,
        )

    return make


def checked_ids(request: web.Request, names: Iterable[str]) -> dict[str, str]:
    """Give the parts of a path that vary.

    Raises:
        NotFound: one is not of the form that ids of its kind have.
    """
    found = {name: request.match_info[name] for name in names}
    for name, text in found.items():
        if name in IDS and not re.fullmatch(IDS[name], text):
            raise NotFound(name.removesuffix("_id"), text)
    return found


async def streamed(request: web.Request, events: Stream) -> web.StreamResponse:
    """Send events as they come, until whoever asked is gone or the server stops."""
    first = await anext(events)  # what is wrong with the request is told as a problem still
    response = web.StreamResponse()
    response.content_type = EVENT_STREAM
    harden(response)
    await response.prepare(request)
    try:
        await response.write(_written(first))
        async for event in events:
            await response.write(_written(event))
    except ConnectionError:
        pass  # they have gone
    except HooksError as error:  # the answer has begun, so it can only end
        log.debug(LogEvent.STREAM_ENDED, error=str(error))
    finally:
        await events.aclose()
    return response


def _written(event: tuple[str, BaseModel] | None) -> bytes:
    """Write an event, or what only shows that the connection lives."""
    if event is None:
        return b":\n\n"
    name, shape = event
    return f"event: {name}\ndata: {shape.model_dump_json()}\n\n".encode()


def _query(shape: type[Shape], request: web.Request) -> Shape:
    query = request.query
    twice = {name for name in query if len(query.getall(name)) > 1}
    if twice:
        told = ", ".join(sorted(twice))[:200]
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, f"query: {told} stands there twice")
    try:
        return shape.model_validate_strings(dict(query))
    except ValidationError as error:
        raise mistaken("query", error) from error


def _body(shape: type[Shape], request: web.Request, raw: bytes) -> Shape:
    if request.content_type != JSON:
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body is to be {JSON}")
    try:
        return shape.model_validate_json(raw, strict=True)
    except ValidationError as error:
        if any(it["type"] == "json_invalid" for it in error.errors()):
            why = error.errors()[0]["msg"]
            raise Problem(
                HTTPStatus.BAD_REQUEST, f"the body is no JSON that can be read here: {why}"
            ) from error
        raise mistaken("body", error) from error


def members(text: str) -> dict[str, str]:
    """Give the members of a JSON object as they are written, byte for byte.

    A parser gives other digits and another order back than it was given.

    >>> members('{"a": 1.0, "b": {"n":  12345678901234567890123}}')["b"]
    '{"n":  12345678901234567890123}'
    """
    return dict(_items(text, "{", _named))


def elements(text: str) -> list[str]:
    """Give the elements of a JSON array as they are written.

    >>> elements('[1.0,  {"a": 1}]')
    ['1.0', '{"a": 1}']
    """
    return [value for _, value in _items(text, "[", _unnamed)]


_DECODER = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _named(text: str, at: int) -> tuple[str, int]:
    name, at = _DECODER.raw_decode(text, at)
    return name, _skip(text, _skip(text, at) + 1)  # behind the colon


def _unnamed(_: str, at: int) -> tuple[str, int]:
    return "", at


def _items(
    text: str, opening: str, named: Callable[[str, int], tuple[str, int]]
) -> list[tuple[str, str]]:
    """Give what stands between brackets; the text has been found to be JSON before."""
    at = _skip(text, 0)
    found: list[tuple[str, str]] = []
    if text[at] != opening:
        return found
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        name, begins = named(text, at)
        _, ends = _DECODER.raw_decode(text, begins)
        found.append((name, text[begins:ends]))
        at = _skip(text, ends)
        if text[at] == ",":
            at = _skip(text, at + 1)
    return found
