"""Orders."""

from django.db import models


class Order(models.Model):
    """An order."""

    amount = models.IntegerField()

    def __str__(self) -> str:
        return f"an order of {self.amount}"
