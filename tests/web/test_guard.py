"""Who may come in, and what they find: tokens, scopes, tenants, hosts, and what cannot be used."""

import asyncio
import re
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from aetherflow_hooks import Settings, load_config, start_engine
from aetherflow_hooks.errors import ConfigInvalid
from aetherflow_hooks.manage import attempts, deliveries, events
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.web.api import ROUTES
from aetherflow_hooks.web.openapi import PATH as DOCUMENT
from aetherflow_hooks.web.routes import PREFIX, Route
from tests.authority import Authority
from tests.conftest import World
from tests.web.conftest import Api, free_port

IDS = {
    "endpoint_id": "ep_000000000000",
    "event_id": "evt_" + "0" * 24,
    "delivery_id": "dlv_" + "0" * 24 + "_" + "0" * 12,
    "replay_id": "rpl_000000000000",
    "token_id": "0" * 12,
    "link_id": "0" * 12,
    "type": "not.there",
    "version": "not-there",
}
BODIES: dict[str, Any] = {
    "endpoints_add": {"url": "https://example.com/"},
    "endpoints_change": {"burst": 2},
    "endpoints_set_state": {"state": "paused"},
    "endpoints_set_certificate": {"certificate": "x"},
    "event_types_add": {"type": "x.y"},
    "event_types_change": {"deprecated": True},
    "event_types_add_version": {"version": "1", "expression": "data"},
    "events_emit": {"type": "a.b", "data": {}},
    "events_emit_batch": {"events": [{"type": "a.b", "data": {}}]},
    "tokens_add": {"name": "x", "scope": "read"},
    "links_add": {"tenant": "acme"},
    "replays_start": {"only_failed": True},
    "replays_count": {"only_failed": True},
}


# Whoever is let in to a stream hears of it for ever: see test_live.
ENDING = [route for route in ROUTES if not route.is_stream]


def path_of(route: Route, ids: dict[str, str] = IDS) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids[found[1]], route.path).removeprefix(PREFIX)


def body_of(route: Route) -> Any:
    return None if route.body is None else BODIES.get(route.name, {})


async def test_nothing_is_open_without_a_token(api: Api) -> None:
    nobody = api.with_token(None)
    answers = await asyncio.gather(
        *(nobody(route.method, path_of(route), body_of(route)) for route in ROUTES),
        nobody("GET", DOCUMENT.removeprefix(PREFIX)),
    )
    for answer in answers:
        answer.problem(401, "a token is needed")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert len(answers) > 25
    assert await api.world.value("select count(*) from aetherflow.events") == 0


@pytest.mark.parametrize("scope", list(Scope))
async def test_a_token_opens_what_its_scope_says_and_nothing_else(api: Api, scope: Scope) -> None:
    client = await api.client(scope)
    for route in ENDING:
        answer = await client(route.method, path_of(route), body_of(route))
        if scope.covers(route.scope):
            assert answer.status not in (401, 403), (route.name, answer.body)
        else:
            answer.problem(403, f"{route.scope} is needed")


WRONG = {
    "not ASCII": "Authorization: Bearer \udcff",
    "empty": "Authorization: ",
    "no token": "Authorization: Bearer ",
    "long": "Authorization: Bearer " + "x" * 4_000,
    "another scheme": "Authorization: Basic YTpi",
    "unknown": "Authorization: Bearer af_000000000000_" + "A" * 43,
    "a cookie": "Cookie: token=af_000000000000_" + "A" * 43,
}


async def test_wrong_tokens_are_all_answered_alike(api: Api) -> None:
    port = int(api.base.rpartition(":")[2])
    host = f"127.0.0.1:{port}"
    path = f"{PREFIX}/endpoints"
    told = await asyncio.gather(*(ask(port, path, host, header) for header in WRONG.values()))
    answers = dict(zip(WRONG, told, strict=True))
    for name, answer in answers.items():
        assert answer.startswith(b"HTTP/1.1 401 "), name
        assert b"Traceback" not in answer
    bodies = {re.sub(rb"prb_\w+", b"", it.partition(b"\r\n\r\n")[2]) for it in answers.values()}
    assert len(bodies) == 1
    assert b"a token is needed" in bodies.pop()


async def test_two_tokens_are_none(api: Api) -> None:
    client = await api.client()
    nobody = api.with_token(None)
    headers = [("Authorization", f"Bearer {client.token}")] * 2
    async with nobody._session.get(f"{api.base}{PREFIX}/endpoints", headers=headers) as answer:
        assert answer.status == 401


