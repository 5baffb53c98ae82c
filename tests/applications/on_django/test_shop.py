"""What the shop tells and hears, without an engine that runs, and once with one."""

import pytest
from django.db import connection
from django.test import Client, TestCase

from aetherflow_hooks.testing import DeliverNow, Emitted, SignedRequest, sign_for_test
from tests.applications.on_django.models import Order
from tests.applications.on_django.shop import place
from tests.applications.on_django.urls import heard


def test_placing_an_order_tells_of_it(emitted: Emitted) -> None:
    number = place(12)
    (event,) = emitted("order.placed")
    assert event.data == {"order": {"id": number, "amount": 12}}


def test_what_is_rolled_back_tells_nothing(emitted: Emitted) -> None:
    with pytest.raises(ValueError, match="of something"):
        place(0)
    assert emitted() == []
    assert not Order.objects.exists()


def test_the_tests_before_have_left_nothing(emitted: Emitted) -> None:
    assert emitted() == []


class OfItsOwnRunner(TestCase):
    """Where pytest's fixtures are not at hand."""

    def test_placing_an_order_tells_of_it(self) -> None:
        place(12)
        assert [event.type for event in Emitted(connection)()] == ["order.placed"]


def test_what_is_committed_arrives_once(endpoint: None, deliver_now: DeliverNow) -> None:
    place(12)
    with pytest.raises(ValueError, match="of something"):
        place(0)
    (attempt,) = deliver_now()
    assert (attempt.type, attempt.attempt, attempt.status) == ("order.placed", 1, 200)
    assert deliver_now() == []


def post(client: Client, webhook: SignedRequest) -> int:
    body, headers = webhook
    answer = client.post("/webhook", body, content_type="application/json", headers=headers)
    return int(answer.status_code)


def test_every_type_is_heard(client: Client, sample_webhook: SignedRequest) -> None:
    assert post(client, sample_webhook) == 200
    assert heard[-1] == sample_webhook.headers["webhook-id"]


def test_nobody_else_is_heard(client: Client, forged_webhook: SignedRequest) -> None:
    before = len(heard)
    assert post(client, forged_webhook) == 401
    assert len(heard) == before


def test_what_comes_twice_is_heard_once(client: Client, webhook_secret: str) -> None:
    first = sign_for_test("user.joined", event_id="evt_1", secret=webhook_secret)
    again = sign_for_test("user.joined", event_id="evt_1", secret=webhook_secret, attempt=2)
    assert [post(client, it) for it in (first, again)] == [200, 200]
    assert heard.count("evt_1") == 1
