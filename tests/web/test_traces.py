"""Traces: from an application's request to the receiver's, whatever happens in between."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from aiohttp import web
from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aetherflow_hooks import NewEvent, emit, emit_many, migrate, sync
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.errors import ConfigInvalid
from aetherflow_hooks.manage.tokens import Scope
from tests.conftest import World, settings_for, until
from tests.web.conftest import Api

TRACED = {"traces": {"enabled": True}}
ELSEWHERE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_exporter = InMemorySpanExporter()


@pytest.fixture(scope="module", autouse=True)
def provider() -> TracerProvider:
    """What an application sets up; there is one in a process, for good."""
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter))
    trace.set_tracer_provider(provider)
    return provider


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    _exporter.clear()
    yield _exporter
    _exporter.clear()


class Traced:
    """A receiver that traces its own work as part of whatever trace it is told of."""

    def __init__(self) -> None:
        self.url = ""
        self.answers = [200]
        self.told: list[str | None] = []

    async def receive(self, request: web.Request) -> web.Response:
        self.told.append(request.headers.get("traceparent"))
        context = propagate.extract(request.headers)
        with trace.get_tracer("receiver").start_as_current_span("receive", context=context):
            await request.read()
            status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            return web.Response(status=status)


@pytest_asyncio.fixture
async def traced() -> AsyncIterator[Traced]:
    receiver = Traced()
    application = web.Application()
    application.router.add_post("/", receiver.receive)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/?token=hidden"
    yield receiver
    await runner.cleanup()


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_one_trace_from_request_to_receiver_across_a_retry_and_a_restart(
    world: World, traced: Traced, spans: InMemorySpanExporter
) -> None:
    traced.answers = [503, 200]
    endpoint = await world.endpoint(url=traced.url, retry_schedule_seconds=[3600], traced=True)
    async with world.engine(**TRACED):
        with trace.get_tracer("application").start_as_current_span("request") as request:
            async with world.connection.transaction():
                event_id = await emit(world.connection, "a.b", {"n": 1})
        await world.until("select count(*) = 1 from aetherflow.attempts")
    await world.make_due()
    async with world.engine(**TRACED):
        await world.settled()
    context = request.get_span_context()
    assert {span.context.trace_id for span in spans.get_finished_spans()} == {context.trace_id}
    first, second = named(spans, "POST")
    assert [parent_of(span) for span in (first, second)] == [context.span_id] * 2
    receives = named(spans, "receive")
    assert [parent_of(span) for span in receives] == [first.context.span_id, second.context.span_id]
    told = [span.attributes or {} for span in (first, second)]
    assert [it["http.response.status_code"] for it in told] == [503, 200]
    assert [it["aetherflow.attempt"] for it in told] == [1, 2]
    assert {it["aetherflow.event.id"] for it in told} == {event_id}
    assert {it["aetherflow.endpoint.id"] for it in told} == {endpoint["id"]}
    assert [span.status.is_ok for span in (first, second)] == [False, True]
    assert first.kind is trace.SpanKind.CLIENT
    assert "hidden" not in json.dumps([span.to_json() for span in spans.get_finished_spans()])


async def test_an_endpoint_that_has_not_asked_is_told_nothing(
    world: World, traced: Traced, spans: InMemorySpanExporter
) -> None:
    endpoint = await world.endpoint(url=traced.url)
    async with world.engine(**TRACED):
        with trace.get_tracer("application").start_as_current_span("request"):
            await emit(world.connection, "a.b", {})
            await world.settled()
            await world.change(endpoint["id"], traced=True)
            await emit(world.connection, "a.b", {})
            await world.settled()
    assert traced.told[0] is None
    assert traced.told[1] is not None
    assert len(named(spans, "POST")) == 2


async def test_an_engine_that_does_not_trace_passes_the_callers_place_on(
    world: World, traced: Traced, spans: InMemorySpanExporter
) -> None:
    await world.endpoint(url=traced.url, traced=True)
    async with world.engine():
        async with world.connection.transaction():
            await world.connection.execute(f"set local aetherflow.traceparent = '{ELSEWHERE}'")
            await world.emit()
        await world.emit()  # of another transaction
        await world.settled()
    assert sorted(map(str, traced.told)) == [ELSEWHERE, "None"]
    assert named(spans, "POST") == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        ELSEWHERE.upper(),
        f"{ELSEWHERE[:-1]}\n",
        ELSEWHERE.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "'; drop table events; --" * 100,
    ],
)
async def test_what_is_no_place_in_a_trace_is_passed_over_and_the_event_is_not(
    world: World, text: str
) -> None:
    async with world.connection.transaction():
        await world.value("select set_config('aetherflow.traceparent', $1, true)", text)
        await world.emit()
    assert await world.value("select traceparent from aetherflow.events") is None


async def test_every_way_to_emit_keeps_the_callers_place(world: World, api: Api) -> None:
    with trace.get_tracer("application").start_as_current_span("request") as request:
        async with world.connection.transaction():
            await emit(world.connection, "a.b", {})
            await emit_many(world.connection, [NewEvent(type="a.b", data={})] * 2)
        await asyncio.to_thread(_emit_sync, world.dsn)
    assert await world.value("select count(*) from aetherflow.events") == 4
    span_id = f"{request.get_span_context().span_id:016x}"
    assert (
        await world.value(
            "select count(*) from aetherflow.events where traceparent like $1", f"00-%-{span_id}-%"
        )
        == 4
    )
    client = await api.client(Scope.WRITE)
    event = {"type": "by.api", "data": {}}
    (await client("POST", "/events", event, headers={"traceparent": ELSEWHERE})).given(201)
    (await client("POST", "/events", event, headers={"traceparent": "nonsense"})).given(201)
    rows = await world.rows("select traceparent from aetherflow.events where type = 'by.api'")
    assert sorted(str(row["traceparent"]) for row in rows) == [ELSEWHERE, "None"]


def _emit_sync(dsn: str) -> None:
    import psycopg  # noqa: PLC0415

    with psycopg.connect(dsn) as connection:
        sync.emit(connection, "a.b", {})


async def test_attempts_that_fail_are_spans_that_say_how(
    world: World, spans: InMemorySpanExporter
) -> None:
    await world.endpoint("/late", "hang", timeout_seconds=0.1, retry_schedule_seconds=[])
    await world.endpoint("/gone", "410", tenant="x")
    async with world.engine(**TRACED):
        await world.emit()
        await world.emit(tenant="x")
        await world.settled()
    errors = {str((span.attributes or {})["error.type"]) for span in named(spans, "POST")}
    assert errors == {"timed_out", "410"}


async def test_where_opentelemetry_is_missing_the_engine_says_what_to_do(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(ConfigInvalid, match=r"pip install 'aetherflow-hooks\[otel\]'"):
        async with world.engine(**TRACED):
            pass


async def test_a_daemon_sends_its_spans_by_otlp(world: World) -> None:
    """The environment says where to, by OpenTelemetry's own variables."""
    bodies: list[bytes] = []

    async def collect(request: web.Request) -> web.Response:
        bodies.append(await request.read())
        return web.Response()

    application = web.Application()
    application.router.add_post("/v1/traces", collect)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    await world.endpoint()
    await world.emit()
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{runner.addresses[0][1]}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
        "AETHERFLOW_HOOKS_TRACES__ENABLED": "true",
        "AETHERFLOW_HOOKS_PROFILE": "development",
        "PATH": "/usr/bin:/bin",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "aetherflow_hooks",
        "run",
        "--dsn",
        world.dsn,
        env=environment,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        await until(lambda: _true(bodies), "a span")
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()
    assert b"aetherflow-hooks" in b"".join(bodies)
    assert b"aetherflow.delivery.id" in b"".join(bodies)