async def test_who_guesses_waits_and_who_knows_does_not(api: Api) -> None:
    client, nobody = await api.client(), api.with_token("af_000000000000_" + "A" * 43)
    loop = asyncio.get_running_loop()
    began = loop.time()
    for _ in range(3):
        (await nobody("GET", "/endpoints")).problem(401)
    assert loop.time() - began >= 0.05 + 0.1 + 0.2
    guesses = [asyncio.create_task(nobody("GET", "/endpoints")) for _ in range(150)]
    await client.get("/endpoints")
    await asyncio.sleep(0)
    statuses = [(await guess).status for guess in guesses]
    assert set(statuses) <= {401, 429}


HOSTS = {
    "127.0.0.1:{port}": True,
    "localhost:{port}": True,
    "LOCALHOST:{port}": True,
    "hooks.example.com": True,
    "hooks.example.com:{port}": True,
    "attacker.example": False,
    "attacker.example:{port}": False,
    "127.0.0.1:1": False,
    "hooks.example.com.attacker.example": False,
    "": False,
}


async def test_only_our_own_names_are_answered(world: World) -> None:
    port = free_port()
    async with world.engine(web={"port": port, "hosts": ["hooks.example.com"]}):
        for host, is_ours in HOSTS.items():
            for target in (f"{PREFIX}/endpoints", "/nothing"):
                answer = await ask(port, target, host.format(port=port))
                assert (b" 421 " not in answer.split(b"\r\n")[0]) is is_ours, host
            assert b" 200 " in await ask(port, "/livez", host.format(port=port))
        target = f"http://attacker.example{PREFIX}/endpoints"
        absolute = await ask(port, target, f"127.0.0.1:{port}")
        assert b" 421 " in absolute.split(b"\r\n")[0]


