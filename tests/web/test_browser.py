"""The dashboard in a real browser: a newcomer's path, texts that would like to act, and axe."""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import BaseTestServer, TestServer
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page, ViewportSize, async_playwright, expect

from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.sessions import add_link
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.receive import verify
from tests.conftest import until
from tests.web.conftest import Api, free_port

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ON_MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None) or (
    ON_MACOS if Path(ON_MACOS).exists() else None
)
QUIET = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-quic"),
]
WIDE = ViewportSize(width=1280, height=900)
PHONE = ViewportSize(width=390, height=844)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")


class Browser:
    """A browser that looks at the dashboard, and what it did that it should not."""

    def __init__(self, api: Api, page: Page) -> None:
        self.api = api
        self.page = page
        self.wrong: list[str] = []
        self.allowed: tuple[str, ...] = ()  # beside the dashboard's own origin
        page.on("dialog", lambda dialog: self.wrong.append(f"a dialog: {dialog.message}"))
        page.on("pageerror", lambda error: self.wrong.append(f"an error: {error}"))
        page.on("request", lambda request: self._check(request.url))
        page.on("console", lambda message: self._read(message.type, message.text))

    async def log_in(self, scope: Scope = Scope.ADMIN) -> None:
        made = await add_token(self.api.world.database, "browser", scope)
        await self.page.goto(f"{self.api.base}/")
        await self.page.get_by_label("Token").fill(made["token"])
        await self.page.get_by_role("button", name="Log in").click()
        await self.page.wait_for_url(f"{self.api.base}/")

    async def go(self, path: str) -> None:
        await self.page.goto(self.api.base + path)

    async def press(self, name: str, *, exact: bool = True) -> None:
        await self.page.get_by_role("button", name=name, exact=exact).first.click()

    async def reads(self, text: str) -> None:
        """See a text on the page, sooner or later: it is kept fresh."""
        await expect(self.page.get_by_text(text).first).to_be_visible(timeout=15_000)

    async def open_all(self) -> None:
        """Open whatever can be opened on the page."""
        await self.page.evaluate(
            "document.querySelectorAll('details').forEach(it => it.open = true)"
        )

    async def is_for_everybody(self) -> None:
        """Let axe-core look for what keeps somebody from using the page."""
        found = await Axe().run(self.page, options={"resultTypes": ["violations"]})
        serious = [
            (it["id"], it["nodes"][0]["html"][:200], it["nodes"][0]["failureSummary"][:300])
            for it in found.response["violations"]
            if it["impact"] in ("serious", "critical")
        ]
        assert not serious, (self.page.url, serious)

    def _check(self, url: str) -> None:
        if not url.startswith((self.api.base, "data:", *self.allowed)):
            self.wrong.append(f"asked for {url}")

    def _read(self, kind: str, text: str) -> None:
        if kind == "error" and not re.search(
            r"status of (401|404|422) ", text
        ):  # as the tests ask for
            self.wrong.append(text)


@pytest_asyncio.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        context = await chromium.new_context(
            viewport=WIDE, permissions=["clipboard-read", "clipboard-write"]
        )
        context.set_default_timeout(15_000)
        browser = Browser(api, await context.new_page())
        yield browser
        await chromium.close()
    assert not browser.wrong


async def emit(browser: Browser, key: str) -> None:
    """Emit the example of a type that is chosen from the catalogue."""
    await browser.go("/events/new")
    await browser.page.get_by_label("Begin with the example of").select_option("workflow.failed")
    await browser.press("Show")
    await expect(browser.page.get_by_label("Type", exact=True)).to_have_value("workflow.failed")
    await browser.page.get_by_text("Options").click()
    await browser.page.get_by_label("Idempotency key").fill(key)
    await browser.press("Emit")
    await browser.reads("Emitted.")


