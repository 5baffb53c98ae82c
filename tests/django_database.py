"""Django's connection to a database, within a process that has no Django project."""

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import django
from django.conf import settings
from django.db import connection, connections
from psycopg.conninfo import conninfo_to_dict


def configuration(dsn: str) -> dict[str, Any]:
    """Write a DSN as Django's settings have it."""
    place = conninfo_to_dict(dsn)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": place.get("dbname", ""),
        "USER": place.get("user", ""),
        "PASSWORD": place.get("password", ""),
        "HOST": place.get("host", ""),
        "PORT": place.get("port", ""),
    }


@contextmanager
def connect(dsn: str) -> Iterator[Any]:
    """Point `django.db.connection` to a database."""
    if not settings.configured:
        settings.configure(DATABASES={"default": configuration(dsn)})
        django.setup()
    # Tests of an asynchronous suite run within a loop.
    with patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="true"):
        connections.close_all()
        connections.settings["default"].update(configuration(dsn))
        with contextlib.suppress(AttributeError):  # there is none yet
            del connections["default"]
        try:
            yield connection
        finally:
            connections.close_all()
