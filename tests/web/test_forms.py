"""What forms of the dashboard make of what was typed."""

import io
import json
import re

import aiohttp
import pytest

from aetherflow_hooks.manage.sessions import add_link
from aetherflow_hooks.manage.tokens import Scope
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.web.dashboard.render import SHOWN_MAX, pretty
from tests.web.conftest import Api
from tests.web.visitor import OURS, Visitor, visitor

FORM = "application/x-www-form-urlencoded"


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
        "payload_version": "2024-06-01",
        "headers": "Authorization: Bearer abc\r\nX-One: 1",
        "metadata": '{"seats": 12}',
        "secret": "a secret of our own",
        "traced": "yes",
    }
    page = (await somebody.send("/endpoints/new", **form)).body.decode()
    assert "a secret of our own" in page
    (added,) = (await client.get("/endpoints"))["items"]
    assert (added["events"], added["labels"]) == (["user.*", "workflow.failed"], ["gold", "eu"])
    assert (added["channels"], added["payload_version"]) == (["eu", "us"], "2024-06-01")
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
    assert added["traced"]
    assert 'name="traced" type="checkbox" value="yes" checked' in edit
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


async def test_what_is_sent_twice_is_done_once(api: Api) -> None:
    """As by two clicks; what was changed in between is something else."""
    somebody = await visitor(api)
    form = {"once": "k1", "url": "https://example.com/", "events": "*"}
    pages = [(await somebody.send("/endpoints/new", **form)).body for _ in range(2)]
    secrets = [re.findall(rb"whsec_[A-Za-z0-9+/=]+", page) for page in pages]
    assert secrets[0] == secrets[1] != []
    await somebody.send("/endpoints/new", **form | {"description": "another"})
    assert await api.world.value("select count(*) from aetherflow.endpoints") == 2
    event = {"once": "k2", "type": "a.b", "data": "{}"}
    places = {(await somebody.send("/events/new", **event)).headers["Location"] for _ in range(2)}
    assert len(places) == 1
    assert await api.world.value("select count(*) from aetherflow.events") == 1


async def test_a_change_that_somebody_else_made_is_not_lost(api: Api) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint(headers={"X-Old": "1"})
    place = f"/endpoints/{added['id']}"
    form = {"url": added["url"], "events": "*", "version": "1", "headers_gone": "X-Old"}
    other = await api.client()
    (await other("PATCH", place, {"max_in_flight": 7})).given()
    refused = await somebody.send(f"{place}/edit", **form | {"burst": "x"})
    for _ in range(2):  # the form goes on to say what it was made of
        assert refused.status == 422
        page = refused.body.decode()
        assert 'name="version" value="1"' in page
        assert 'name="headers_gone" type="text" value="X-Old"' in page
        assert "Begin anew" in page
        refused = await somebody.send(f"{place}/edit", **form)
    assert (await other.get(place))["max_in_flight"] == 7


async def test_a_polled_endpoint_is_added_and_changed_without_a_url(api: Api) -> None:
    somebody, client = await visitor(api), await api.client()
    refused = await somebody.send("/endpoints/new", events="*")
    assert (refused.status, b"unless it is polled" in refused.body) == (422, True)
    page = (await somebody.send("/endpoints/new", events="*", polled="yes")).body.decode()
    assert "whsec_" in page
    (added,) = (await client.get("/endpoints"))["items"]
    assert added["polled"]
    place = f"/endpoints/{added['id']}"
    edit = await somebody.shown(f"{place}/edit")
    assert 'name="url"' not in edit
    form = {"events": "user.*", "burst": "1", "version": "1"}
    assert (await somebody.send(f"{place}/edit", **form)).status == 303
    assert (await client.get(place))["events"] == ["user.*"]
    assert "Send a test" not in await somebody.shown(place)
    await somebody.shown("/")
    assert "(polled)" in await somebody.shown("/endpoints")


async def test_only_a_secret_that_waits_can_be_promoted(api: Api) -> None:
    somebody = await visitor(api)
    place = f"/endpoints/{(await api.world.endpoint())['id']}"
    assert "Promote" not in await somebody.shown(place)
    await somebody.send(f"{place}/rotate-secret", leads="later")
    assert "Promote the new secret" in await somebody.shown(place)
    assert (await somebody.send(f"{place}/promote-secret")).status == 303
    assert "Promote" not in await somebody.shown(place)


async def test_numbers_stay_as_exact_as_they_were(api: Api) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint(
        rate_per_second=12345.678, timeout_seconds=12.34567, retry_schedule_seconds=[0.1234567, 900]
    )
    page = await somebody.shown(f"/endpoints/{added['id']}/edit")
    for typed in ("12345.678", "12.34567", "0.1234567, 900"):
        assert f'value="{typed}"' in page


async def test_only_what_was_counted_is_replayed(api: Api) -> None:
    """Enter in a field counts; what is sent is what the count was of."""
    somebody = await visitor(api)
    added = await api.world.endpoint()
    counted = await somebody.send(
        "/replays/new", endpoint_id=added["id"], pattern="a.b", only_failed="yes"
    )
    first, second = counted.body.decode().split("<form method")[2:4]
    assert 'value="start"' in first or "would send <strong>0" in first
    assert 'type="hidden" name="pattern" value="a.b"' in first
    assert 'value="start"' not in second
    assert "Count them first" in second
    assert await api.world.value("select count(*) from aetherflow.replays") == 0
    unknown = await somebody.send("/replays/new", endpoint_id="ep_000000000000")
    assert unknown.status == 422
    assert b"ep_000000000000" in unknown.body