async def test_a_newcomer_finds_the_way(api: Api, browser: Browser) -> None:  # noqa: PLR0915  one story
    world, page = api.world, browser.page
    receiver = world.receiver
    await browser.go("/endpoints")
    await page.get_by_label("Token").fill("af_" + "0" * 12 + "_" + "A" * 43)
    await browser.press("Log in")
    await browser.reads("This token opens nothing")
    await browser.log_in()
    await browser.reads("Begin here")

    await page.get_by_role("link", name="Add an endpoint").click()
    await page.get_by_label("URL", exact=True).fill("ftp://nowhere")
    await page.get_by_text("What it gets, and how fast").click()
    await page.get_by_label("Retries").fill("none")
    await browser.press("Add")
    await expect(page.get_by_role("alert")).to_contain_text("http")
    await expect(page.get_by_label("Retries")).to_have_value("none")  # nothing typed is lost
    await page.get_by_label("URL", exact=True).fill(
        receiver.url("/hook", "200,200,500,200,500,200")
    )
    await browser.press("Add")
    await browser.reads("Its secret, this once")
    await browser.press("Copy")
    await browser.reads("Copied")
    secret = await page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/=]{32,}", secret)
    await page.get_by_role("link", name="Go on to the endpoint").click()
    endpoint_url = page.url
    assert secret not in await page.content()

    await browser.press("Send a test")
    await browser.reads("It answered 200")
    verify(receiver.received[0].body, receiver.received[0].headers, secret)

    watching = await page.context.new_page()
    await watching.goto(f"{api.base}/")
    await expect(watching.get_by_text("they show here as they are made")).to_be_visible()
    await page.bring_to_front()  # what is behind is drawn once a second only
    await emit(browser, "first")
    arrived = watching.locator("tr.new", has=watching.locator(".state.delivered"))
    await expect(arrived).to_contain_text("workflow.failed", timeout=15_000)
    verify(receiver.received[1].body, receiver.received[1].headers, secret)

    await emit(browser, "second")  # the receiver is broken by now
    failed = watching.locator("tr.new", has=watching.locator(".state.dead"))
    await expect(failed).to_contain_text("500", timeout=15_000)
    await page.reload()
    await expect(page.locator("main")).to_contain_text("dead")
    await page.get_by_role("link", name="Look").click()
    await expect(page.get_by_label("Body of the request")).to_contain_text('"workflow.failed"')
    await browser.press("Retry now")
    await browser.reads("It is sent as soon as its turn comes.")
    await until(lambda: received(receiver, 4))
    await emit(browser, "third")
    await until(lambda: received(receiver, 5))
    await world.until("select count(*) = 1 from aetherflow.dead")

    await page.goto(endpoint_url)
    await page.get_by_role("link", name="Replay", exact=True).click()
    await browser.press("Count them first")
    await expect(page.get_by_role("status")).to_contain_text("would send 1 delivery")
    await asyncio.sleep(0.2)
    assert len(receiver.received) == 5
    await browser.press("Send it")
    await expect(page.locator("#progress")).to_contain_text("1 made", timeout=15_000)
    await until(lambda: received(receiver, 6))
    await world.settled()

    await page.goto(endpoint_url)
    await page.get_by_text("Rotate the secret").click()
    await browser.press("Make a new secret")
    await browser.reads("Its secret, this once")
    new_secret = await page.inner_text("#secret")
    assert new_secret != secret
    await emit(browser, "fourth")
    await until(lambda: received(receiver, 7))
    for known in (secret, new_secret):
        verify(receiver.received[-1].body, receiver.received[-1].headers, known)

    await watching.close()
    await browser.press("Log out")
    await browser.go("/endpoints")
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()


async def received(receiver: Any, count: int) -> bool:
    return len(receiver.received) >= count


PLACES = (
    *("/", "/endpoints", "/endpoints/new", "/events", "/events/new", "/attempts", "/deliveries"),
    *("/replays", "/replays/new", "/event-types", "/event-types/workflow.failed", "/tokens"),
    *("/changes", "/event-types/new"),
)
DARK = ("/",)


async def test_everybody_can_use_every_page(api: Api, browser: Browser) -> None:
    world, page = api.world, browser.page
    added = await world.endpoint(script="503", retry_schedule_seconds=[])
    event_id = await world.emit("workflow.failed", '{"a": 1}')
    await world.until("select exists (select from aetherflow.dead)")
    await browser.go("/login")
    await browser.is_for_everybody()
    await browser.log_in()
    mine = (
        f"/endpoints/{added['id']}",
        f"/events/{event_id}",
        f"/deliveries/dlv_{event_id[4:]}_{added['id'][3:]}",
    )
    for place in (*PLACES, *mine, f"/endpoints/{added['id']}/edit"):
        await browser.go(place)
        await browser.open_all()
        await browser.is_for_everybody()
        await page.set_viewport_size(PHONE)
        width = await page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE["width"], (place, width)
        if place in DARK or place in mine:  # the same colours are everywhere
            await page.emulate_media(color_scheme="dark")
            await browser.is_for_everybody()
            await page.emulate_media(color_scheme="light")
        await page.set_viewport_size(WIDE)


MARKUP = '<script>alert(1)</script><img src=x onerror=alert(2)>"><svg onload=alert(3)>'
TRICKS = "{{7*1111111}} ${7*1111111} javascript:alert(4) https://elsewhere.example/"


