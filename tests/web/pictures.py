"""Pictures of the dashboard for the README: `make pictures`.

A real engine delivers to a receiver that is good, slow and broken. What it counts in a minute is
told of those before it too, a little more or less of it, so that there is an hour to be seen.
"""

import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

import asyncpg
from playwright.async_api import Page, ViewportSize, async_playwright

from aetherflow_hooks import load_config, start_engine
from aetherflow_hooks.db import Database, migrate
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from aetherflow_hooks.manage.event_types import show_event_type
from aetherflow_hooks.manage.events import emit_event
from aetherflow_hooks.manage.tokens import Scope, add_token
from aetherflow_hooks.rules.topics import CATALOGUE
from tests.web.conftest import free_port
from tests.web.test_browser import CHROMIUM, QUIET

FOLDER = Path(__file__).parents[2] / "aetherflow_hooks/web/dashboard/pictures"
WIDE, PHONE = ViewportSize(width=1180, height=860), ViewportSize(width=390, height=800)
MINUTES = 58
SCRIPTS = {"/shop/hooks": "200", "/crm/in": "200;wait=0.03", "/ledger": "200,200,503"}
COUNTS = ("attempts", "delivered", "answered_5xx")
BEFORE = f"""
insert into aetherflow.tallies
select (jsonb_populate_record(t, jsonb_build_object(
    'starts_at', t.starts_at - make_interval(mins => ago),
    {", ".join(f"'{it}', (t.{it} * share)::integer" for it in COUNTS)}
))).*
from aetherflow.tallies t, generate_series(1, {MINUTES}) ago,
    lateral (select 0.6 + 0.3 * sin(ago / 9.0) + 0.2 * random() as share where ago > 0) shares
where t.span = 60 and t.starts_at = (select max(starts_at) from aetherflow.tallies)
"""


async def take() -> None:
    """Let an hour go by, and take the pictures."""
    base = Path(tempfile.mkdtemp(prefix="aetherflow-"))
    base.chmod(0o711)
    try:
        async with EmbeddedPostgres(base) as server:
            await _staged(server.dsn())
    finally:
        shutil.rmtree(base, ignore_errors=True)


async def _staged(dsn: str) -> None:
    port = free_port()
    settings = load_config(
        environment={},
        given={"profile": "development", "database": {"dsn": dsn}, "web": {"port": port}},
    )
    await migrate(settings)
    async with Receiver() as receiver, Database(settings.database) as database:
        token = (await add_token(database, "operator", Scope.ADMIN))["token"]
        async with start_engine(settings):
            for path, script in SCRIPTS.items():
                new = NewEndpoint(url=receiver.url(path, script), retry_schedule_seconds=[])
                await add_endpoint(database, new, settings=settings)
            talking = asyncio.create_task(_talk(database))
            await asyncio.sleep(15)
            connection = await asyncpg.connect(dsn)
            await connection.execute(BEFORE)
            await connection.close()
            await _photograph(f"http://127.0.0.1:{port}", token)
            talking.cancel()


async def _talk(database: Database) -> None:
    while True:
        event_type = random.choice(list(CATALOGUE))
        known = await show_event_type(database, event_type)
        await emit_event(database, event_type, known["example"])
        await asyncio.sleep(random.random() * 0.4)


async def _photograph(base: str, token: str) -> None:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        for name, size, dark, place in (
            ("overview", WIDE, False, ""),
            ("endpoint", WIDE, True, "/endpoints"),
            ("delivery", WIDE, False, "/attempts?only_failed=yes"),
            ("phone", PHONE, False, ""),
            ("phone-dark", PHONE, True, "/endpoints"),
        ):
            context = await chromium.new_context(
                viewport=size, color_scheme="dark" if dark else "light"
            )
            page = await context.new_page()
            await page.goto(f"{base}/login")
            await page.get_by_label("Token").fill(token)
            await page.get_by_role("button", name="Log in").click()
            await page.wait_for_url(f"{base}/")
            if place:
                await _open(page, base + place)
            await asyncio.sleep(3)
            await page.screenshot(path=FOLDER / f"{name}.png")
            await context.close()
        await chromium.close()


async def _open(page: Page, url: str) -> None:
    """Show what the first row of a list is about."""
    await page.goto(url)
    links = page.locator("tbody tr").first.get_by_role("link")
    await links.last.click()
    await page.wait_for_load_state()


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("there is no Chromium on this machine")
    asyncio.run(take())
