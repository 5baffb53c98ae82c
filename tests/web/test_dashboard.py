"""Who sees what of the dashboard, and how a browser is kept from being misled."""

import re
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.manage.replays import NewReplay, start_replay
from aetherflow_hooks.manage.sessions import add_link, revoke_link
from aetherflow_hooks.manage.tokens import Scope, add_token, list_tokens, revoke_token
from aetherflow_hooks.manage.versions import add_version
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.web.dashboard.charts import attempts_chart, latency_chart
from aetherflow_hooks.web.dashboard.pages import PAGES
from aetherflow_hooks.web.dashboard.statics import static_path
from tests.conftest import secret_part
from tests.web.conftest import Api, free_port
from tests.web.test_guard import IDS
from tests.web.visitor import GET, OURS, POST, Visitor, path_of, visitor


async def test_who_has_not_logged_in_is_asked_to(api: Api) -> None:
    nobody = Visitor(api)
    for page in PAGES:
        answer = await nobody.ask(page.method, path_of(page), headers=OURS)
        if page.method == "GET":
            assert answer.status == 303
            assert answer.headers["Location"].startswith("/login?next=/")
        else:
            assert answer.status == 401
    assert "Token" in await nobody.shown("/login")
    assert (await nobody.log_in("af_000000000000_" + "A" * 43)).status == 401
    # A link on another page sends no strict cookie; a page of ours leads on with it.
    onward = await nobody.ask("GET", "/endpoints", headers={"Sec-Fetch-Site": "cross-site"})
    assert (onward.status, b'http-equiv="refresh"' in onward.body) == (200, True)


async def test_a_session_is_a_cookie_for_us_alone_and_ends(api: Api) -> None:
    made = await add_token(api.world.database, "test", Scope.READ)
    somebody = Visitor(api)
    answer = await somebody.log_in(made["token"])
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-aetherflow=")
    for attribute in ("Secure", "HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"):
        assert attribute in cookie
    assert made["token"] not in cookie
    await somebody.shown("/endpoints")
    stored = await api.world.value("select to_jsonb(s)::text from aetherflow.sessions s")
    assert secret_part(somebody.cookie) not in stored
    # The API knows no cookies: nothing that a browser adds by itself opens it.
    api_answer = await somebody.ask("GET", "/api/v1/endpoints")
    api_answer.problem(401)
    other = Visitor(api)
    await other.log_in(made["token"])
    await somebody.ask("POST", "/logout", headers=OURS)
    assert (await somebody.ask("GET", "/endpoints")).status == 303
    await other.shown("/endpoints")
    await revoke_token(api.world.database, made["id"])
    assert (await other.ask("GET", "/endpoints")).status == 303


async def test_an_old_session_opens_nothing_and_is_forgotten(api: Api) -> None:
    somebody = await visitor(api)
    await api.world.connection.execute("update aetherflow.sessions set expires_at = now()")
    assert (await somebody.ask("GET", "/endpoints")).status == 303
    await api.world.until("select not exists (select from aetherflow.sessions)")


@pytest.mark.parametrize(
    "onward", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", ""]
)
async def test_a_log_in_leads_to_no_other_server(api: Api, onward: str) -> None:
    made = await add_token(api.world.database, "test", Scope.READ)
    form = {"token": made["token"], "next": onward}
    answer = await Visitor(api).ask("POST", "/login", data=form, headers=OURS)
    assert answer.headers["Location"] == "/"


async def test_a_log_in_leads_to_where_one_was_going(api: Api) -> None:
    made = await add_token(api.world.database, "test", Scope.READ)
    form = {"token": made["token"], "next": "/attempts?status=5xx"}
    answer = await Visitor(api).ask("POST", "/login", data=form, headers=OURS)
    assert answer.headers["Location"] == "/attempts?status=5xx"


MISLED: dict[str, dict[str, str]] = {
    "another page": {"Sec-Fetch-Site": "cross-site"},
    "another page of the same site": {"Sec-Fetch-Site": "same-site"},
    "somebody who types": {"Sec-Fetch-Site": "none"},
    "a browser that does not say": {"Origin": "http://127.0.0.1"},
}


