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
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.web.dashboard.charts import attempts_chart, latency_chart
from aetherflow_hooks.web.dashboard.pages import PAGES
from aetherflow_hooks.web.dashboard.visits import Page
from tests.web.conftest import Answered, Api, free_port
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
    assert somebody.cookie.rpartition("_")[2] not in stored
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
    "an old browser on another page": {"Origin": "https://elsewhere.example"},
    "nobody says": {},
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
    own_origin = {"Origin": api.base}
    data = {"csrf": somebody.csrf, "state": "active"}
    path = f"/endpoints/{added['id']}/state"
    assert (await somebody.ask("POST", path, data=data, headers=own_origin)).status == 303


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
    for path in (*(path_of(page) for page in GET), "/login", "/nothing", "/static/dashboard.js"):
        answer = await somebody.ask("GET", path)
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        is_static = path.startswith("/static/")
        assert (answer.headers["Cache-Control"] == "no-store") is not is_static
        page = answer.body.decode()
        if not is_static:
            assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page), path


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


async def test_what_was_typed_stays_when_it_cannot_be_used(api: Api) -> None:
    somebody = await visitor(api)
    for path, form, told in (
        (
            "/endpoints/new",
            {"url": "https://example.com/", "events": "a b!", "burst": "0"},
            "burst",
        ),
        (
            "/endpoints/new",
            {"url": "https://example.com/", "events": "*", "headers": "x"},
            "Name: value",
        ),
        (
            "/endpoints/new",
            {"url": "https://example.com/", "events": "*", "metadata": "[]"},
            "no object",
        ),
        (
            "/endpoints/new",
            {"url": "https://example.com/", "events": "*", "retry_schedule_seconds": "1,x"},
            "seconds such as",
        ),
        ("/events/new", {"type": "a.b", "data": "{"}, "no JSON"),
        ("/events/new", {"type": "a b", "data": "{}"}, "type"),
        ("/event-types/new", {"type": "x.y", "schema": "{"}, "schema"),
        ("/replays/new", {"since": "yesterday", "only_failed": "yes"}, "since"),
        ("/tokens", {"name": "x", "scope": "read", "expires_at": "2001-01-01T00:00"}, "expired"),
    ):
        answer = await somebody.send(path, **form)
        page = answer.body.decode()
        assert answer.status == 422, (path, page)
        alert = re.search(r'role="alert">(.*?)</p>', page, re.DOTALL)
        assert alert, (path, form)
        assert told in alert[1], alert[1]
        for typed in form.values():
            assert typed.replace("<", "&lt;").replace('"', "&#34;") in page, (path, typed)


async def test_an_endpoint_is_all_that_a_form_said(api: Api) -> None:
    somebody, client = await visitor(api), await api.client()
    form = {
        "url": "https://example.com/hook",
        "events": "user.*, workflow.failed",
        "description": "for <people>",
        "tenant": "acme",
        "filter": "$.amount > 100",
        "rate_per_second": "2.5",
        "burst": "3",
        "max_in_flight": "4",
        "timeout_seconds": "5",
        "retry_schedule_seconds": "1, 2.5",
        "ordering": "skip",
        "labels": "gold eu",
        "channels": "eu, us",
        "headers": "Authorization: Bearer abc\r\nX-One: 1",
        "metadata": '{"seats": 12}',
        "secret": "a secret of our own",
    }
    page = (await somebody.send("/endpoints/new", **form)).body.decode()
    assert "a secret of our own" in page
    (added,) = (await client.get("/endpoints"))["items"]
    assert (added["events"], added["labels"]) == (["user.*", "workflow.failed"], ["gold", "eu"])
    assert added["channels"] == ["eu", "us"]
    assert (added["rate_per_second"], added["burst"], added["max_in_flight"]) == (2.5, 3, 4)
    assert (added["timeout_seconds"], added["retry_schedule_seconds"]) == (5, [1, 2.5])
    assert (added["ordering"], added["tenant"], added["metadata"]) == (
        "skip",
        "acme",
        {"seats": 12},
    )
    assert sorted(added["headers"]) == ["Authorization", "X-One"]
    place = f"/endpoints/{added['id']}"
    # What the form shows is what is there: sent as it is, it changes nothing.
    edit = await somebody.shown(f"{place}/edit")
    fields = dict(re.findall(r'name="(\w+)"[^>]*?value="([^"]*)"', edit))
    fields |= dict(re.findall(r'<textarea id="(\w+)".*?>\n(.*?)</textarea>', edit, re.DOTALL))
    fields["ordering"] = "skip"
    typed = {
        name: text.replace("&#34;", '"').replace("&lt;", "<").replace("&gt;", ">")
        for name, text in fields.items()
        if name != "q"
    }
    assert (await somebody.send(f"{place}/edit", **typed)).status == 303
    same = await client.get(place)
    assert {**same, "version": 0, "updated_at": 0} == {
        **{name: it for name, it in added.items() if name != "secret"},
        "version": 0,
        "updated_at": 0,
    }
    typed |= {"version": str(same["version"]), "filter": "", "rate_per_second": "", "labels": ""}
    typed |= {"headers_gone": "X-One", "headers": "X-Two: 2"}
    assert (await somebody.send(f"{place}/edit", **typed)).status == 303
    changed = await client.get(place)
    assert (changed["filter"], changed["rate_per_second"], changed["labels"]) == (None, None, [])
    assert sorted(changed["headers"]) == ["Authorization", "X-Two"]
    again = await somebody.send(f"{place}/edit", **typed)  # the version is an old one by now
    assert again.status == 422
    assert b"has been changed meanwhile" in again.body


async def test_the_data_of_an_event_goes_out_byte_for_byte(api: Api) -> None:
    somebody = await visitor(api)
    data = '{"b": 1.0,\r\n "a":  12345678901234567890123, "c": "\\u00e9"}'
    answer = await somebody.send("/events/new", type="a.b", data=data)
    place = answer.headers["Location"].partition("?")[0]
    raw = await somebody.ask("GET", f"{place}/data")
    assert raw.body.decode() == data.replace("\r\n", "\n")
    assert raw.headers["Content-Type"] == "application/octet-stream"
    assert raw.headers["Content-Disposition"].startswith("attachment; ")


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