async def test_texts_from_outside_are_shown_and_do_nothing(api: Api, browser: Browser) -> None:
    """Every row of the reference's table of texts, b.6, at each place that shows text."""
    world, page = api.world, browser.page
    body = f"{MARKUP} \x1b]52;c;AA==\x07 \x1b[2J \u202eflipped\u2066 {TRICKS}"
    answer = "".join(f"%{byte:02x}" for byte in body.encode())
    tenant = f"{MARKUP[:100]} {TRICKS}"
    added = await add_endpoint(
        world.database,
        NewEndpoint(
            url=world.receiver.url('/x"><img/onerror=alert(5)/src=x>', f"500;body={answer}"),
            tenant=tenant,
            description=f"{MARKUP} {TRICKS}"[:256],
            metadata={MARKUP: TRICKS},
            retry_schedule_seconds=[],
        ),
        settings=world.settings(),
    )
    text = f"{MARKUP} {TRICKS} \u202e\u2066\u200b {'long' * 16_384}"
    data = json.dumps({"text": text, "lines": "\n" * 1_000}, ensure_ascii=False)
    event_id = await world.emit("a.b", data, tenant=tenant)
    await add_token(world.database, f"{MARKUP[:100]}", Scope.READ, tenant=tenant)
    await world.until("select exists (select from aetherflow.dead)")
    await browser.log_in()
    for place, shown in {
        "/": (),
        "/endpoints": (MARKUP[:100], "{{7*1111111}}"),
        f"/endpoints/{added['id']}": (MARKUP, "{{7*1111111}}", "javascript:alert(4)"),
        f"/endpoints/{added['id']}/edit": (),
        f"/events/{event_id}": (MARKUP, "{{7*1111111}}", r"\u202e\u2066\u200b", "characters more"),
        f"/deliveries/dlv_{event_id[4:]}_{added['id'][3:]}": (
            *(MARKUP, r"\x1b]52;c;AA==\x07", r"\x1b[2J", r"\u202eflipped\u2066", "{{7*1111111}}"),
        ),
        "/events": (MARKUP[:100],),
        "/attempts": (),
        "/tokens": (MARKUP[:100],),
        "/changes": (),
        f"/attempts?error={MARKUP[:60]}": (),
        "/search?q=javascript:alert(1)": (),
        f"/events?tenant={MARKUP[:60]}&type=*": (),
    }.items():
        await browser.go(place)
        await browser.open_all()
        seen = await page.locator("main").inner_text()
        for one in shown:
            assert one in seen, (place, one, seen[:2_000])
        assert "7777777" not in seen, place
        injected = "main script, main img:not([alt='']), main svg[onload], main [onerror]"
        assert await page.locator(injected).count() == 0, place
        for link in await page.locator("a").all():
            href = await link.get_attribute("href") or ""
            assert href.startswith("/") or href == "#main", (place, href)
        assert await page.locator("main").evaluate("it => it.innerText.length") < 400_000
    async with page.expect_download() as waiting:
        await browser.go(f"/events/{event_id}")
        await page.get_by_role("link", name="Download as it is").click()
    assert (await waiting.value).suggested_filename == f"{event_id}.json"


def serving(page: str) -> web.Application:
    """A server of one page."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    application = web.Application()
    application.router.add_get("/", answer)
    return application


def origin(server: BaseTestServer) -> str:
    return str(server.make_url("")).rstrip("/")


async def test_a_customer_sees_what_is_theirs_in_a_frame_and_nothing_else(
    api: Api, browser: Browser
) -> None:
    world, page = api.world, browser.page
    await world.endpoint("/theirs", tenant="acme")
    await world.endpoint("/others")
    link = await add_link(world.database, "acme", scope=Scope.WRITE)
    # A product's own page on another origin, which the engine is told of.
    port = free_port()
    inside = f"http://127.0.0.1:{port}{link['path']}"
    body = f"<link rel=icon href=data:><iframe src='{inside}' width=900 height=600></iframe>"
    async with (
        TestServer(serving(body)) as server,
        world.engine(web={"port": port, "embed_origins": [origin(server)]}),
    ):
        product = origin(server)
        browser.allowed = (product, f"http://127.0.0.1:{port}")
        await page.goto(f"{product}/")
        frame = page.frame_locator("iframe")
        await expect(frame.get_by_role("heading", name="Overview")).to_be_visible()
        await frame.get_by_role("navigation").get_by_role("link", name="Endpoints").click()
        await frame.locator("tbody a").first.click()
        await frame.get_by_role("button", name="Pause").first.click()
        await expect(frame.get_by_text("Paused: what comes waits.")).to_be_visible()
        await frame.get_by_text("Rotate the secret").click()
        await frame.get_by_label("The old one signs too for").fill("-1")
        await frame.get_by_role("button", name="Make a new secret").click()
        await expect(frame.get_by_role("alert").first).to_contain_text("overlap_seconds")
        await world.connection.execute("update aetherflow.sessions set expires_at = now()")
        await frame.get_by_role("navigation").get_by_role("link", name="Events").click()
        await expect(frame.get_by_text("this link opens nothing any more")).to_be_visible()
    browser.allowed = ()
    link = await add_link(world.database, "acme", scope=Scope.WRITE)
    await browser.go(link["path"])
    for name in ("Endpoints", "Events", "Attempts", "Deliveries", "Replays", "Event types"):
        await page.get_by_role("navigation").get_by_role("link", name=name).click()
        await expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()
        assert page.url.startswith(api.base + link["path"].rstrip("/"))
    await page.get_by_role("navigation").get_by_role("link", name="Endpoints").click()
    await expect(page.locator("main")).to_contain_text("/theirs")
    await expect(page.locator("main")).not_to_contain_text("/others")
    assert await page.get_by_role("link", name="Tokens").count() == 0
