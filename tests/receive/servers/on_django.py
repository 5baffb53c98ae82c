"""Django, with its own connection, behind gunicorn."""

from typing import Any

import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connection
from django.urls import path

from tests.django_database import configuration
from tests.receive.servers import DSN, HANDLED, SECRET, Dying, misbehave

settings.configure(
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DATABASES={"default": {**configuration(DSN), "ATOMIC_REQUESTS": True}},
)
django.setup()

from aetherflow_hooks.receive import Hooks, SeenInPostgres, Webhook  # noqa: E402
from aetherflow_hooks.receive.frameworks.django import endpoint  # noqa: E402

seen = SeenInPostgres(connection)
seen.create_sync()
hooks = Hooks(SECRET, seen=seen)


@hooks.on("*")
def handle(webhook: Webhook[dict[str, Any]], within: Any) -> None:
    with within.cursor() as cursor:
        cursor.execute(HANDLED.format(id=webhook.id))
    misbehave(webhook.data)


urlpatterns = [path("webhook", endpoint(Dying(hooks)))]
application = get_wsgi_application()