async def ask(port: int, target: str, host: str, *headers: str) -> bytes:
    """Send a request as it is written here."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    writer.write("\r\n".join(lines).encode("utf-8", "surrogateescape"))
    answer = await reader.read()
    writer.close()
    return answer


async def test_every_answer_tells_browsers_to_keep_off(api: Api) -> None:
    client, nobody = await api.client(), api.with_token(None)
    answers = [
        await client("GET", "/endpoints"),
        await client("GET", "/nothing"),
        await client("DELETE", "/endpoints"),
        await client("POST", "/endpoints", raw=b"{"),
        await nobody("GET", "/endpoints"),
        await nobody("GET", "///livez"),
    ]
    assert [answer.status for answer in answers] == [200, 404, 405, 400, 401, 404]
    for answer in answers:
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'")
        assert "unsafe" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Server"] == "AetherFlow-Hooks"
        assert not any(name.startswith("Access-Control") for name in answer.headers)
    assert answers[2].headers["Allow"] == "GET,POST"


async def test_what_is_no_http_is_refused_alike_and_not_logged(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    port = int(api.base.rpartition(":")[2])
    host = f"127.0.0.1:{port}"
    for answer in (
        await ask(port, "/livez?canary=" + "x" * 9_000, host),
        await ask(port, "/livez", host, "X-Canary: a\0b"),
        await ask(port, "/livez", host, "canary"),
    ):
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.split(b" ")[1] == b"400"
        assert b"application/problem+json" in head
        assert b"nosniff" in head
        assert b"canary" not in body.lower()
    assert "canary" not in caplog.text.lower()


# Tenants.


async def things_of(api: Api, tenant: str) -> dict[str, str]:
    """Make one of everything that is of a tenant, and give the ids."""
    client = await api.client(Scope.WRITE, tenant)
    url = api.world.receiver.url(f"/{tenant}")
    endpoint = (await client("POST", "/endpoints", {"url": url})).given(201)
    event = (await client("POST", "/events", {"type": "a.b", "data": {"of": tenant}})).given(201)
    await api.world.settled()
    replay = (await client("POST", "/replays", {"endpoint_id": endpoint["id"]})).given(201)
    link = (await client("POST", "/links", {})).given(201)
    return {
        "endpoint_id": endpoint["id"],
        "event_id": event["id"],
        "delivery_id": delivery_id(event["id"], endpoint["id"]),
        "replay_id": replay["id"],
        "token_id": "0" * 12,
        "link_id": link["id"],
        "type": "not.there",
    }


async def test_a_tenants_token_finds_nothing_of_another(api: Api) -> None:
    """Over every route: case 76."""
    ours, theirs = await things_of(api, "ours"), await things_of(api, "theirs")
    client = await api.client(Scope.WRITE, "ours")
    before = await api.world.value("select count(*) from aetherflow.audit")
    asked = 0
    for route in ENDING:
        if route.scope is Scope.ADMIN:
            continue
        if route.parameters:
            answer = await client(route.method, path_of(route, theirs), body_of(route))
            problem = answer.problem(404, theirs[route.parameters[0]])
            unknown = await client(route.method, path_of(route), body_of(route))
            assert unknown.problem(404)["title"] == problem["title"]
            asked += 1
        elif route.query is not None and "tenant" in route.query.model_fields:
            for query in ({}, {"tenant": "ours"}):
                answer = await client("GET", path_of(route), params=query)
                told = answer.given()
                assert told.get("items", told) or route.name == "deliveries_list"
                for text in (*theirs.values(), "theirs"):
                    assert text == theirs["token_id"] or text.encode() not in answer.body
            (await client("GET", path_of(route), params={"tenant": "theirs"})).problem(404)
            asked += 1
    assert asked >= 20
    for path, body in (
        ("/endpoints", {"url": "https://example.com", "tenant": "theirs"}),
        ("/events", {"type": "a.b", "data": {}, "tenant": "theirs"}),
        ("/events", {"type": "a.b", "data": {}, "tenant": ""}),
        ("/event-batches", {"events": [{"type": "a.b", "data": {}, "tenant": "theirs"}]}),
        ("/replays", {"only_failed": True, "tenant": "theirs"}),
        ("/replays", {"endpoint_id": theirs["endpoint_id"]}),
        ("/replay-counts", {"endpoint_id": theirs["endpoint_id"]}),
    ):
        (await client("POST", path, body)).problem(404)
    assert (
        await client("GET", "/attempts", params={"endpoint_id": theirs["endpoint_id"]})
    ).given()["items"] == []
    assert (
        await client("GET", "/deliveries", params={"endpoint_id": theirs["endpoint_id"]})
    ).given()["items"] == []
    assert await api.world.value("select count(*) from aetherflow.audit") == before
    everything = await api.client(Scope.READ)
    for kind, name in (("endpoints", "endpoint_id"), ("events", "event_id")):
        for things in (ours, theirs):
            await everything.get(f"/{kind}/{things[name]}")


async def test_a_tenants_token_is_given_nothing_of_another(api: Api) -> None:
    """Over every route that is about one endpoint and has it in its query."""
    client, owner = await api.client(Scope.WRITE, "ours"), await api.client(Scope.WRITE, "theirs")
    posted = (await things_of(api, "theirs"))["endpoint_id"]
    polled = (await owner("POST", "/endpoints", {"polled": True})).given(201)["id"]
    asked = 0
    for route in ENDING:
        field = route.query and route.query.model_fields.get("endpoint_id")
        if not field or not field.is_required():
            continue
        for endpoint_id in (posted, polled, IDS["endpoint_id"]):
            query = {"endpoint_id": endpoint_id}
            answer = await client(route.method, path_of(route), params=query)
            answer.problem(404, f"there is no endpoint {endpoint_id}")
            asked += 1
    assert asked >= 3


async def test_no_place_in_a_list_tells_of_another_tenant(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a look ends among others' things, no more is told of it than the time."""
    for module in (attempts, deliveries, events):
        monkeypatch.setattr(module, "LOOKED_MAX", 2)
    mine = await api.world.endpoint("/mine", "500", tenant="ours", retry_schedule_seconds=[])
    await api.world.endpoint("/theirs", "500", tenant="theirs", retry_schedule_seconds=[])
    for tenant in ("ours", *["theirs"] * 5, "ours", *["theirs"] * 4):
        await api.world.emit(tenant=tenant)
        await api.world.settled()
    client = await api.client(Scope.READ, "ours")
    own = {
        row["id"]
        for row in await api.world.rows("select id from aetherflow.events where tenant = 'ours'")
    }
    for path, query in (
        ("/attempts", {}),
        ("/attempts", {"only_failed": "true"}),
        ("/deliveries", {"state": "dead"}),
        ("/events", {}),
    ):
        found: list[str] = []
        before: dict[str, str] = {}
        pages = 0
        while pages < 50:
            page = await client.get(path, **query, **before)
            found += [row.get("event_id", row["id"]) for row in page["items"]]
            pages += 1
            if page["before"] is None:
                break
            before = {"before": page["before"]}
            for text in re.findall("[0-9a-f]{24}", page["before"]):
                assert f"evt_{text}" in own or text.endswith("f" * 11)
            for text in re.findall("_([0-9a-f]{12})(?:_|$)", page["before"]):
                assert f"ep_{text}" in (mine["id"], "ep_" + "f" * 12)
        assert sorted(found) == sorted(own), path
    theirs = await api.world.value("select id from aetherflow.endpoints where tenant = 'theirs'")
    assert (await client.get("/status", after=theirs))["items"] == []