async def test_what_cannot_be_done_now_is_told_where_it_was_asked_for(api: Api) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint(script="500", retry_schedule_seconds=[])
    event_id = await api.world.emit()
    await api.world.until("select exists (select from aetherflow.dead)")
    place = f"/endpoints/{added['id']}"
    for path, form, told in (
        (f"{place}/promote-secret", {}, "waits"),
        (f"{place}/rotate-secret", {"overlap_seconds": "-1"}, "overlap_seconds"),
        (f"{place}/test", {"type": "workflow.failed", "leads": ""}, ""),
    ):
        page = (await somebody.send(path, **form)).body.decode()
        assert told in page
        assert "<nav" in page
    await somebody.send(f"{place}/state", state="disabled")
    delivery = f"/deliveries/{delivery_id(event_id, added['id'])}"
    page = (await somebody.send(f"{delivery}/retry")).body.decode()
    assert "disabled" in page.partition('role="alert">')[2].partition("</p>")[0]
    for path in (
        "/attempts?status=abc",
        "/attempts?since=yesterday",
        "/events?type=!",
        "/deliveries?state=x",
    ):
        answer = await somebody.ask("GET", path)
        assert answer.status == 422
        page = answer.body.decode()
        alert = page.partition('<p class="note bad" role="alert">')[2].partition("</p>")[0]
        assert alert
        assert "Value error" not in alert


async def test_a_link_leaves_an_applications_own_events_alone(api: Api) -> None:
    event_id = await api.world.emit(tenant="acme")
    link = await add_link(api.world.database, "acme", scope=Scope.WRITE)
    somebody = Visitor(api, link["path"].rstrip("/"))
    for action in ("expunge", "cancel"):
        assert (await somebody.send(f"/events/{event_id}/{action}")).status == 404
    assert "expunge" not in await somebody.shown(f"/events/{event_id}")


ODD: dict[str, tuple[dict[str, str], bytes, int]] = {
    "a slow charset": ({"Content-Type": f"{FORM}; charset=punycode"}, b"a" * 150_000, 415),
    "no charset": ({"Content-Type": f"{FORM}; charset=nope"}, b"token=x", 415),
    "no form": ({"Content-Type": "text/plain"}, b"token=x", 415),
    "a file": ({"Content-Type": "multipart/form-data; boundary=x"}, b"--x--", 415),
    "no text": ({"Content-Type": FORM}, b"token=\xff", 400),
    "no text, escaped": ({"Content-Type": FORM}, b"token=%ff", 400),
    "very many fields": ({"Content-Type": FORM}, b"a=1&" * 1_000, 400),
    "nothing unpacked": ({"Content-Type": FORM, "Content-Encoding": "gzip"}, b"token=x", 400),
    "too much": ({"Content-Type": FORM}, b"a" * 4_000_000, 413),
}


@pytest.mark.parametrize("name", ODD)
async def test_what_is_no_form_is_refused_at_once(
    api: Api, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers, body, status = ODD[name]
    answer = await Visitor(api).ask("POST", "/login", data=io.BytesIO(body), headers=headers | OURS)
    assert answer.status == status
    assert "stage.failed" not in caplog.text


@pytest.mark.parametrize("depth", [31, 500, 3_000])
async def test_deep_data_is_shown_as_it_is(api: Api, depth: int) -> None:
    somebody = await visitor(api)
    added = await api.world.endpoint()
    data = '{"a":' * depth + "1" + "}" * depth
    event_id = await api.world.emit(data=data)
    await api.world.settled()
    assert '{"a":{"a":' in (await somebody.shown(f"/events/{event_id}")).replace("&#34;", '"')
    await somebody.shown(f"/deliveries/{delivery_id(event_id, added['id'])}")
    answer = await somebody.send("/events/new", type="a.b", data=data)
    assert answer.status in (303, 422)


def test_what_is_long_or_deep_is_not_written_over_lines() -> None:
    """Every level moves all that is in it, so a small text would become a very large one."""
    assert pretty('{"a":[1]}') == json.dumps({"a": [1]}, indent=2)
    deep = "[" * 300 + ",".join("1" * 5_000) + "]" * 300
    assert pretty(deep) == deep
    long = json.dumps(list(range(SHOWN_MAX)))
    assert pretty(long).startswith(long[:SHOWN_MAX])
    assert len(pretty(long)) < SHOWN_MAX + 100


async def test_a_frame_shows_what_went_wrong_too(api: Api) -> None:
    link = await add_link(api.world.database, "acme")
    somebody = Visitor(api, link["path"].rstrip("/"))
    for path in ("/endpoints/ep_000000000000", "/nothing", "/endpoints/new"):
        answer = await somebody.ask("GET", path)
        assert answer.status in (403, 404)
        assert f'href="{somebody.base}/"' in answer.body.decode()
    timeout = aiohttp.ClientTimeout(total=5)
    async with api._session.get(
        api.base + somebody.base, allow_redirects=False, timeout=timeout
    ) as answer_:
        assert (answer_.status, answer_.headers["Location"]) == (303, f"{somebody.base}/")
