"""Everything by the API, against a running engine: as a program uses it."""

import asyncio
from typing import Any

from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.receive.signatures import verify
from aetherflow_hooks.web.shapes import EndpointChangeShape
from tests.web.conftest import Api, Client


async def all_pages(client: Client, path: str, **query: Any) -> list[dict[str, Any]]:
    """Turn all the pages of a list."""
    rows: list[dict[str, Any]] = []
    while True:
        page = await client.get(path, limit=2, **query)
        rows += page["items"]
        if page["before"] is None:
            return rows
        query["before"] = page["before"]


async def test_an_endpoint_lives_from_the_first_event_to_the_last(api: Api) -> None:
    receiver, client = api.world.receiver, await api.client(Scope.WRITE)
    body = {
        "url": receiver.url("/a"),
        "events": ["user.*"],
        "description": "ours",
        "headers": {"X-Team": "canary"},
        "retry_schedule_seconds": [0.01],
        "filter": "$.user.f == 1",
        "labels": ["gold"],
        "metadata": {"account": 7, "name": "x"},
    }
    answer = await client("POST", "/endpoints", body)
    added = answer.given(201)
    path = f"/endpoints/{added['id']}"
    assert added["secret"].startswith("whsec_")
    shown = await client.get(path)
    assert shown == {name: value for name, value in added.items() if name != "secret"}
    assert (shown["events"], shown["headers"], shown["state"]) == (["user.*"], ["X-Team"], "active")
    assert (shown["labels"], shown["metadata"]) == (["gold"], {"account": 7, "name": "x"})
    assert (await client.get("/endpoints", label="gold"))["items"] == [shown]
    assert (await client.get("/endpoints", label="silver"))["items"] == []
    wrong = {"filter": "$.user like_regex 'x'"}
    (await client("PATCH", path, wrong)).problem(422, "filter")

    data = '{"user": {"n": 12345678901234567890123, "f": 1.0,  "e": "\\u00e9"}}'
    raw = f'{{"type": "user.joined", "data": {data}, "idempotency_key": "k"}}'.encode()
    event = (await client("POST", "/events", raw=raw)).given(201)
    assert (await client("POST", "/events", raw=raw)).given(201) == event
    (request,) = await receiver.wait_for(1)
    assert request.body.endswith(f'"data":{data}}}'.encode())
    assert verify(request.body, request.headers, added["secret"]) == event["id"]
    await api.world.settled()
    found = await client.get(f"/events/{event['id']}")
    assert (found["data"], found["is_fanned_out"]) == (data, True)
    (delivery,) = found["deliveries"]
    assert (delivery["state"], delivery["last_status"]) == ("delivered", 200)
    history = (await client.get(f"/deliveries/{delivery['id']}"))["history"]
    assert [(it["attempt"], it["verdict"]) for it in history] == [(1, "delivered")]

    changed = (
        await client("PATCH", path, {"rate_per_second": 50, "headers": {"X-Team": None}})
    ).given()
    assert (changed["rate_per_second"], changed["headers"]) == (50, [])
    assert changed["version"] > shown["version"]
    stale = {"version": shown["version"], "description": "x"}
    (await client("PATCH", path, stale)).problem(422, "has been changed meanwhile")
    (await client("PATCH", path, {"rate_per_second": None})).given()
    assert (await client.get(path))["rate_per_second"] is None

    rotated = (await client("POST", f"{path}/rotate-secret", {"leads": False})).given()
    (await client("POST", f"{path}/promote-secret", {"overlap_seconds": 0})).given(204)
    tried = (await client("POST", f"{path}/test", {"data": {"n": 1}})).given()
    assert (tried["status"], tried["error"], tried["trigger"]) == (200, None, "test")
    assert tried["request"]["body"].endswith('"data":{"n":1}}')
    request = receiver.received[-1]
    assert verify(request.body, request.headers, rotated["secret"])

    for state in ("paused", "disabled", "active"):
        assert (await client("PUT", f"{path}/state", {"state": state})).given()["state"] == state
    (await client("DELETE", path)).given(204)
    (await client("GET", path)).problem(404, added["id"])
    assert (await client.get("/attempts", endpoint_id=added["id"]))["items"]