async def _true(value: Any) -> bool:
    return bool(value)


async def test_in_a_schema_of_another_name_it_is_the_same(
    empty_dsn: str, receiver: Receiver
) -> None:
    settings = settings_for(empty_dsn, database={"schema_name": "hooks"})
    await migrate(settings)
    connection = await asyncpg.connect(empty_dsn)
    with trace.get_tracer("application").start_as_current_span("request") as request:
        await emit(connection, "a.b", {}, schema="hooks")
    async with connection.transaction():
        await connection.execute(f"set local aetherflow.traceparent = '{ELSEWHERE}'")
        await connection.fetchval("select hooks.emit('a.b', '{}')")
    rows = await connection.fetch("select traceparent from hooks.events order by id")
    await connection.close()
    span_id = f"{request.get_span_context().span_id:016x}"
    assert span_id in rows[0]["traceparent"]
    assert rows[1]["traceparent"] == ELSEWHERE


async def test_a_url_by_another_hand_does_not_stop_an_engine_that_traces(world: World) -> None:
    for port in ("99999", "x"):
        await world.endpoint(f"/{port}", retry_schedule_seconds=[])
        await world.connection.execute(
            "update aetherflow.endpoints set url = $1 where url like $2",
            f"http://127.0.0.1:{port}/",
            f"%/{port}?%",
        )
    async with world.engine(**TRACED):
        await world.emit()
        await world.settled()
    rows = await world.rows("select outcome from aetherflow.attempts")
    assert [row["outcome"] for row in rows] == ["blocked"] * 2


async def test_no_header_is_made_of_what_another_hand_wrote(world: World, traced: Traced) -> None:
    await world.endpoint(url=traced.url, traced=True, headers={"traceparent": "its own"})
    await world.endpoint(url=traced.url, traced=True, tenant="x")
    async with world.engine():
        await world.emit()
        event_id = await world.emit(tenant="x", deliver_at=datetime.now(UTC) + timedelta(seconds=1))
        await world.connection.execute(
            "update aetherflow.events set traceparent = E'00-1\\r\\nX-Forged: 1' where id = $1",
            event_id,
        )
        await world.settled()
    assert sorted(map(str, traced.told)) == ["None", "its own"]
