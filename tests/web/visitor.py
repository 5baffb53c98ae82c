"""Somebody who visits the dashboard: a browser without a page."""

import re
from typing import Any

from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.web.dashboard.pages import PAGES
from aetherflow_hooks.web.dashboard.visits import Page
from tests.web.conftest import Answered, Api
from tests.web.test_guard import IDS

OURS = {"Sec-Fetch-Site": "same-origin"}
GET = [page for page in PAGES if page.method == "GET" and page.path != "/live"]
POST = [page for page in PAGES if page.method == "POST"]


class Visitor:
    """A browser without a page: it keeps cookies, and sends forms as pages of ours do."""

    def __init__(self, api: Api, base: str = "") -> None:
        self.api = api
        self.base = base
        self.cookie = ""
        self.csrf = ""

    async def ask(self, method: str, path: str, **options: Any) -> Answered:
        headers = {"Accept": "text/html", "Cookie": self.cookie} | options.pop("headers", {})
        async with self.api._session.request(
            method,
            self.api.base + self.base + path,
            headers=headers,
            allow_redirects=False,
            **options,
        ) as answer:
            return Answered(answer.status, answer.headers, await answer.read())

    async def log_in(self, token: str) -> Answered:
        answer = await self.ask("POST", "/login", data={"token": token}, headers=OURS)
        if "Set-Cookie" in answer.headers:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

    async def send(self, path: str, **form: str) -> Answered:
        """Send a form with what it has to say of the session."""
        if not self.csrf:
            page = (await self.ask("GET", "/replays/new")).body.decode()
            self.csrf = re.search(r'name="csrf" value="(\w+)"', page)[1]  # type: ignore[index]
        return await self.ask("POST", path, data={"csrf": self.csrf, **form}, headers=OURS)

    async def shown(self, path: str) -> str:
        """Read a page that is there."""
        answer = await self.ask("GET", path)
        assert answer.status == 200, (path, answer.status, answer.body)
        return answer.body.decode()


async def visitor(api: Api, scope: Scope = Scope.ADMIN, tenant: str | None = None) -> Visitor:
    made = await add_token(api.world.database, "test", scope, tenant=tenant)
    somebody = Visitor(api)
    assert (await somebody.log_in(made["token"])).status == 303
    return somebody


def path_of(page: Page, ids: dict[str, str] = IDS) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], page.path)