async def test_forms_of_other_pages_change_nothing(api: Api) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint()
    await somebody.send(f"/endpoints/{added['id']}/state", state="paused")
    ids = IDS | {"endpoint_id": added["id"]}
    for page in POST:
        for name, headers in MISLED.items():
            data = {"csrf": somebody.csrf, "state": "active"}
            answer = await somebody.ask("POST", path_of(page, ids), data=data, headers=headers)
            assert answer.status == 403, (page.path, name)
        for csrf in ("", "0" * 64):
            answer = await somebody.ask(
                "POST", path_of(page, ids), data={"csrf": csrf}, headers=OURS
            )
            assert answer.status == 403, page.path
        as_json = {"Content-Type": "text/plain"} | OURS
        answer = await somebody.ask("POST", path_of(page, ids), data="{}", headers=as_json)
        assert answer.status == 415
    states = await api.world.rows("select state from aetherflow.endpoints")
    assert [row["state"] for row in states] == ["paused"]
    for path in ("/login", "/logout"):
        answer = await somebody.ask("POST", path, headers=MISLED["another page"])
        assert answer.status == 403
    assert (await somebody.send(f"/endpoints/{added['id']}/state", state="active")).status == 303


async def test_looking_changes_nothing(api: Api) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint()
    event_id = await api.world.emit()
    await api.world.settled()
    ids = IDS | {"endpoint_id": added["id"], "event_id": event_id, "type": "user.joined"}
    ids["delivery_id"] = delivery_id(event_id, added["id"])
    before = await api.world.value("select count(*) from aetherflow.audit")
    for page in GET:
        answer = await somebody.ask("GET", path_of(page, ids))
        assert answer.status in (200, 303, 404), page.path
    for page in POST:  # a path that changes something by a form has nothing to look at
        answer = await somebody.ask("GET", path_of(page, ids))
        assert answer.status in (200, 404, 405), page.path
    assert await api.world.value("select count(*) from aetherflow.audit") == before


