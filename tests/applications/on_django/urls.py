"""The shop hears of workflows, too."""

from typing import Any

from django.conf import settings
from django.urls import path

from aetherflow_hooks.receive import Hooks, Webhook
from aetherflow_hooks.receive.frameworks.django import endpoint

hooks = Hooks(settings.WEBHOOK_SECRET)
heard: list[str] = []


@hooks.on("*")
def hear(webhook: Webhook[dict[str, Any]]) -> None:
    """Take note."""
    heard.append(webhook.id)


urlpatterns = [path("webhook", endpoint(hooks))]
