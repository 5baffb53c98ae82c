"""Problems: errors as RFC 9457 has them, with a code and an id, and nothing of our insides."""

import secrets
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import orjson
from aiohttp import web
from pydantic import BaseModel, Field, ValidationError

from aetherflow_hooks.errors import (
    AlreadyThere,
    DatabaseUnavailable,
    HooksError,
    InputRefused,
    NotFound,
    NotNow,
)

CONTENT_TYPE = "application/problem+json"
TOLD_MAX = 20  # of the mistakes in one request

_STATUSES: dict[type[HooksError], HTTPStatus] = {
    NotFound: HTTPStatus.NOT_FOUND,
    InputRefused: HTTPStatus.UNPROCESSABLE_ENTITY,
    AlreadyThere: HTTPStatus.CONFLICT,
    NotNow: HTTPStatus.CONFLICT,
    DatabaseUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}


class Mistake(BaseModel):
    """One value of a request that cannot be used."""

    path: str = Field(description="Where it stands: `query.limit`, `body.events.0`.")
    message: str = Field(description="What is wrong with it.")


class ProblemShape(BaseModel):
    """Why a request was not carried out (RFC 9457)."""

    type: str = Field(description="about:blank: the status says it.")
    title: str = Field(description="What the status means.")
    status: int = Field(description="The HTTP status.", ge=400, le=599)
    code: str = Field(description="The kind of problem, for programs.")
    detail: str = Field(description="What is wrong, and what would be right.")
    id: str = Field(description="Names this very answer; the log has it where the fault is ours.")
    mistakes: list[Mistake] | None = Field(None, description="Each value that cannot be used.")


class Problem(Exception):
    """An answer that says why a request was not carried out."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        mistakes: list[Mistake] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Say what is wrong, and what would be right."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.mistakes = mistakes
        self.headers = headers or {}
        self.id = f"prb_{secrets.token_hex(8)}"

    def answer(self) -> web.Response:
        """Give it as it is sent."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": self.status.phrase,
            "status": self.status.value,
            "code": self.status.name.lower(),
            "detail": self.detail,
            "id": self.id,
        }
        if self.mistakes:
            body["mistakes"] = [mistake.model_dump() for mistake in self.mistakes]
        return web.Response(
            status=self.status,
            body=orjson.dumps(body),
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def problem_of(error: HooksError) -> Problem:
    """Say what an error of ours is to whoever asked."""
    fitting = (status for kind, status in _STATUSES.items() if isinstance(error, kind))
    status = next(fitting, HTTPStatus.INTERNAL_SERVER_ERROR)
    match status:
        case HTTPStatus.SERVICE_UNAVAILABLE:
            return Problem(status, "Postgres is away: try again", headers={"Retry-After": "1"})
        case _:
            return Problem(status, _clean(str(error)))


def mistaken(part: str, error: ValidationError) -> Problem:
    """Tell every value of a part of the request, query or body, that cannot be used."""
    mistakes = list(_mistakes(part, error))[:TOLD_MAX]
    detail = f"{mistakes[0].path}: {mistakes[0].message}"
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail, mistakes=mistakes)


def _mistakes(part: str, error: ValidationError) -> Iterator[Mistake]:
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        path = ".".join([part, *(_clean(str(it)) for it in problem["loc"])])
        yield Mistake(path=path[:200], message=_clean(problem["msg"]))


def _clean(text: str) -> str:
    """Leave out what could not be written as JSON, and what nobody reads."""
    return text.encode("utf-8", "replace").decode()[:1_000]