async def test_what_fails_is_found_sent_again_and_replayed(api: Api) -> None:
    receiver, client = api.world.receiver, await api.client(Scope.WRITE)
    url = receiver.url("/a", "500;body=<b>no,500,500,500,200")
    body = {"url": url, "retry_schedule_seconds": "none", "max_in_flight": 1}
    endpoint = (await client("POST", "/endpoints", body)).given(201)
    batch = {"events": [{"type": "a.b", "data": {"n": n}} for n in range(4)]}
    ids = (await client("POST", "/event-batches", batch)).given(201)["ids"]
    assert ids == sorted(ids)
    await api.world.settled()
    failed = await all_pages(client, "/attempts", only_failed="true", status="5xx")
    assert {it["event_id"] for it in failed} == set(ids)
    assert {it["error"] for it in failed} == {"answered 500"}
    dead = await all_pages(client, "/deliveries", state="dead", endpoint_id=endpoint["id"])
    assert {it["reason"] for it in dead} == {"exhausted"}
    shown = await client.get(f"/deliveries/{dead[-1]['id']}")
    assert "<b>no" in {it["response"] for it in shown["history"]} | {"<b>no"}

    first = dead.pop()["id"]
    (await client("POST", f"/deliveries/{first}/retry")).given(204)
    await receiver.wait_for(5)
    await api.world.settled()
    asked = {"only_failed": True, "endpoint_id": endpoint["id"]}
    counted = (await client("POST", "/replay-counts", asked)).given()
    assert counted == {"deliveries": 3, "endpoints": 1, "is_whole": True}
    replay = (await client("POST", "/replays", asked)).given(201)
    await api.world.until("select state = 'done' from aetherflow.replays")
    await api.world.settled()
    shown = await client.get(f"/replays/{replay['id']}")
    assert (shown["state"], shown["made"]) == ("done", 3)
    assert [it["id"] for it in (await client.get("/replays"))["items"]] == [replay["id"]]
    delivered = await all_pages(client, "/deliveries", state="delivered")
    assert {it["event_id"] for it in delivered} == set(ids)
    (await client("POST", f"/replays/{replay['id']}/cancel")).problem(404, "running replay")
    (await client("POST", f"/deliveries/{first}/cancel")).problem(404, "waiting delivery")