async def test_every_answer_tells_browsers_to_be_careful(api: Api) -> None:
    somebody = await visitor(api)
    ids = await filled_in(api, "acme") | {"type": "user.joined"}
    script = static_path("dashboard.js")
    for path in (*(path_of(page, ids) for page in GET), "/login", "/nothing", script):
        answer = await somebody.ask("GET", path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        is_static = path == script
        assert (answer.headers["Cache-Control"] == "no-store") is not is_static
        page = answer.body.decode()
        if not is_static:
            inline = r"<script(?![^>]*\bsrc=)|<style|<[^>]*\s(?:style|on\w+)\s*="
            assert not re.search(inline, page), path


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_scope_opens_no_more_here_than_by_the_api(api: Api, scope: Scope) -> None:
    somebody = await visitor(api, scope)
    added = await api.world.endpoint()
    ids = IDS | {"endpoint_id": added["id"], "type": "user.joined"}
    needed = {
        **dict.fromkeys(("/tokens", "/changes", "/tokens/{token_id}/revoke"), Scope.ADMIN),
        **{
            page.path: Scope.ADMIN
            for page in PAGES
            if re.search("event-types/.+/|types/new", page.path)
        },
        **dict.fromkeys(
            ("/endpoints/new", "/endpoints/{endpoint_id}/edit", "/events/new"), Scope.WRITE
        ),
        "/replays/new": Scope.WRITE,
    }
    page_text = await somebody.shown("/")
    assert ("/tokens" in page_text) is (scope is Scope.ADMIN)
    for page in GET:
        status = (await somebody.ask("GET", path_of(page, ids))).status
        is_open = scope.covers(needed.get(page.path, Scope.READ))
        assert (status != 403) is is_open, (page.path, status)
    if scope is Scope.READ:
        somebody.csrf = "none, for there is no form"
        assert "csrf" not in await somebody.shown(f"/endpoints/{added['id']}")


async def filled_in(api: Api, tenant: str) -> dict[str, str]:
    """Make one of each thing for a tenant; give their ids."""
    world = api.world
    added = await world.endpoint(
        f"/{tenant}", "500", tenant=tenant, retry_schedule_seconds=[], description=f"of {tenant}"
    )
    event_id = await world.emit(f"{tenant}.happened", tenant=tenant)
    await world.until("select exists (select from aetherflow.dead where event_id = $1)", event_id)
    replay = await start_replay(
        world.database, NewReplay(endpoint_id=added["id"], only_failed=True, tenant=tenant)
    )
    return IDS | {
        "endpoint_id": added["id"],
        "event_id": event_id,
        "delivery_id": delivery_id(event_id, added["id"]),
        "replay_id": replay["id"],
    }


@pytest.mark.parametrize("how", ["token", "link"])
async def test_a_tenant_finds_nothing_of_another(api: Api, how: str) -> None:
    theirs, others = await filled_in(api, "acme"), await filled_in(api, "globex")
    if how == "token":
        somebody = await visitor(api, Scope.WRITE, tenant="acme")
        pages = PAGES
    else:
        link = await add_link(api.world.database, "acme", scope=Scope.WRITE)
        somebody = Visitor(api, link["path"].rstrip("/"))
        pages = tuple(page for page in PAGES if page.is_of_portal)
    before = await api.world.rows("select state, version from aetherflow.endpoints order by id")
    checked = 0
    for page in pages:
        ours = "_id}" not in page.path or "token_id" in page.path
        if page.path == "/live":
            continue
        if page.method == "POST":
            if not ours:
                answer = await somebody.send(path_of(page, others), state="disabled")
                assert answer.status == 404, page.path
                checked += 1
            continue
        answer = await somebody.ask("GET", path_of(page, others))
        assert ours or answer.status == 404, page.path
        assert "globex" not in answer.body.decode(), page.path
        known = await somebody.ask("GET", path_of(page, theirs))
        assert ours or known.status == 200, page.path
        checked += 1
    assert checked >= 20
    for path in ("/endpoints", "/events", "/attempts", "/deliveries", "/"):
        assert (await somebody.ask("GET", f"{path}?tenant=globex")).status == 404
    for path in ("/attempts", "/deliveries"):
        found = await somebody.ask("GET", f"{path}?endpoint_id={others['endpoint_id']}")
        assert "Look" not in found.body.decode()
        assert others["delivery_id"] not in found.body.decode()
    now = await api.world.rows("select state, version from aetherflow.endpoints order by id")
    assert now == before


async def test_a_link_opens_until_it_ends_and_only_where_it_may_be_framed(api: Api) -> None:
    world = api.world
    port = free_port()
    origins = ["https://app.example.com", "http://localhost:3000"]
    async with world.engine(web={"port": port, "embed_origins": origins}):
        elsewhere = Api(world, api._session, port)
        link = await add_link(world.database, "acme", seconds=60)
        somebody = Visitor(elsewhere, link["path"].rstrip("/"))
        answer = await somebody.ask("GET", "/")
        policy = answer.headers["Content-Security-Policy"]
        assert policy.endswith("frame-ancestors https://app.example.com http://localhost:3000")
        assert (
            "'none'"
            in (await Visitor(elsewhere).ask("GET", "/login"))
            .headers["Content-Security-Policy"]
            .rpartition("frame-ancestors")[2]
        )
        for page in ("/tokens", "/changes", "/events/new"):
            assert (await somebody.ask("GET", page)).status == 404
        assert (await somebody.ask("GET", "/endpoints/new")).status == 403  # it only looks
        wrong = Visitor(elsewhere, link["path"].rstrip("/")[:-43] + "A" * 43)
        statuses = {(await wrong.ask("GET", "/")).status}
        await world.connection.execute("update aetherflow.sessions set expires_at = now()")
        statuses.add((await somebody.ask("GET", "/")).status)
        assert statuses == {404}


async def test_links_come_of_a_token_and_go_with_it(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    of_acme = await api.client(Scope.WRITE, tenant="acme")
    reader = await api.client(Scope.READ)
    (await reader("POST", "/links", {"tenant": "acme"})).problem(403)
    (await client("POST", "/links", {})).problem(422, "say which")
    (await client("POST", "/links", {"tenant": "a", "scope": "admin"})).problem(422)
    (await client("POST", "/links", {"tenant": "a", "seconds": 1})).problem(422)
    (await of_acme("POST", "/links", {"tenant": "globex"})).problem(404)
    link = (await of_acme("POST", "/links", {"scope": "write", "seconds": 600})).given(201)
    assert (link["tenant"], link["scope"]) == ("acme", "write")
    somebody = Visitor(api, link["path"].rstrip("/"))
    await somebody.shown("/")
    (
        await (await api.client(Scope.WRITE, tenant="globex"))("DELETE", f"/links/{link['id']}")
    ).problem(404)
    (await of_acme("DELETE", f"/links/{link['id']}")).given(204)
    assert (await somebody.ask("GET", "/")).status == 404
    other = (await of_acme("POST", "/links", {})).given(201)
    somebody = Visitor(api, other["path"].rstrip("/"))
    await somebody.shown("/")
    (token,) = (
        it for it in await list_tokens(api.world.database) if it["id"] in str(of_acme.token)
    )
    await revoke_token(api.world.database, token["id"])
    assert (await somebody.ask("GET", "/")).status == 404
    with pytest.raises(InputRefused):
        await add_link(api.world.database, "acme", scope=Scope.ADMIN)
    with pytest.raises(NotFound):
        await revoke_link(api.world.database, "0" * 12)
    actions = await api.world.rows("select action from aetherflow.audit where action ~ 'link'")
    assert [row["action"] for row in actions] == ["link.add", "link.revoke", "link.add"]


async def test_what_is_done_by_a_link_is_on_record(api: Api) -> None:
    added = await api.world.endpoint(tenant="acme")
    link = await add_link(api.world.database, "acme", scope=Scope.WRITE)
    somebody = Visitor(api, link["path"].rstrip("/"))
    answer = await somebody.send(f"/endpoints/{added['id']}/state", state="paused")
    assert answer.headers["Location"] == f"{somebody.base}/endpoints/{added['id']}?did=paused"
    actor = await api.world.value("select actor from aetherflow.audit order by id desc limit 1")
    assert actor == f"link:{link['id']}"


async def test_a_type_shows_its_versions_and_their_expressions_to_who_may_change_them(
    api: Api,
) -> None:
    await add_version(
        api.world.database, "user.joined", "2024-06-01", "data - 'new'", description="<new>"
    )
    for scope in (Scope.ADMIN, Scope.READ):
        page = await (await visitor(api, scope)).shown("/event-types/user.joined")
        assert "2024-06-01" in page
        assert "&lt;new&gt;" in page
        assert ("data - &#39;new&#39;::text" in page) is (scope is Scope.ADMIN)


async def test_a_page_is_told_live_what_is_its_own(api: Api) -> None:
    world = api.world
    mine, _ = await world.endpoint("/a", tenant="acme"), await world.endpoint("/b", tenant="globex")
    link = await add_link(world.database, "acme")
    timeout = aiohttp.ClientTimeout(total=20)
    async with api._session.get(f"{api.base}{link['path']}live", timeout=timeout) as stream:
        assert stream.content_type == "text/event-stream"
        await world.emit(tenant="globex")
        await world.emit(tenant="acme")
        async for line in stream.content:
            if line.startswith(b"data:"):
                break
    assert mine["id"].encode() in line


async def test_the_search_leads_to_what_was_meant(api: Api) -> None:
    somebody = await visitor(api, Scope.READ)
    for text, place in {
        IDS["endpoint_id"]: f"/endpoints/{IDS['endpoint_id']}",
        IDS["event_id"]: f"/events/{IDS['event_id']}",
        f" {IDS['delivery_id']} ": f"/deliveries/{IDS['delivery_id']}",
        IDS["replay_id"]: f"/replays/{IDS['replay_id']}",
        "503": "/attempts?status=503",
        "5xx": "/attempts?status=5xx",
        "user.joined": "/attempts?type=user.joined",
        "user.*": "/attempts?type=user.*",
        "connection refused": "/attempts?error=connection+refused",
        "": "/attempts",
    }.items():
        answer = await somebody.ask("GET", "/search", params={"q": text})
        assert (answer.status, answer.headers["Location"]) == (303, place)


async def test_people_are_told_what_is_wrong_on_a_page(api: Api) -> None:
    somebody = await visitor(api)
    answer = await somebody.ask("GET", "/endpoints/ep_000000000000")
    assert (answer.status, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")
    assert b"prb_" in answer.body
    program = await somebody.ask("GET", "/endpoints/x", headers={"Accept": "application/json"})
    program.problem(404)


def point(minute: int, delivered: int, failed: int, p50: float | None) -> dict[str, Any]:
    return {
        "starts_at": datetime(2026, 1, 1, 12, minute, tzinfo=UTC),
        "attempts": delivered + failed,
        "delivered": delivered,
        "p50_ms": p50,
        "p95_ms": p50 and p50 * 2,
        "p99_ms": p50 and p50 * 3,
    }


def test_a_chart_shows_each_minute_and_says_what_it_shows() -> None:
    points = [point(0, 30, 10, 5.0), point(1, 0, 0, None), point(2, 50, 0, 10.0)]
    chart = attempts_chart(points, "%H:%M")
    assert chart.told == "90 attempts, of which 10 failed"
    heights = {(box.kind, round(box.height, 3)) for box in chart.boxes}
    full = 150.0  # of the 180, without the margins
    assert heights == {("delivered", 0.6 * full), ("failed", 0.2 * full), ("delivered", full)}
    assert [row.text for row in chart.rows] == ["0", "25", "50"]
    assert [it.text for it in chart.points][1] == "12:01: 0 delivered, 0 failed"
    lines = dict(latency_chart(points, "%H:%M").lines)
    assert lines["p50_ms"].count("M") == 2  # nothing is drawn where nothing is known
    assert latency_chart(points[1:2], "%H:%M").told == "no answers"
    assert latency_chart([], "%H:%M").boxes == []
