"""Taking orders, and telling of them."""

from django.db import connection, transaction

from aetherflow_hooks import sync
from tests.applications.on_django.models import Order


@transaction.atomic
def place(amount: int) -> int:
    """Take an order, and tell of it, or neither; give its number."""
    order = Order.objects.create(amount=amount)
    sync.emit(connection, "order.placed", {"order": {"id": order.pk, "amount": amount}})
    if amount <= 0:
        raise ValueError("an order is of something")
    number: int = order.pk
    return number