async def test_events_are_listed_scheduled_and_expunged(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    body = {"type": "a.b", "data": {"name": "canary"}, "deliver_at": "2026-12-31T00:00:00Z"}
    later = {
        **body,
        "deliver_at": (await api.world.value("select now() + interval '1 hour'")).isoformat(),
    }
    ids = [(await client("POST", "/events", it)).given(201)["id"] for it in (later, later, later)]
    rows = await all_pages(client, "/events", type="a.*")
    assert [row["id"] for row in rows] == ids[::-1]
    assert rows[0]["deliver_at"] is not None
    (await client("DELETE", f"/events/{ids[0]}/data")).given(204)
    shown = await client.get(f"/events/{ids[0]}")
    assert (shown["data"], shown["type"]) == (None, "a.b")
    assert (await client("GET", f"/events/{ids[0]}")).body.find(b"canary") < 0


async def test_null_asks_for_the_setting_and_otherwise_for_nothing(api: Api) -> None:
    client = await api.client()
    falling_back = {
        "rate_per_second": 50.0,
        "max_in_flight": 3,
        "timeout_seconds": 7.0,
        "retry_schedule_seconds": [1.0, 2.0],
        "filter": '($."n" == 1)',
        "payload_version": "1",
    }
    staying = {
        "url": api.world.receiver.url("/a"),
        "events": ["a.*"],
        "description": "x",
        "burst": 2,
        "channels": ["eu"],
        "traced": True,
        "labels": ["gold"],
        "metadata": {"a": 1},
    }
    asked = {**falling_back, **staying, "headers": {"X-Team": "a"}}
    assert {*asked, "ordering", "version"} == set(EndpointChangeShape.model_fields)
    added = (await client("POST", "/endpoints", asked)).given(201)
    for name, value in {**falling_back, **staying}.items():
        assert added[name] == value
    path = f"/endpoints/{added['id']}"
    for name in asked:
        (await client("PATCH", path, {name: None})).given()
    shown = await client.get(path)
    assert {name: shown[name] for name in staying} == staying
    assert shown["headers"] == ["X-Team"]
    plain = (await client("POST", "/endpoints", {"url": staying["url"]})).given(201)
    assert {name: shown[name] for name in falling_back} == {
        name: plain[name] for name in falling_back
    }


async def test_the_api_takes_and_tells_channels(api: Api) -> None:
    client, receiver = await api.client(), api.world.receiver
    body = {"url": receiver.url("/eu"), "channels": ["eu", "asia"]}
    added = (await client("POST", "/endpoints", body)).given(201)
    other = (await client("POST", "/endpoints", {"url": receiver.url("/us")})).given(201)
    assert (added["channels"], other["channels"]) == (["eu", "asia"], [])
    path = f"/endpoints/{other['id']}"
    assert (await client("PATCH", path, {"channels": ["us"]})).given()["channels"] == ["us"]
    assert (await client("PATCH", path, {"channels": None})).given()["channels"] == ["us"]

    one = (await client("POST", "/events", {"type": "one", "data": {}, "channels": ["eu"]})).given(
        201
    )["id"]
    batch = [{"type": f"of.{n}", "data": {}, "channels": [n]} for n in ("us", "asia", "none")]
    batch.append({"type": "without", "data": {}})
    ids = (await client("POST", "/event-batches", {"events": batch})).given(201)["ids"]
    await api.world.settled()
    for at, expected in (("/eu", ["of.asia", "one"]), ("/us", ["of.us"])):
        came = [request.headers["x-aetherflow-event"] for request in receiver.at(at)]
        assert sorted(came) == expected
    assert (await client.get(f"/events/{one}"))["channels"] == ["eu"]
    rows = (await client.get("/events"))["items"]
    assert {row["id"]: row["channels"] for row in rows} == {
        one: ["eu"],
        **dict(zip(ids, (["us"], ["asia"], ["none"], []), strict=True)),
    }
    assert [it["id"] for it in (await client.get("/events", channel="us"))["items"]] == ids[:1]
    assert (await client("PATCH", path, {"channels": []})).given()["channels"] == []

    for bad in (["a b"], "eu", [1], [f"c{n}" for n in range(21)]):
        (await client("POST", "/endpoints", {**body, "channels": bad})).problem(422, "channels")
        (await client("PATCH", path, {"channels": bad})).problem(422, "channels")
        event: dict[str, Any] = {"type": "a.b", "data": {}, "channels": bad}
        (await client("POST", "/events", event)).problem(422, "channels")
    (await client("GET", "/events", params={"channel": "a b"})).problem(422, "channel")


async def test_tokens_are_made_and_revoked_and_changes_told(api: Api) -> None:
    admin = await api.client()
    made = (await admin("POST", "/tokens", {"name": "ci", "scope": "read"})).given(201)
    reader = api.with_token(made["token"])
    assert await reader.get("/endpoints") == {"items": [], "before": None}
    (await admin("DELETE", f"/tokens/{made['id']}")).given(204)
    (await reader("GET", "/endpoints")).problem(401)
    listed = (await admin.get("/tokens"))["items"]
    assert [it["state"] for it in listed] == ["active", "revoked"]
    changes = (await admin.get("/changes", subject=made["id"]))["items"]
    assert [it["action"] for it in changes] == ["token.revoke", "token.add"]
    assert {it["actor"] for it in changes} == {f"token:{listed[0]['id']}"}
    assert len(await all_pages(admin, "/changes")) == 3


async def test_many_ask_at_once_and_none_waits_for_the_others(api: Api) -> None:
    client = await api.client(Scope.WRITE)
    answers = await asyncio.gather(
        *(client("POST", "/events", {"type": "a.b", "data": {"n": n}}) for n in range(100))
    )
    assert {answer.status for answer in answers} == {201}
    assert await api.world.value("select count(*) from aetherflow.events") == 100


async def test_the_catalogue_is_shown_and_an_application_adds_to_it(api: Api) -> None:
    admin, reader = await api.client(), await api.client(Scope.READ)
    types = (await reader.get("/event-types"))["items"]
    assert len(types) == 12
    assert all(it["is_built_in"] and it["has_schema"] for it in types)
    new = {"type": "order.paid", "schema": '{"required": ["amount"]}', "example": '{"amount": 1}'}
    added = (await admin("POST", "/event-types", new)).given(201)
    assert (added["schema"], added["is_built_in"]) == (new["schema"], False)
    assert await reader.get("/event-types/order.paid") == added
    event = {"type": "order.paid", "data": {}, "validate": True}
    (await admin("POST", "/events", event)).problem(422, '$ lacks "amount"')
    (await admin("POST", "/events", {**event, "data": {"amount": 2}})).given(201)
    (await admin("POST", "/event-types", new)).problem(422, "registered already")
    path = "/event-types/order.paid"
    changed = (await admin("PATCH", path, {"schema": None, "deprecated": True})).given()
    assert (changed["schema"], changed["deprecated_at"] is None) == (None, False)
    query = {"deprecated": "true"}
    assert [it["type"] for it in (await reader.get("/event-types", **query))["items"]] == [
        "order.paid"
    ]
    (await admin("PATCH", "/event-types/user.joined", {"description": "x"})).problem(422, "no more")
    (await admin("DELETE", path)).given(204)
    (await admin("GET", path)).problem(404, "order.paid")


async def test_the_api_registers_versions_and_endpoints_ask_for_them(api: Api) -> None:
    admin, reader = await api.client(), await api.client(Scope.READ)
    (await admin("POST", "/event-types", {"type": "order.paid", "example": '{"n": 1}'})).given(201)
    path = "/event-types/order.paid/versions"
    assert (await reader.get(path))["items"] == []
    new = {"version": "2024-06-01", "expression": "data - 'n'", "description": "n is new."}
    added = (await admin("POST", path, new)).given(201)
    assert (added.pop("made"), added["expression"]) == ("{}", "(data - 'n'::text)")
    assert (await reader.get(path))["items"] == [added]
    assert (await reader.get("/event-types/order.paid"))["versions"] == ["2024-06-01"]
    (await admin("POST", path, new)).problem(422, "already")
    for bad in ("now()::text::jsonb", "data; x", ""):
        (await admin("POST", path, {**new, "version": "x", "expression": bad})).problem(422)
    (await admin("POST", "/event-types/not.there/versions", new)).problem(404, "not.there")

    body = {"url": api.world.receiver.url("/old"), "payload_version": "2024-01-01"}
    endpoint = (await admin("POST", "/endpoints", body)).given(201)
    assert endpoint["payload_version"] == "2024-01-01"
    tried = (
        await admin(
            "POST", f"/endpoints/{endpoint['id']}/test", {"type": "order.paid", "data": {"n": 1}}
        )
    ).given()
    assert tried["request"]["body"].endswith('"data":{}}')
    event = {"type": "order.paid", "data": {"n": 1, "m": 2}}
    event_id = (await admin("POST", "/events", event)).given(201)["id"]
    await api.world.settled()
    assert api.world.receiver.at("/old")[-1].body.endswith(b'"data":{"m": 2}}')
    delivery = await reader.get(f"/deliveries/dlv_{event_id[4:]}_{endpoint['id'][3:]}")
    assert delivery["request"]["body"].encode() == api.world.receiver.at("/old")[-1].body
    own = f"/endpoints/{endpoint['id']}"
    assert (await admin("PATCH", own, {"burst": 2})).given()["payload_version"] == "2024-01-01"
    changed = (await admin("PATCH", own, {"payload_version": None})).given()
    assert changed["payload_version"] is None
    (await admin("PATCH", own, {"payload_version": "a b"})).problem(422, "payload_version")
    (await admin("DELETE", f"{path}/2024-06-01")).given(204)
    (await admin("DELETE", f"{path}/2024-06-01")).problem(404, "2024-06-01")
    (await admin("DELETE", "/event-types/order.paid")).given(204)


async def test_a_request_with_a_key_takes_effect_once_and_is_answered_alike(
    api: Api,
) -> None:
    client, other = await api.client(Scope.WRITE), await api.client(Scope.WRITE)
    body = {"url": "http://127.0.0.1:1/a"}
    key = {"Idempotency-Key": "k1"}
    answers = await asyncio.gather(
        *(client("POST", "/endpoints", body, headers=key) for _ in range(8))
    )
    first = answers[0].given(201)
    assert {answer.body for answer in answers} == {answers[0].body}
    assert first["secret"].startswith("whsec_")
    assert len((await client.get("/endpoints"))["items"]) == 1
    wrong = {"url": "http://127.0.0.1:1/b"}
    (await client("POST", "/endpoints", wrong, headers=key)).problem(422, "for another request")
    theirs = (await other("POST", "/endpoints", body, headers=key)).given(201)
    assert theirs["id"] != first["id"]
    (
        await client("POST", "/endpoints", {"url": "ftp://x"}, headers={"Idempotency-Key": "k2"})
    ).problem(422)
    (await client("POST", "/endpoints", wrong, headers={"Idempotency-Key": "k2"})).given(201)
    (await client("POST", "/endpoints", wrong, headers={"Idempotency-Key": "a b"})).problem(422)
    replay = {"only_failed": True}
    twice = [
        await client("POST", "/replays", replay, headers={"Idempotency-Key": "r"}) for _ in "12"
    ]
    assert twice[0].given(201) == twice[1].given(201)
    await api.world.connection.execute("update aetherflow.repeats set made_at = '-infinity'")
    await api.world.until("select count(*) = 0 from aetherflow.repeats")
    assert (await client("POST", "/endpoints", body, headers=key)).given(201)["id"] != first["id"]


async def test_numbers_tell_how_it_went(api: Api) -> None:
    client = await api.client(Scope.READ)
    world = api.world
    good = await world.endpoint("/a", tenant="acme")
    await world.endpoint("/b", "500,500,200", tenant="acme", retry_schedule_seconds=[0, 0])
    for _ in range(3):
        await world.emit(tenant="acme")
    await world.settled()
    await world.until(
        "select sum(attempts) >= 6 from aetherflow.tallies where subject = 'all' and span = 60"
    )
    points = (await client.get("/numbers"))["points"]
    assert len(points) == 60
    total = await world.value("select count(*) from aetherflow.attempts")
    assert sum(it["attempts"] for it in points) <= total
    await world.until(
        "select sum(attempts) = $1 from aetherflow.tallies where subject = 'all' and span = 60",
        total,
    )
    points = (await client.get("/numbers", tenant="acme", by="hour"))["points"]
    assert sum(it["attempts"] for it in points) == total
    assert sum(it["answered_5xx"] for it in points) == total - 6
    of_one = (await client.get("/numbers", endpoint_id=good["id"]))["points"]
    assert sum(it["delivered"] for it in of_one) == 3
    rows = {it["id"]: it for it in (await client.get("/status"))["items"]}
    assert (rows[good["id"]]["success_rate"], rows[good["id"]]["waiting"]) == (1.0, 0)
    seen = await client.get("/overview")
    assert seen["endpoints"] == {"active": 2}
    assert seen["last_hour"]["attempts"] == total
    query = {"endpoint_id": good["id"], "tenant": "other"}
    (await client("GET", "/numbers", params=query)).problem(404)
    query = {"since": "2026-01-31T00:00:00Z", "by": "minute"}
    (await client("GET", "/numbers", params=query)).problem(422, "48 hours")
    tenant = await api.client(Scope.READ, "other")
    (await tenant("GET", "/numbers", params={"endpoint_id": good["id"]})).problem(404)
    assert (await tenant.get("/overview"))["endpoints"] == {}
