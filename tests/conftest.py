"""One Postgres for the whole run, a migrated database of its own for each test, a real receiver."""

import asyncio
import itertools
import os
import queue
import re
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
from xdist.scheduler import LoadScopeScheduling

from aetherflow_hooks import Engine, Settings, load_config, migrate, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.manage.endpoints import (
    EndpointChange,
    NewEndpoint,
    add_endpoint,
    change_endpoint,
)
from tests.authority import Authority
from tests.folders import roomy_folder
from tests.pooler import pgbouncer, through

# Safety against a crash of the machine is of no use to a test, and costs most of its time.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "max_connections": "100",
}
# What a test would otherwise wait for: work that nobody told the engine of, and engines that leave.
BRISK: dict[str, dict[str, Any]] = {
    "pace": {"discover_seconds": 0.1},
    "engine": {"grace_seconds": 5.0},
}

# No test asks the authorities that this machine knows, and to read them is the most of an engine's
# start. Who certifies a receiver of a test is named in the same way; see `tests.authority`.
os.environ["SSL_CERT_FILE"] = os.devnull

# How long a case takes says more about the machine than about the code. `make fuzz` looks for odd
# ones for minutes, and not for a moment.
hypothesis.settings.register_profile(
    "busy",
    deadline=None,
    max_examples=50,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "fuzz", hypothesis.settings.get_profile("busy"), max_examples=20_000
)
hypothesis.settings.load_profile("busy")

