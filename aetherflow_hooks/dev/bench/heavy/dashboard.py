"""Dashboard: how soon its pages answer over a long history, and what an open one costs a drain."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from http import HTTPStatus

import aiohttp

from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.counters import OURS
from aetherflow_hooks.dev.bench.drain import drain_ours
from aetherflow_hooks.dev.bench.figures import Leg, Turn, middle, ratios, summary
from aetherflow_hooks.dev.bench.heavy.history import fill
from aetherflow_hooks.dev.bench.load import add_endpoints
from aetherflow_hooks.dev.bench.ours import engine
from aetherflow_hooks.dev.bench.plan import Hall
from aetherflow_hooks.dev.bench.receivers import HOST, closed_port
from aetherflow_hooks.dev.bench.server import Scratch
from aetherflow_hooks.manage.tokens import Scope, add_token

CLOSED, OPEN = "closed", "open"
LOOKS = 15  # at each page
SMALL = '{"n": 1}'  # what is old is listed, and not read
REFRESH_SECONDS = 5.0  # as the page's script has it
OURS_ALONE = {"Sec-Fetch-Site": "same-origin"}
_ONE = f"""
select event_id, endpoint_id {OURS} from aetherflow.attempts
where endpoint_id = (select min(id) from aetherflow.endpoints) order by started_at limit 1
"""


async def measure(hall: Hall) -> Leg:
    """Look at each page of an idle engine, then drain with and without somebody who looks."""
    plan = hall.plan
    leg = Leg("dashboard", f"The dashboard over {plan.dashboard_attempts:,} attempts")
    async with hall.server.database() as made:
        await add_endpoints(made.connection, plan.dashboard_endpoints, hall.sink.url)
        hall.say(f"filling {plan.history_days} days of {plan.dashboard_attempts:,} attempts")
        rows_per_day = plan.dashboard_attempts // max(1, plan.history_days - 1)
        await fill(made.connection, days=plan.history_days, rows_per_day=rows_per_day, data=SMALL)
        port = closed_port()
        web = made.settings.web.model_copy(update={"port": port})
        scratch = replace(made, settings=made.settings.model_copy(update={"web": web}))
        async with Database(scratch.settings.database) as database:
            token = (await add_token(database, "bench", Scope.ADMIN))["token"]
        base = f"http://{HOST}:{port}"
        leg.rows += await _pages(hall, scratch, base, token)
        turns: list[Turn] = []
        for round_ in range(1, plan.rounds + 1):
            for name in (CLOSED, OPEN) if round_ % 2 else (OPEN, CLOSED):
                async with _looking(base, token) if name == OPEN else _nobody():
                    turn = await drain_ours(
                        scratch,
                        hall.sink,
                        contender=name,
                        round_=round_,
                        events=plan.events,
                        endpoints=plan.dashboard_endpoints,
                        are_there=True,
                    )
                turns.append(turn)
                hall.say(f"round {round_} of {plan.rounds}: {name} {turn.per_second:,.0f}/s")
    rates = {row["contender"]: row["per_second"] for row in summary(turns, CLOSED)}
    leg.notes = [
        f"{plan.dashboard_endpoints:,} endpoints; each page {LOOKS} times, on an idle engine.",
        (
            f"A drain of {plan.events:,}: {rates[CLOSED]:,.0f} a second with nobody "
            f"looking, {rates[OPEN]:,.0f} with the overview open, which follows attempts "
            f"and is asked for anew every {REFRESH_SECONDS:g} s: "
            f"{middle(ratios(turns, OPEN, CLOSED)):.2f}, middle of {plan.rounds}."
        ),
    ]
    return leg


async def _pages(hall: Hall, scratch: Scratch, base: str, token: str) -> list[dict[str, object]]:
    """Look at each page; give a row for each."""
    event_id, endpoint_id = await scratch.connection.fetchrow(_ONE)
    places = [
        *("/", "/endpoints", f"/endpoints/{endpoint_id}", f"/endpoints/{endpoint_id}?period=days"),
        *("/events", "/events?type=t.7", "/events?type=nothing.*", f"/events/{event_id}"),
        *("/attempts", "/attempts?only_failed=yes", "/attempts?status=5xx", "/attempts?status=404"),
        *("/attempts?error=answered+503", "/attempts?error=nowhere", "/attempts?type=t.7"),
        *(f"/attempts?endpoint_id={endpoint_id}", "/attempts?tenant=nobody", "/deliveries"),
        *("/deliveries?state=dead", "/deliveries?state=delivered"),
        f"/deliveries/dlv_{event_id[4:]}_{endpoint_id[3:]}",
        *("/replays", "/event-types", "/tokens", "/changes"),
    ]
    rows: list[dict[str, object]] = []
    async with engine(scratch), aiohttp.ClientSession() as session:
        cookie = await _log_in(session, base, token)
        for place in places:
            took = []
            for _ in range(LOOKS):
                began = time.monotonic()
                async with session.get(base + place, headers=cookie) as answer:
                    await answer.read()
                    assert answer.status == 200, (place, answer.status)  # noqa: PLR2004
                took.append((time.monotonic() - began) * 1000)
            told = place.replace(endpoint_id, "…").replace(event_id, "…")
            if place.startswith("/deliveries/"):
                told = "/deliveries/…"
            rows.append({"page": told, "middle_ms": middle(took), "max_ms": max(took)})
            hall.say(f"{told}: {middle(took):.0f} ms")
    return rows


async def _log_in(session: aiohttp.ClientSession, base: str, token: str) -> dict[str, str]:
    async with session.post(
        f"{base}/login", data={"token": token}, headers=OURS_ALONE, allow_redirects=False
    ) as answer:
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0]}


@asynccontextmanager
async def _looking(base: str, token: str) -> AsyncIterator[None]:
    """Look at the overview for as long as there is an engine, as a browser does."""
    seen: Counter[str] = Counter()
    tasks = [asyncio.create_task(look(base, token, seen)) for look in (_follow, _refresh)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if not seen["page"] or not seen["attempt"]:
        raise BenchFailed(f"nobody was looking: {dict(seen)}")


@asynccontextmanager
async def _nobody() -> AsyncIterator[None]:
    yield


async def _follow(base: str, token: str, seen: Counter[str]) -> None:
    timeout = aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        while True:
            with suppress(aiohttp.ClientError):
                cookie = await _log_in(session, base, token)
                async with session.get(f"{base}/live", headers=cookie) as stream:
                    async for line in stream.content:
                        seen["attempt"] += line.startswith(b"event: attempt")
            await asyncio.sleep(0.1)


async def _refresh(base: str, token: str, seen: Counter[str]) -> None:
    async with aiohttp.ClientSession() as session:
        while True:
            with suppress(aiohttp.ClientError):
                cookie = await _log_in(session, base, token)
                while True:
                    async with session.get(base, headers=cookie, allow_redirects=False) as answer:
                        await answer.read()
                        seen["page"] += answer.status == HTTPStatus.OK
                    await asyncio.sleep(REFRESH_SECONDS)
            await asyncio.sleep(0.1)
