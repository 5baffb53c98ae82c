"""Visits: a request for a page by somebody who is in, and the answers that pages give."""

import hashlib
import hmac
import re
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, TypeVar, cast
from urllib.parse import parse_qsl

from aiohttp import web
from pydantic import BaseModel

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.web.dashboard.forms import filled
from aetherflow_hooks.web.dashboard.render import render
from aetherflow_hooks.web.problems import Problem
from aetherflow_hooks.web.repeats import once
from aetherflow_hooks.web.routes import Call, Route, Shape, checked_ids

HTML = "text/html"
FORM = "application/x-www-form-urlencoded"
FIELDS_MAX = 200
# What was done, told on the page that follows. The address names the word, and never the text.
DONE = {
    "added": "Added.",
    "saved": "Saved.",
    "paused": "Paused: what comes waits.",
    "active": "Active.",
    "disabled": "Disabled: it takes no events.",
    "deleted": "Deleted.",
    "retried": "It is sent as soon as its turn comes.",
    "cancelled": "Cancelled.",
    "promoted": "The new secret signs X-AetherFlow-Signature from now on.",
    "emitted": "Emitted.",
    "expunged": "The data is deleted; that it happened stays.",
    "started": "Started.",
    "revoked": "Revoked: it opens nothing from now on.",
}


NOTHING = SimpleNamespace(items=(), before=None)
S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Visit:
    """A request for a page, by somebody who is in."""

    call: Call
    request: web.Request
    base: str  # what every address of theirs begins with: that of their link, or nothing
    csrf: str  # what forms of this session have to say
    form: Mapping[str, str]

    @property
    def query(self) -> dict[str, str]:
        """What the address asks for; templates find nothing where it does not."""
        given = self.request.query.items()
        return defaultdict(str, {name: text for name, text in given if text and name != "did"})

    def may(self, route: Route) -> bool:
        """Tell whether they may use a route."""
        return self.call.access.scope.covers(route.scope)

    async def ask(self, route: Route, *, raw: str = "", **given: Any) -> Any:
        """Ask a route of the API, as whoever this is; `raw` is the body as it would have come.

        Raises:
            Problem: 403, their scope does not cover it.
            HooksError: as the route.
        """
        self.call.check(route.scope)
        call = replace(self.call, raw=raw.encode())
        return await cast("Awaitable[Any]", route.handler(call, **given))

    async def look(
        self, route: Route, shape: type[Shape], given: Mapping[str, Any]
    ) -> tuple[Any, str | None]:
        """Ask for a page of a list; where what was typed cannot be used, give none and why."""
        try:
            return await self.ask(route, query=filled(shape, given)), None
        except InputRefused as error:
            return NOTHING, str(error)

    async def ask_once(self, route: Route, shape: type[S], *, raw: str = "", **given: Any) -> S:
        """Ask a route that makes something: a form that is sent twice takes effect once.

        Raises:
            HooksError: as the route; then the form can be sent again.
        """
        self.call.check(route.scope)
        # What was changed before it was sent again is another form.
        digest = hashlib.sha256(repr(sorted(self.form.items())).encode()).hexdigest()

        async def make(bound: Database) -> str:
            call = replace(self.call, raw=raw.encode(), database=bound)
            made: BaseModel = await cast("Awaitable[Any]", route.handler(call, **given))
            return made.model_dump_json(by_alias=True)

        text = await once(
            self.call.database,
            self.call.settings.keyring(),
            actor=self.call.access.actor,
            key=f"{self.form.get('once') or secrets.token_hex(16)}.{digest}",
            request=digest.encode(),
            make=make,
        )
        return shape.model_validate_json(text)

    def show(
        self,
        template: str,
        *,
        status: HTTPStatus = HTTPStatus.OK,
        wrong: str | None = None,
        **context: Any,
    ) -> web.Response:
        """Answer with a page; `wrong` says what of a form cannot be used, or done now."""
        text = render(
            template,
            visit=self,
            base=self.base,
            access=self.call.access,
            path=self.request.path.removeprefix(self.base),
            done=DONE.get(self.request.query.get("did", "")),
            wrong=wrong,
            **context,
        )
        return web.Response(
            status=HTTPStatus.UNPROCESSABLE_ENTITY if wrong else status,
            text=text,
            content_type=HTML,
        )

    def go(self, path: str, did: str = "") -> web.Response:
        """Lead on to another page, which tells what was done."""
        assert not did or did in DONE
        where = self.base + path + (f"?did={did}" if did else "")
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": where})

    def link(self, **query: Any) -> str:
        """Give the address of this page with something else asked for; None: no more."""
        asked = {**self.query, **query}
        url = self.request.rel_url.with_query(
            {name: str(value) for name, value in asked.items() if value is not None}
        )
        return str(url)


Handler = Callable[..., Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Page:
    """A method at a path of the dashboard."""

    method: str
    path: str
    handler: Handler
    is_of_portal: bool  # a link opens it too

    async def answer(self, visit: Visit) -> web.StreamResponse:
        """Answer a visit.

        Raises:
            Problem: a form does not come from one of our pages.
            HooksError: as the routes that it asks.
        """
        if self.method == "POST":
            check_origin(visit.request)
            if not hmac.compare_digest(visit.form.get("csrf", "").encode(), visit.csrf.encode()):
                raise Problem(
                    HTTPStatus.FORBIDDEN, "this form is of another session: load the page again"
                )
        names = re.findall(r"\{(\w+)\}", self.path)
        return await self.handler(visit, **checked_ids(visit.request, names))


def page(method: str, path: str, *, is_of_portal: bool = True) -> Callable[[Handler], Page]:
    """Make a page of a function of a visit and the path's parts."""

    def make(handler: Handler) -> Page:
        return Page(method, path, handler, is_of_portal)

    return make


async def as_visited(request: web.Request, call: Call, key: str, base: str) -> Visit:
    """Make a visit of a request whose session, by this key, is known to be one."""
    form: dict[str, str] = {}
    if request.method == "POST":
        form = await form_of(request)
    csrf = hmac.new(key.encode(), b"csrf", hashlib.sha256).hexdigest()
    return Visit(call, request, base, csrf, form)


async def form_of(request: web.Request) -> dict[str, str]:
    """Read a form; of several values of one name, as of boxes that are ticked, the last counts.

    Raises:
        Problem: it is none that a browser sends, or no text.
    """
    if request.content_type != FORM or (request.charset or "utf-8").lower() != "utf-8":
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a form is to be urlencoded, in UTF-8")
    try:
        given = parse_qsl(
            (await request.read()).decode(),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError:  # bytes that are no UTF-8, or too many fields
        raise Problem(HTTPStatus.BAD_REQUEST, "this cannot be read as a form") from None
    # Browsers end each line of a text as HTTP does.
    return {name: text.replace("\r\n", "\n") for name, text in given}


def check_origin(request: web.Request) -> None:
    """Make sure that a form was sent by a page of ours.

    Cookies are sent along with whatever page asks; a browser says which one it was.

    Raises:
        Problem: 403, it was another one, or it is not told.
    """
    if request.headers.get("Sec-Fetch-Site") != "same-origin":
        raise Problem(
            HTTPStatus.FORBIDDEN,
            "a form is sent by a page of this very server; if it was, the browser is too old",
        )