# Stands in for the extension pg_jsonschema, which is not everywhere; it knows `required` alone.
PG_JSONSCHEMA = """
create function jsonb_matches_schema(schema json, instance jsonb) returns boolean
language sql immutable strict as $$
    select instance ?& coalesce(array(select json_array_elements_text(schema->'required')), '{}')
$$
"""
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
collect_ignore = ["applications"]  # `test_testing.py` runs the tests of those by themselves
_numbers = itertools.count()
_poolers: dict[str, str] = {}  # by the server that they stand before


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    base = Path(tempfile.mkdtemp(prefix="aetherflow-", dir=roomy_folder()))
    base.chmod(0o711)
    postgres = EmbeddedPostgres(base, settings=FAST, initdb_args=["--no-sync"])

    async def start() -> None:
        await postgres.start()
        admin = await asyncpg.connect(postgres.dsn())
        await admin.execute("create database template_hooks")
        await migrate(settings_for(postgres.dsn("template_hooks")))
        await admin.execute(
            "alter database template_hooks is_template true allow_connections false"
        )
        await admin.close()

    asyncio.run(start())
    yield postgres
    asyncio.run(postgres.stop())
    shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(params=["direct", "session"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let requests go out on either way, and on the direct one over either event loop."""
    monkeypatch.setitem(BRISK, "post", {"direct": request.param == "direct"})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pooler", action="store_true", help="Let engines reach Postgres through a PgBouncer."
    )


@pytest.fixture(scope="session", autouse=True)
def pooler(request: pytest.FixtureRequest) -> Iterator[None]:
    """Stand between engines and Postgres, where that is asked for; tests look past it."""
    if not request.config.getoption("--pooler"):
        yield
        return
    server: EmbeddedPostgres = request.getfixturevalue("server")
    with pgbouncer(server.dsn()) as dsn:
        _poolers[server.dsn()] = dsn
        yield


def pytest_asyncio_loop_factories(
    item: pytest.Item,
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    factories: dict[str, Callable[[], asyncio.AbstractEventLoop]]
    factories = {"asyncio": asyncio.new_event_loop}
    wanted = {"each_way", "each_loop"} & set(getattr(item, "fixturenames", ()))
    if sys.platform == "linux" and wanted:
        import uvloop  # noqa: PLC0415  it is there on Linux only

        factories["uvloop"] = uvloop.new_event_loop
    return factories


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out aiohttp's session on uvloop: nothing of ours differs there from the other three."""
    items[:] = [
        item for item in items if not {"session", "uvloop"} <= set(re.split(r"[\[\]-]", item.name))
    ]


class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Gives each process one test after the other; those that share a dear fixture go together."""

    TOGETHER = ("test_bench.py", "test_internet.py", "test_statements.py")

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if file.endswith(self.TOGETHER) else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return Scheduling(config, log)


class Databases:
    """Makes databases ahead of the tests, and drops those of before beside them.

    Both take longer than most tests do.
    """

    AHEAD = 3

    def __init__(self, server: EmbeddedPostgres) -> None:
        """Begin, in a thread and on a loop of its own."""
        self._server = server
        self._ready: queue.Queue[str] = queue.Queue(self.AHEAD)
        self._used: list[str] = []
        self._is_over = False
        self._loop = asyncio.new_event_loop()
        self._wake = asyncio.Event()
        self._work = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))
        self._work.start()

    def take(self) -> str:
        """Give the name of a migrated database that nobody has used."""
        name = self._ready.get(timeout=30)
        self._loop.call_soon_threadsafe(self._wake.set)
        return name

    async def give_back(self, name: str) -> None:
        """Drop a database when there is time; fail if somebody stays connected to it."""
        await asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._give_back(name), self._loop)
        )

    def close(self) -> None:
        """End; what is left goes with the server."""
        self._is_over = True
        self._loop.call_soon_threadsafe(self._wake.set)
        self._work.join()
        self._loop.close()

    async def _run(self) -> None:
        connection = await asyncpg.connect(self._server.dsn())
        self._asking = await asyncpg.connect(self._server.dsn())
        while not self._is_over:
            self._wake.clear()
            if not self._ready.full():
                self._ready.put(await make_database(connection, "template_hooks"))
            elif self._used:
                await connection.execute(f"drop database {self._used.pop()} with (force)")
            else:
                await self._wake.wait()
        await connection.close()
        await self._asking.close()

    async def _give_back(self, name: str) -> None:
        left = (
            "select count(*) from pg_stat_activity"
            " where datname = $1 and backend_type = 'client backend'"
        )
        give_up_at = time.monotonic() + 5
        while not _poolers and await self._asking.fetchval(left, name):
            assert time.monotonic() < give_up_at, "somebody is still connected"
            await asyncio.sleep(0.01)
        self._used.append(name)
        self._wake.set()


async def make_database(connection: Any, template: str) -> str:
    """Make a database like another one; give its name."""
    name = f"test_{next(_numbers)}"
    await connection.execute(f"create database {name} template {template} strategy file_copy")
    return name


@pytest.fixture(scope="session")
def databases(server: EmbeddedPostgres) -> Iterator[Databases]:
    databases = Databases(server)
    yield databases
    databases.close()


@pytest_asyncio.fixture
async def empty_dsn(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database that was never migrated."""
    async with database_of(server, "template1") as dsn:
        yield dsn


@pytest_asyncio.fixture
async def dsn(server: EmbeddedPostgres, databases: Databases) -> AsyncIterator[str]:
    """A migrated database; what is still connected a moment after the test was leaked."""
    name = databases.take()
    yield server.dsn(name)
    await databases.give_back(name)


@asynccontextmanager
async def database_of(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """A database for as long as a test of any scope wants it."""
    admin = await asyncpg.connect(server.dsn())
    name = await make_database(admin, template)
    yield server.dsn(name)
    await admin.execute(f"drop database {name} with (force)")
    await admin.close()


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def own_server() -> Iterator[EmbeddedPostgres]:
    """A Postgres that a test may stop, with the settings of a real one."""
    with tempfile.TemporaryDirectory(dir=roomy_folder(), ignore_cleanup_errors=True) as folder:
        base = Path(folder) / "pg"
        base.mkdir(mode=0o711)
        base.parent.chmod(0o711)
        yield EmbeddedPostgres(base, initdb_args=["--no-sync"])


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who certifies receivers that speak TLS."""
    return Authority(tmp_path)


def settings_for(dsn: str, **sections: Mapping[str, Any]) -> Settings:
    """Settings of a test: its database, loopback allowed, nothing from the environment."""
    way = _way_to(dsn)
    database = {"dsn": way} if way == dsn else {"dsn": way, "listen_dsn": dsn}
    given: dict[str, Any] = {"profile": "development", "database": database}
    for part in (BRISK, sections):
        for section, names in part.items():
            given[section] = {**given.get(section, {}), **names}
    return load_config(environment={}, given=given)


def _way_to(dsn: str) -> str:
    """Give the DSN that leads through the pooler, where one stands before its server."""
    ways = (
        through(pooler, dsn) for server, pooler in _poolers.items() if through(server, dsn) == dsn
    )
    return next(ways, dsn)


class World:
    """A migrated database, a receiver, and the ways to use them."""

    def __init__(self, dsn: str, connection: Any, database: Database, receiver: Receiver) -> None:
        self.dsn = dsn
        self.connection = connection
        self.database = database
        self.receiver = receiver

    def settings(self, **sections: Mapping[str, Any]) -> Settings:
        return settings_for(self.dsn, **sections)

    def engine(self, **sections: Mapping[str, Any]) -> AbstractAsyncContextManager[Engine]:
        """An engine that runs within `async with`."""
        return start_engine(self.settings(**sections))

    async def endpoint(self, path: str = "/", script: str = "200", **new: Any) -> dict[str, Any]:
        """Add an endpoint of the receiver, which answers as `script` says."""
        url = new.pop("url", None) or self.receiver.url(path, script)
        settings = self.settings()
        return await add_endpoint(
            self.database,
            NewEndpoint(url=url, **new),
            settings=settings,
        )

    async def change(self, endpoint_id: str, /, **to: Any) -> dict[str, Any]:
        """Change an endpoint; a test may name anything."""
        wanted: EndpointChange = to  # type: ignore[assignment]
        return await change_endpoint(self.database, endpoint_id, wanted, settings=self.settings())

    async def emit(self, event_type: str = "a.b", data: str = "{}", **options: Any) -> str:
        """Emit by plain SQL, as any language would."""
        named = "".join(f", {name} => ${n}" for n, name in enumerate(options, 3))
        event_id: str = await self.connection.fetchval(
            f"select aetherflow.emit($1, $2{named})", event_type, data, *options.values()
        )
        return event_id

    async def value(self, sql: str, *values: object) -> Any:
        return await self.connection.fetchval(sql, *values)

    async def rows(self, sql: str, *values: object) -> list[Any]:
        return list(await self.connection.fetch(sql, *values))

    async def until(self, sql: str, *values: object, timeout_seconds: float = 15) -> Any:
        """Wait until a query gives something true."""

        async def ask() -> Any:
            return await self.value(sql, *values)

        return await until(ask, sql, timeout_seconds=timeout_seconds)

    async def make_due(self) -> None:
        """Let the time of every waiting delivery come now."""
        await self.connection.execute("update aetherflow.deliveries set due_at = now()")

    async def settled(self, timeout_seconds: float = 15) -> None:
        """Wait until no event and no delivery waits."""
        await self.until(
            "select not exists (select from aetherflow.outbox)"
            " and not exists (select from aetherflow.deliveries)",
            timeout_seconds=timeout_seconds,
        )

    async def deliver(self, **sections: Mapping[str, Any]) -> None:
        """Let an engine run until nothing waits."""
        async with self.engine(**sections):
            await self.settled()


def secret_part(key: str) -> str:
    """Give of a token, a session's key or a link's what is not its id: 256 bits in base64."""
    # By its length, since it may have underscores of its own, as what it is parted by.
    return key[-43:]


async def until(
    ask: Callable[[], Awaitable[Any]], what: str = "it", *, timeout_seconds: float = 15
) -> Any:
    """Ask again and again until the answer is true; give it."""
    give_up_at = time.monotonic() + timeout_seconds
    while not (answer := await ask()):
        assert time.monotonic() < give_up_at, f"not within {timeout_seconds} s: {what}"
        await asyncio.sleep(0.01)
    return answer


@pytest_asyncio.fixture
async def world(dsn: str, receiver: Receiver) -> AsyncIterator[World]:
    connection = await asyncpg.connect(dsn)
    async with Database(settings_for(dsn).database) as database:
        yield World(dsn, connection, database, receiver)
    await connection.close()
    left = [task for task in asyncio.all_tasks() if task.get_name().startswith("aetherflow_hooks")]
    assert not left, "an engine left tasks behind"
