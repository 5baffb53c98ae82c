"""Testing: fixtures for pytest, for applications that emit and for whoever receives.

pytest knows them wherever this package is installed. For an application that emits, its conftest.py
says which connection its tests work on, inside a transaction that is rolled back:

    @pytest.fixture
    def aetherflow_connection(session):  # a Session, django.db.connection, a psycopg connection, …
        return session

    def test_finishing_tells_it(session, emitted):
        finish(session, "wf_1")
        (event,) = emitted("workflow.completed")
        assert event.data == {"workflow": {"id": "wf_1"}}

and for a receiver, what it verifies with:

    @pytest.fixture
    def webhook_secret():
        return settings.WEBHOOK_SECRET

    def test_every_type_is_taken(client, sample_webhook):      # twelve tests, one for each type
        body, headers = sample_webhook
        assert client.post("/webhook", data=body, headers=headers).status_code == 200

    def test_nobody_else_is_heard(client, forged_webhook):     # one for each way to be wrong
        body, headers = forged_webhook
        assert client.post("/webhook", data=body, headers=headers).status_code == 401
"""

import asyncio
import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from aetherflow_hooks.receive.examples import EXAMPLES
from aetherflow_hooks.rules.bodies import event_of
from aetherflow_hooks.rules.signing import keys_of, signed_lines

if TYPE_CHECKING:
    from aetherflow_hooks.config import Settings

SECRET = "whsec_dGVzdGluZyBvbmx5LCB0aGUgd29ybGQga25vd3M="  # noqa: S105  everybody knows it
"""What is signed with, unless the fixture `webhook_secret` says otherwise."""
DELIVER_SECONDS_MAX = 15.0
FORGERIES = (
    "with another secret",
    "without a signature",
    "with another body",
    "of another event",
    "ten minutes old",
    "of ten minutes from now",
)
_STALE_SECONDS = 600  # twice what receivers tolerate
_ANOTHER = "whsec_YW5vdGhlciBzZWNyZXQgb2Ygc29tZWJvZHkgZWxzZQ=="
_LOOK_SECONDS = 0.02


@dataclass(frozen=True)
class SignedRequest:
    """A request as an engine makes it: `body, headers = request`."""

    body: bytes
    headers: Mapping[str, str]

    def __iter__(self) -> Iterator[Any]:
        yield self.body
        yield dict(self.headers)


def sign_for_test(
    event_type: str = "workflow.completed",
    data: Mapping[str, Any] | str | None = None,
    *,
    secret: str = SECRET,
    event_id: str | None = None,
    attempt: int = 1,
    sent_at_unix_seconds: float | None = None,
) -> SignedRequest:
    """Make a request as an engine would, signed now or at another time.

    Without `data` it is the example of the catalogue, or `{}` for a type that is not there. Two
    requests with one `event_id` are of the same event, which a receiver processes once.
    """
    if data is None:
        data = EXAMPLES.get(event_type, {})
    now = time.time()
    event_id = event_id or f"evt_{int(now * 1_000_000):013x}{secrets.token_hex(6)[:11]}"
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return _signed(
        event_of(event_id, event_type, text, int(now)).body,
        event_id=event_id,
        event_type=event_type,
        secret=secret,
        attempt=attempt,
        unix_seconds=now if sent_at_unix_seconds is None else sent_at_unix_seconds,
    )


def forge_for_test(
    kind: str, event_type: str = "workflow.completed", *, secret: str = SECRET
) -> SignedRequest:
    """Make a request that a receiver has to refuse; `kind` is one of FORGERIES."""
    if kind == "with another secret":
        return sign_for_test(event_type, secret=_ANOTHER)
    if kind == "ten minutes old":
        at = time.time() - _STALE_SECONDS
        return sign_for_test(event_type, secret=secret, sent_at_unix_seconds=at)
    if kind == "of ten minutes from now":
        at = time.time() + _STALE_SECONDS
        return sign_for_test(event_type, secret=secret, sent_at_unix_seconds=at)
    body, headers = sign_for_test(event_type, secret=secret)
    if kind == "without a signature":
        named = ("webhook-signature", "X-AetherFlow-Signature")
        return SignedRequest(body, {k: v for k, v in headers.items() if k not in named})
    if kind == "with another body":
        return SignedRequest(body.replace(b'"data":', b'"data": '), headers)
    if kind == "of another event":
        other = sign_for_test(event_type).headers["webhook-id"]
        return SignedRequest(body, {**headers, "webhook-id": other})
    raise ValueError(f"{kind!r} is none of {', '.join(FORGERIES)}")


