"""Orders, and what is told of them."""

from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from aetherflow_hooks import sync


class Base(DeclarativeBase):
    """What is stored."""


class Order(Base):
    """An order."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]


def place(session: Session, order_id: int, amount: int) -> None:
    """Take an order, and tell of it, or neither."""
    with session.begin_nested():
        session.add(Order(id=order_id, amount=amount))
        session.flush()
        sync.emit(session, "order.placed", {"order": {"id": order_id, "amount": amount}})
        if amount <= 0:
            raise ValueError("an order is of something")
