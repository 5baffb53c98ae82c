"""What the shop tells, without an engine that runs, and once with one."""

import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from aetherflow_hooks.receive import Hooks, Webhook
from aetherflow_hooks.testing import SECRET, DeliverNow, Emitted
from tests.applications.on_sqlalchemy.shop import Order, place


def test_placing_an_order_tells_of_it(session: Session, emitted: Emitted) -> None:
    place(session, 1, 12)
    (event,) = emitted("order.placed")
    assert event.data == {"order": {"id": 1, "amount": 12}}


def test_what_is_committed_is_told_once(session: Session, emitted: Emitted) -> None:
    place(session, 1, 12)
    session.commit()
    assert [event.type for event in emitted()] == ["order.placed"]


def test_what_is_rolled_back_tells_nothing(session: Session, emitted: Emitted) -> None:
    with pytest.raises(ValueError, match="of something"):
        place(session, 1, 0)
    place(session, 2, 5)
    session.rollback()
    assert emitted() == []
    assert session.get(Order, 2) is None


def test_a_receiver_understands_it(session: Session, emitted: Emitted) -> None:
    hooks, amounts = Hooks(SECRET), []

    @hooks.on("order.placed")
    def count(webhook: Webhook[dict[str, dict[str, int]]]) -> None:
        amounts.append(webhook.data["order"]["amount"])

    place(session, 1, 12)
    (event,) = emitted()
    for attempt in (1, 2):
        assert hooks.receive_sync(*event.signed(attempt=attempt)).status == 200
    assert amounts == [12]


def test_the_test_before_has_left_nothing(session: Session, emitted: Emitted) -> None:
    assert session.get(Order, 1) is None
    assert emitted() == []


def test_what_is_really_committed_arrives(engine: Engine, deliver_now: DeliverNow) -> None:
    with Session(engine) as session, session.begin():
        place(session, 1, 12)
    (attempt,) = deliver_now()
    assert (attempt.type, attempt.attempt, attempt.status) == ("order.placed", 1, 200)
    assert deliver_now() == []