@dataclass(frozen=True, kw_only=True)
class EmittedEvent:
    """An event as it was emitted."""

    id: str
    type: str
    data: dict[str, Any]
    tenant: str
    deliver_at: datetime | None
    expires_at: datetime | None
    ordering_key: str | None
    channels: list[str]
    body: bytes  # exactly as receivers would get it

    def signed(self, secret: str = SECRET, *, attempt: int = 1) -> SignedRequest:
        """Make the request that an engine would make of it now."""
        return _signed(
            self.body,
            event_id=self.id,
            event_type=self.type,
            secret=secret,
            attempt=attempt,
            unix_seconds=time.time(),
        )


class Emitted:
    """The events that were emitted on a connection since its transaction began, oldest first.

    Call it where nothing is awaited, `emitted("user.joined")`, and else `await
    emitted.fetch("user.joined")`; without a type it gives all of them. It reads on that connection
    itself, so what is not committed is there, and what was rolled back to a savepoint is not. What
    others commit meanwhile is there as well, where they share the database.
    Where the code under test commits, set `since` first.
    """

    def __init__(self, connection: Any, *, schema: str = "aetherflow") -> None:
        """Read on a connection or session as `emit` takes it."""
        self._connection = connection
        self._schema = schema
        self.since: datetime | None = None
        """From when on, by the clock of Postgres; None: since its transaction began."""

    def __call__(self, *types: str) -> list[EmittedEvent]:
        """Give the events of some types, or all, where nothing is awaited."""
        from aetherflow_hooks.drivers import fetch_sync  # noqa: PLC0415

        return self._told(fetch_sync(self._connection, self._statement(), *self._values(types)))

    async def fetch(self, *types: str) -> list[EmittedEvent]:
        """Give the events of some types, or all, on a connection that is awaited."""
        from aetherflow_hooks.drivers import fetch  # noqa: PLC0415

        return self._told(await fetch(self._connection, self._statement(), *self._values(types)))

    def _values(self, types: Sequence[str]) -> tuple[datetime | None, list[str] | None]:
        return self.since, list(types) or None

    def _statement(self) -> str:
        from aetherflow_hooks.db.statements import statements  # noqa: PLC0415

        return statements(self._schema)["emitted_since"]

    def _told(self, rows: Sequence[Sequence[Any]]) -> list[EmittedEvent]:
        events = []
        for event_id, kind, tenant, data, emitted_at, *rest in rows:
            deliver_at, expires_at, ordering_key, channels = rest
            events.append(
                EmittedEvent(
                    id=event_id,
                    type=kind,
                    data=json.loads(data),
                    tenant=tenant,
                    deliver_at=deliver_at,
                    expires_at=expires_at,
                    ordering_key=ordering_key,
                    channels=channels,
                    body=event_of(event_id, kind, data, int(emitted_at.timestamp())).body,
                )
            )
        return events


class Attempted(NamedTuple):
    """A POST that was made."""

    endpoint_id: str
    event_id: str
    type: str
    attempt: int
    status: int | None
    error: str | None


