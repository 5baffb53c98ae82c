"""An endpoint is tried out: the request and the answer are shown, and nothing is changed by it."""

from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio
from standardwebhooks import Webhook

from aetherflow_hooks import verify
from aetherflow_hooks.errors import InputRefused, NotFound
from aetherflow_hooks.flow.post import Post
from aetherflow_hooks.manage.endpoints import delete_endpoint, set_endpoint_state, show_endpoint
from aetherflow_hooks.manage.trial import TryOut, try_endpoint
from aetherflow_hooks.model import EndpointState
from aetherflow_hooks.rules.addresses import nets_at
from tests.conftest import World


@pytest_asyncio.fixture
async def try_out(world: World) -> AsyncIterator[TryOut]:
    settings = world.settings()
    post = Post(settings.post, settings.egress_rules(), settings.proxy())
    await post.open(nets_at(await world.database.server_places()))
    yield post.try_out
    await post.close()


async def tried(world: World, try_out: TryOut, endpoint_id: str, **wanted: Any) -> dict[str, Any]:
    return await try_endpoint(
        world.database, endpoint_id, settings=world.settings(), try_out=try_out, **wanted
    )


async def stored(world: World) -> list[int]:
    tables = ("events", "outbox", "deliveries", "attempts", "dead")
    return [await world.value(f"select count(*) from aetherflow.{table}") for table in tables]


async def test_case_72_the_answer_is_in_the_reply_and_health_is_as_it_was(
    world: World, try_out: TryOut
) -> None:
    endpoint = await world.endpoint("/a", "500", headers={"Authorization": "Bearer canary"})
    await world.value("update aetherflow.endpoints set failing_since = '2026-01-31'")
    before = await show_endpoint(world.database, endpoint["id"])
    told = await tried(world, try_out, endpoint["id"])
    (request,) = world.receiver.at("/a")
    assert (told["trigger"], told["outcome"], told["status"]) == ("test", "answered", 500)
    assert told["error"] == "answered 500"
    assert told["duration_ms"] >= 0
    assert isinstance(told["response"], bytes)
    assert told["request"]["body"].encode() == request.body
    for name, value in told["request"]["headers"].items():
        if name != "Authorization":
            assert request.headers[name.lower()] == value
    assert request.headers["authorization"] == "Bearer canary"
    assert "canary" not in str(told)
    assert await show_endpoint(world.database, endpoint["id"]) == before
    assert await stored(world) == [0, 0, 0, 0, 0]


async def test_a_trial_is_signed_like_any_other(world: World, try_out: TryOut) -> None:
    endpoint = await world.endpoint("/a")
    told = await tried(
        world, try_out, endpoint["id"], event_type="user.joined", data='{"n": 1.0, "ü": []}'
    )
    (request,) = world.receiver.received
    assert told["error"] is None
    Webhook(endpoint["secret"]).verify(request.body, dict(request.headers))
    verify(request.body, request.headers, endpoint["secret"])
    sent = orjson.loads(request.body)
    assert (sent["event"], sent["id"]) == ("user.joined", told["event_id"])
    assert b'"data":{"n": 1.0, "\xc3\xbc": []}}' in request.body
    assert request.headers["x-aetherflow-attempt"] == "1"


@pytest.mark.parametrize(
    ("patterns", "event_type"),
    [
        (["*"], "workflow.created"),
        (["user.*"], "user.invited"),
        (["user.*", "order.paid"], "order.paid"),
        (["order.*"], "test"),
    ],
)
async def test_it_is_of_a_type_that_the_endpoint_wants(
    world: World, try_out: TryOut, patterns: list[str], event_type: str
) -> None:
    endpoint = await world.endpoint("/a", events=patterns)
    assert (await tried(world, try_out, endpoint["id"]))["type"] == event_type
    (request,) = world.receiver.received
    assert orjson.loads(request.body)["data"] == {"test": True}


@pytest.mark.parametrize("state", [EndpointState.PAUSED, EndpointState.DISABLED])
async def test_an_endpoint_is_tried_before_it_is_enabled(
    world: World, try_out: TryOut, state: EndpointState
) -> None:
    endpoint = await world.endpoint("/a")
    await set_endpoint_state(world.database, endpoint["id"], state)
    assert (await tried(world, try_out, endpoint["id"]))["status"] == 200
    assert (await show_endpoint(world.database, endpoint["id"]))["state"] == state


@pytest.mark.parametrize(
    ("url", "outcome", "error"),
    [
        ("http://127.0.0.1:1/", "not_reached", "no connection"),
        ("http://10.0.0.1/", "blocked", "not open to webhooks"),
    ],
)
async def test_where_nothing_answers_it_says_why(
    world: World, try_out: TryOut, url: str, outcome: str, error: str
) -> None:
    endpoint = await world.endpoint(url="http://127.0.0.1:2/")
    await world.value("update aetherflow.endpoints set url = $1", url)  # by another hand
    told = await tried(world, try_out, endpoint["id"])
    assert (told["outcome"], told["status"], told["response"]) == (outcome, None, b"")
    assert error in told["error"]


async def test_what_cannot_be_tried_is_refused(world: World, try_out: TryOut) -> None:
    endpoint = await world.endpoint("/a")
    for wanted, complaint in [
        ({"event_type": "a b"}, "is not a type"),
        ({"data": "[]"}, "is not a JSON object"),
        ({"data": "{"}, "is not a JSON object"),
        ({"data": '{"a": "\udcff"}'}, "is not a JSON object"),
        ({"data": f'{{"a": "{"x" * 1_048_576}"}}'}, "at most 1,048,576 bytes"),
    ]:
        with pytest.raises(InputRefused, match=complaint):
            await tried(world, try_out, endpoint["id"], **wanted)
    await world.value("delete from aetherflow.secrets")
    with pytest.raises(InputRefused, match="no secret in force"):
        await tried(world, try_out, endpoint["id"])
    await delete_endpoint(world.database, endpoint["id"])
    with pytest.raises(NotFound):
        await tried(world, try_out, endpoint["id"])
    assert world.receiver.received == []
