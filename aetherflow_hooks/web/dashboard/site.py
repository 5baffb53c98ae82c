"""Site: who comes to the dashboard and how: by a log-in, whose cookie has a key, or by a link."""

import re
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

from aiohttp import web
from yarl import URL

from aetherflow_hooks.manage.sessions import LINK, LOGIN, LOGIN_SECONDS
from aetherflow_hooks.manage.tokens import Access
from aetherflow_hooks.web.dashboard.pages import PAGES
from aetherflow_hooks.web.dashboard.render import render
from aetherflow_hooks.web.dashboard.statics import KINDS, static_path, statics
from aetherflow_hooks.web.dashboard.visits import HTML, Page, as_visited, check_origin, form_of
from aetherflow_hooks.web.guard import POLICY, Doorman
from aetherflow_hooks.web.problems import Problem
from aetherflow_hooks.web.routes import PREFIX, Call

COOKIE = "__Host-aetherflow"  # the browser sees to it that it is sent to us alone, and by TLS
FOREVER = "public, max-age=31536000, immutable"  # the address changes with the content

_OWN_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9/_.~?=&%:+*,;@!$'()-]*")
_PORTAL = re.compile("/portal/[^/]+")

MakeCall = Callable[[web.Request, Access, Callable[[], Awaitable[bool]]], Call]


class Site:
    """The dashboard, at the root of the server."""

    def __init__(self, doorman: Doorman, call: MakeCall, embed_origins: tuple[str, ...]) -> None:
        """Let in whom the doorman knows; pages of those origins may frame what a link opens."""
        self._doorman = doorman
        self._call = call
        framing = " ".join(embed_origins) or "'none'"
        self._portal_policy = f"{POLICY}; frame-ancestors {framing}"

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Answer at the addresses of all pages."""
        router.add_get("/login", self._login_page)
        router.add_post("/login", self._log_in)
        router.add_post("/logout", self._log_out)
        for name in statics():
            router.add_get(f"/static/{name}", self._static)
        for page in PAGES:
            router.add_route(page.method, page.path, partial(self._logged_in, page))
            if page.is_of_portal:
                router.add_route(
                    page.method, "/portal/{key}" + page.path, partial(self._with_link, page)
                )
        router.add_get("/portal/{key}", self._to_the_start)

    async def _logged_in(self, page: Page, request: web.Request) -> web.StreamResponse:
        """Answer somebody who has logged in; others are asked to."""
        key = request.cookies.get(COOKIE, "")
        access = await self._doorman.visitor(LOGIN, key)
        if access is None:
            if request.method != "GET":
                raise Problem(HTTPStatus.UNAUTHORIZED, "the session is over: log in again")
            if request.headers.get("Sec-Fetch-Site") == "cross-site":
                # A strict cookie is not sent along by a link on somebody else's page. From a page
                # of ours it is.
                return web.Response(text=render("onward.html"), content_type=HTML)
            where = URL("/login").with_query(next=request.path_qs)
            return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": str(where)})
        return await self._visited(page, request, LOGIN, key, access, base="")

    async def _with_link(self, page: Page, request: web.Request) -> web.StreamResponse:
        """Answer somebody who was given a link."""
        key = request.match_info["key"]
        access = await self._doorman.visitor(LINK, key)
        if access is None:
            raise Problem(HTTPStatus.NOT_FOUND, "this link opens nothing any more: ask for another")
        return await self._visited(page, request, LINK, key, access, base=f"/portal/{key}")

    def frame(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Say who may show an answer in a frame, where that is anybody."""
        if _PORTAL.match(request.path):
            response.headers["Content-Security-Policy"] = self._portal_policy

    async def _to_the_start(self, request: web.Request) -> web.Response:
        return web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": f"{request.path}/"})

    async def _visited(
        self, page: Page, request: web.Request, kind: str, key: str, access: Access, *, base: str
    ) -> web.StreamResponse:
        async def still_in() -> bool:
            return await self._doorman.visitor(kind, key) is not None

        visit = await as_visited(request, self._call(request, access, still_in), key, base)
        return await page.answer(visit)

    async def _login_page(self, request: web.Request) -> web.Response:
        return _login(request.query.get("next", "/"))

    async def _log_in(self, request: web.Request) -> web.Response:
        """Give a session to somebody who has typed a token."""
        check_origin(request)
        form = await form_of(request)
        onward = form.get("next", "/")
        key = await self._doorman.log_in(request, form.get("token", "").strip())
        if key is None:
            return _login(onward, wrong="This token opens nothing. Look whether it is whole.")
        to = onward if _OWN_PATH.fullmatch(onward) else "/"
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": to})
        response.set_cookie(
            *(COOKIE, key),
            max_age=int(LOGIN_SECONDS),
            secure=True,
            httponly=True,
            samesite="Strict",
        )
        return response

    async def _log_out(self, request: web.Request) -> web.Response:
        check_origin(request)
        await self._doorman.log_out(request.cookies.get(COOKIE, ""))
        response = web.Response(status=HTTPStatus.SEE_OTHER, headers={"Location": "/login"})
        response.del_cookie(COOKIE, secure=True, httponly=True, samesite="Strict")
        return response

    async def _static(self, request: web.Request) -> web.Response:
        name = request.path.rpartition("/")[2]
        return web.Response(
            body=statics()[name],
            content_type=KINDS[name[name.rindex(".") :]],
            charset="utf-8",
            # An engine of another version may be asked for what a page of this one needs.
            headers={"Cache-Control": FOREVER} if request.path_qs == static_path(name) else {},
        )


def is_for_people(request: web.BaseRequest) -> bool:
    """Tell whether somebody looks at the answer to a request, and no program reads it."""
    return not request.path.startswith(PREFIX) and HTML in request.headers.get("Accept", "")


def problem_page(request: web.BaseRequest, problem: Problem) -> web.Response:
    """Tell somebody why there is not what they have asked for."""
    portal = _PORTAL.match(request.path)
    start = f"{portal[0] if portal else ''}/"
    text = render("problem.html", problem=problem, title=problem.status.phrase, start=start)
    return web.Response(
        status=problem.status, text=text, content_type=HTML, headers=problem.headers
    )


def _login(onward: str, wrong: str | None = None) -> web.Response:
    status = HTTPStatus.UNAUTHORIZED if wrong else HTTPStatus.OK
    text = render("login.html", onward=onward, wrong=wrong)
    return web.Response(status=status, text=text, content_type=HTML)