async def test_who_counts_or_waits_keeps_nobody_else_waiting(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    port = int(api.base.rpartition(":")[2])
    endpoint = await api.world.endpoint("/a")
    async with api.world.connection.transaction():
        await api.world.connection.execute(
            "select from aetherflow.endpoints where id = $1 for update", endpoint["id"]
        )
        path = f"/endpoints/{endpoint['id']}/state"
        waiting = [asyncio.create_task(client("PUT", path, {"state": "paused"})) for _ in range(6)]
        await asyncio.sleep(0.3)
        loop = asyncio.get_running_loop()
        began = loop.time()
        assert b" 200 " in await ask(port, "/readyz", f"127.0.0.1:{port}")
        (await api.with_token("af_x")("GET", "/endpoints")).problem(401)
        assert loop.time() - began < 2
        statuses = {(await task).status for task in waiting}
    assert statuses <= {503, 200}
    asked = {"only_failed": True}
    counted = await asyncio.gather(*(client("POST", "/replay-counts", asked) for _ in range(20)))
    assert {answer.status for answer in counted} <= {200, 429}


async def test_batches_with_the_same_keys_do_not_wait_for_each_other(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    batch = [{"type": "a.b", "data": {}, "idempotency_key": f"k{n}"} for n in range(60)]
    for _ in range(3):
        one, other = await asyncio.gather(
            client("POST", "/event-batches", {"events": batch}),
            client("POST", "/event-batches", {"events": batch[::-1]}),
        )
        assert one.given(201)["ids"] == other.given(201)["ids"][::-1]
        batch = [{**it, "idempotency_key": f"x{it['idempotency_key']}"} for it in batch]


# What cannot be used.


UNUSABLE: list[tuple[str, str, bytes | None, int, str]] = [
    ("POST", "/endpoints", b"", 400, "no JSON"),
    ("POST", "/endpoints", b"[1", 400, "no JSON"),
    ("POST", "/endpoints", b"[]", 422, "body"),
    ("POST", "/endpoints", b"{}", 422, "has a URL"),
    ("POST", "/endpoints", b'{"url": ""}', 422, "body.url"),
    ("POST", "/endpoints", b'{"url": null}', 422, "has a URL"),
    ("GET", "/poll", None, 422, "query.endpoint_id"),
    ("POST", "/endpoints", b'{"url": "https://example.com", "burst": "5"}', 422, "body.burst"),
    ("POST", "/endpoints", b'{"url": "https://example.com", "x": 1}', 422, "body.x"),
    ("POST", "/endpoints", b'{"url": "ftp://example.com"}', 422, "https://"),
    (
        "POST",
        "/endpoints",
        b'{"url": "https://example.com", "rate_per_second": NaN}',
        422,
        "finite",
    ),
    ("POST", "/events", b'{"type": "a b", "data": {}}', 422, "body.type"),
    ("POST", "/events", b'{"type": "a.b", "data": []}', 422, "body.data"),
    ("POST", "/events", b'{"type": "a.b", "data": {"a": "\\u0000"}}', 422, "u0000"),
    ("POST", "/events", b'{"type": "a.b", "data": {}, "deliver_at": "soon"}', 422, "body."),
    ("POST", "/event-batches", b'{"events": []}', 422, "body.events"),
    ("POST", "/tokens", b'{"name": "", "scope": "read"}', 422, "body.name"),
    ("POST", "/tokens", b'{"name": "x", "scope": "all"}', 422, "body.scope"),
    ("GET", "/endpoints?limit=0", None, 422, "query.limit"),
    ("GET", "/events?limit=0", None, 422, "query.limit"),
    ("GET", "/events?limit=1&limit=2", None, 422, "twice"),
    ("GET", "/events?before=x", None, 404, "event x"),
    ("GET", "/attempts?before=%00", None, 422, "no place"),
    ("GET", "/attempts?status=abc", None, 422, "query.status"),
    ("GET", "/attempts?since=yesterday", None, 422, "query.since"),
    ("GET", "/attempts?since=0.5", None, 422, "2026-01-31T12:00:00Z"),
    ("GET", "/attempts?since=2026-01-31T00:00:00", None, 422, "query.since"),
    ("GET", "/deliveries?state=lost", None, 422, "query.state"),
    ("GET", "/tokens?x=1", None, 422, "nothing to ask for"),
    ("GET", "/endpoints/ep_%27;drop%20table", None, 404, "ep_"),
    ("GET", "/nothing", None, 404, "nothing at this path"),
    ("PUT", "/endpoints", b"{}", 405, "method"),
]


async def test_what_cannot_be_used_is_refused_with_the_reason(api: Api) -> None:
    client = await api.client()
    for method, path, raw, status, told in UNUSABLE:
        problem = (await client(method, path, raw=raw)).problem(status, told)
        inside = re.search(r"Traceback|select |asyncpg|pydantic|/aetherflow_hooks/", str(problem))
        assert not inside, (path, problem)
    (await client("GET", "/attempts?error=%ff%fe")).given()


async def test_a_body_that_is_no_json_or_too_large_is_refused(world: World) -> None:
    port = free_port()
    async with (
        world.engine(web={"port": port}, emit={"data_max_bytes": 8192}),
        aiohttp.ClientSession() as session,
    ):
        client = await Api(world, session, port).client()
        body = {"type": "a.b", "data": {"a": "x" * 9_000}}
        (await client("POST", "/events", body)).problem(422, "8192")
        huge = {"type": "a.b", "data": {"a": "x" * 200_000}}
        (await client("POST", "/events", huge)).problem(413, "too large")
        text = {"Content-Type": "text/plain"}
        (await client("POST", "/events", raw=b"{}", headers=text)).problem(415)


async def test_what_is_asked_for_is_never_sql(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    for text in ("'; drop table x; --", "%", "\\", '"', "${x}", "<script>", "é"):
        for route in ENDING:
            if route.query is None or route.parameters or route.scope is Scope.ADMIN:
                continue
            for name in route.query.model_fields:
                answer = await client("GET", path_of(route), params={name: text})
                assert answer.status in (200, 404, 422), (route.name, name, answer.body)


# Whether it is well, and how it is set up.


async def test_health_is_told_without_a_token(api: Api) -> None:
    port = int(api.base.rpartition(":")[2])
    for target in ("/livez", "/readyz"):
        answer = await ask(port, target, f"127.0.0.1:{port}")
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"ok\n")


async def test_a_database_that_was_restored_is_not_ready_and_says_why(world: World) -> None:
    port = free_port()
    settings = world.settings(web={"port": port})
    async with start_engine(settings, restored=True):
        answer = await ask(port, "/readyz", f"127.0.0.1:{port}")
        assert b" 503 " in answer
        assert b"restore accept" in answer
        assert b" 200 " in await ask(port, "/livez", f"127.0.0.1:{port}")


async def test_a_port_that_is_taken_is_one_clear_error(world: World) -> None:
    port = free_port()
    async with world.engine(web={"port": port}):
        with pytest.raises(ConfigInvalid, match="nothing can listen there"):
            await start_engine(world.settings(web={"port": port}))


async def test_it_speaks_tls_where_it_has_a_certificate(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    port = free_port()
    web = {"port": port, "certificate_file": str(authority.issue("localhost", "127.0.0.1"))}
    trusting = ssl.create_default_context(cafile=authority.file)
    async with world.engine(web=web), aiohttp.ClientSession() as session:
        url = f"https://localhost:{port}/livez"
        async with session.get(url, ssl=trusting) as answer:
            assert await answer.text() == "ok\n"
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(url)
        with pytest.raises(aiohttp.ClientError):
            await session.get(url.replace("https", "http"))
    for wrong in (tmp_path / "none.pem", tmp_path / "empty.pem"):
        (tmp_path / "empty.pem").write_text("")
        with pytest.raises(ConfigInvalid, match=r"web\.certificate_file cannot be used"):
            await start_engine(world.settings(web={"port": port, "certificate_file": str(wrong)}))


@pytest.mark.parametrize(
    ("web", "is_right"),
    [
        ({"host": "127.0.0.1", "port": 1}, True),
        ({"host": "::1", "port": 1}, True),
        ({"host": "localhost", "port": 1}, True),
        ({"host": "0.0.0.0", "port": 0}, True),
        ({"host": "0.0.0.0", "port": 1}, False),
        ({"host": "::", "port": 1}, False),
        ({"host": "10.0.0.1", "port": 1, "behind_proxy": True}, True),
        ({"host": "10.0.0.1", "port": 1, "certificate_file": "x.pem"}, True),
        ({"host": "example.com", "port": 1}, False),
    ],
)
def test_tokens_do_not_go_over_a_network_in_the_clear(web: dict[str, Any], is_right: bool) -> None:
    def load() -> Settings:
        return load_config(None, environment={}, given={"web": web})

    if is_right:
        load()
    else:
        with pytest.raises(ConfigInvalid, match=r"web\.host"):
            load()