class DeliverNow:
    """Delivers what is committed and due, by a real engine in this process, and tells how it went.

    Call it where nothing is awaited, and else `await deliver_now.run()`. What fails is left for its
    next attempt, which is not waited for; so is what comes behind at an endpoint that fails ten
    times in a row, or does not answer three times. Hosts on this machine may be posted to.
    """

    def __init__(self, settings: "Settings") -> None:
        """Take the settings of an engine."""
        self._settings = settings

    def __call__(self) -> list[Attempted]:
        """Deliver on a loop in a thread of its own, so that it works whatever runs here.

        Raises:
            HooksError: the engine cannot start.
            TimeoutError: some of it is not delivered within 15 s.
        """
        with ThreadPoolExecutor(1, "deliver_now") as thread:
            return thread.submit(lambda: asyncio.run(self.run())).result()

    async def run(self) -> list[Attempted]:
        """Deliver on this loop.

        Raises:
            HooksError: the engine cannot start.
            TimeoutError: some of it is not delivered within 15 s.
        """
        from aetherflow_hooks.db import Database  # noqa: PLC0415
        from aetherflow_hooks.engine import start_engine  # noqa: PLC0415
        from aetherflow_hooks.manage.attempts import Chosen, list_attempts  # noqa: PLC0415
        from aetherflow_hooks.manage.pages import ROWS_MAX  # noqa: PLC0415

        async with Database(self._settings.database) as database:
            since = await database.value("clock")
            give_up_at = time.monotonic() + DELIVER_SECONDS_MAX
            async with start_engine(self._settings):
                while await database.value("is_due", since):
                    if time.monotonic() > give_up_at:
                        raise TimeoutError(
                            f"not everything that is due was sent within {DELIVER_SECONDS_MAX:g} s"
                        )
                    await asyncio.sleep(_LOOK_SECONDS)
            rows: list[dict[str, Any]] = []
            before: str | None = None
            while True:
                page = await list_attempts(
                    database, Chosen(since=since), before=before, rows_max=ROWS_MAX
                )
                rows += page.rows
                if (before := page.before) is None:
                    break
        return [Attempted(*(row[name] for name in Attempted._fields)) for row in reversed(rows)]


def _signed(
    body: bytes,
    *,
    event_id: str,
    event_type: str,
    secret: str,
    attempt: int,
    unix_seconds: float,
) -> SignedRequest:
    lines = signed_lines(
        [keys_of(secret)],
        body,
        event_id=event_id,
        event_type=event_type,
        delivery=f"dlv_{event_id[4:]}_000000000000",
        attempt=attempt,
        unix_seconds=int(unix_seconds),
    )
    headers = dict(line.split(": ", 1) for line in lines.splitlines())
    return SignedRequest(body, {"Content-Type": "application/json", **headers})


@pytest.fixture
def aetherflow_connection() -> Any:
    """The connection or session that a test works on: an application says which."""
    pytest.fail(
        "say which connection or session your tests work on, by a fixture named "
        "aetherflow_connection in your conftest.py",
        pytrace=False,
    )


@pytest.fixture
def aetherflow_settings() -> "Settings":
    """The settings of the engine that `deliver_now` runs: those of the environment."""
    from aetherflow_hooks.config import load  # noqa: PLC0415

    settings = load(
        given={
            "profile": "development",
            "web": {"port": 0},
            "engine": {"restore_guard": False},  # a test's database may be a copy
        }
    )
    if not settings.database.dsn:
        pytest.fail(
            "say which database deliver_now works on: set DATABASE_URL, or give settings by a "
            "fixture named aetherflow_settings",
            pytrace=False,
        )
    return settings


@pytest.fixture
def emitted(aetherflow_connection: Any) -> Emitted:
    """What was emitted on the test's own connection, committed or not."""
    return Emitted(aetherflow_connection)


@pytest.fixture
def deliver_now(aetherflow_settings: "Settings") -> DeliverNow:
    """Delivers what is committed, by a real engine."""
    return DeliverNow(aetherflow_settings)


@pytest.fixture
def webhook_secret() -> str:
    """What the receiver under test verifies with: it says what that is, or takes this."""
    return SECRET


@pytest.fixture(params=EXAMPLES)
def sample_webhook(request: pytest.FixtureRequest, webhook_secret: str) -> SignedRequest:
    """A signed request of each of the twelve types, in a test of its own."""
    return sign_for_test(request.param, secret=webhook_secret)


@pytest.fixture(params=FORGERIES)
def forged_webhook(request: pytest.FixtureRequest, webhook_secret: str) -> SignedRequest:
    """A request that has to be refused, of each kind, in a test of its own."""
    return forge_for_test(request.param, secret=webhook_secret)
