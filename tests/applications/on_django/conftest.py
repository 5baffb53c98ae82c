"""pytest-django makes a database for the tests; AetherFlow Hooks needs its schema there as well."""

import asyncio
import os
import subprocess
import sys
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from django.conf import settings
from django.db import connection

from aetherflow_hooks import Settings, load_config, migrate


def settings_of_tests() -> Settings:
    place = connection.settings_dict
    query = urlencode({"host": place["HOST"], "port": place["PORT"]})
    dsn = f"postgresql://{quote(place['USER'])}@/{place['NAME']}?{query}"
    return load_config(given={"profile": "development", "database": {"dsn": dsn}})


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    with django_db_blocker.unblock():
        asyncio.run(migrate(settings_of_tests()))


@pytest.fixture
def aetherflow_connection(db: None) -> Any:
    return connection


@pytest.fixture
def aetherflow_settings() -> Settings:
    return settings_of_tests()


@pytest.fixture
def webhook_secret() -> str:
    secret: str = settings.WEBHOOK_SECRET
    return secret


@pytest.fixture
def endpoint(transactional_db: None) -> None:
    """Somebody who wants to hear of everything."""
    subprocess.run(
        [
            *(sys.executable, "-m", "aetherflow_hooks", "endpoint", "add", os.environ["ENDPOINT"]),
            *("--dsn", settings_of_tests().database.dsn),
        ],
        env={**os.environ, "AETHERFLOW_HOOKS_PROFILE": "development"},
        check=True,
    )
