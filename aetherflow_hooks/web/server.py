"""Server: listens, lets in who may come in, and hands each request to its route."""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from ipaddress import ip_address

import orjson
from aiohttp import web

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import ConfigInvalid, DatabaseUnavailable, HooksError
from aetherflow_hooks.manage.polls import OnRecorded
from aetherflow_hooks.manage.tokens import Access
from aetherflow_hooks.manage.trial import TryOut
from aetherflow_hooks.rules.traceparent import read_traceparent
from aetherflow_hooks.watch.log import LogEvent, log
from aetherflow_hooks.watch.metrics import Samples
from aetherflow_hooks.web.api import ROUTES
from aetherflow_hooks.web.dashboard import Site, is_for_people, problem_page
from aetherflow_hooks.web.exposition import PATH as METRICS
from aetherflow_hooks.web.exposition import Exposition, Scrapers
from aetherflow_hooks.web.guard import Doorman, Hosts, harden, presented
from aetherflow_hooks.web.live import Live
from aetherflow_hooks.web.openapi import PATH as DOCUMENT
from aetherflow_hooks.web.openapi import document
from aetherflow_hooks.web.problems import Problem, problem_of
from aetherflow_hooks.web.routes import JSON, Call, Lent, Route
from aetherflow_hooks.web.waiting import Waiting

ENVELOPE_BYTES = 65_536  # of a request, beside the data of an event
PROBES = ("/livez", "/readyz")
STOP_SECONDS = 2.0  # for requests under way
DOOR_SECONDS = 2.0  # for Postgres to know a token, or to show that it is there
# A request waits for no lock that somebody holds, and for no statement that does not end.
SHORT_OF_PATIENCE = {"lock_timeout": "2s", "statement_timeout": "8s"}

FAULT = HTTPStatus.INTERNAL_SERVER_ERROR

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class _Protocol(web.RequestHandler):
    """Answers what is no HTTP as all else is answered, and repeats nothing of it, nor logs it."""

    __slots__ = ()

    def handle_error(self, *_: object, **__: object) -> web.StreamResponse:
        """Answer a request that never became one."""
        problem = Problem(HTTPStatus.BAD_REQUEST, "this cannot be read as an HTTP request")
        response = problem.answer()
        harden(response)
        response.force_close()
        return response


@dataclass(frozen=True, slots=True)
class OfEngine:
    """What the engine lends."""

    try_out: TryOut
    faults: Callable[[], Awaitable[list[str]]]  # why it is not ready, in words
    samples: Callable[[Sequence[str]], Samples]  # its numbers, with these faults
    on_recorded: OnRecorded  # counts attempts that are on record
    is_released: Callable[[], bool]  # unless the database was restored, and nobody accepted it


class Server:
    """The HTTP server of an engine."""

    def __init__(self, settings: Settings, of_engine: OfEngine) -> None:
        """Prepare; `start` listens. It has its own few connections to Postgres.

        So it neither waits for those of the flow, nor can it keep them from the flow.
        """
        own = settings.database.model_copy(update={"connections_max": settings.web.connections_max})
        door = settings.database.model_copy(
            update={"connections_max": 1, "command_timeout_seconds": DOOR_SECONDS}
        )
        self._settings = settings
        self._of_engine = of_engine
        self._database = Database(own, server_settings=SHORT_OF_PATIENCE)
        self._door = Database(door)  # who comes in waits for nobody who is in
        self._doorman = Doorman(self._door)
        self._counting = asyncio.Semaphore(1)
        self._live = Live(self._database, settings.post.timeout_seconds)
        self._site = Site(self._doorman, self._call, settings.web.embed_origins)
        self._waiting = Waiting(self._database)
        self._exposition = Exposition(
            self._database,
            faults=of_engine.faults,
            samples=of_engine.samples,
            seen_seconds=settings.engine.shard_lease_seconds,
        )
        self._scrapers = Scrapers()
        self._hosts = Hosts(_names(settings), settings.web.port)
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen, where the settings say so.

        Raises:
            ConfigInvalid: nothing can listen there.
        """
        settings = self._settings.web
        if not settings.port:
            return
        await self._database.open()
        await self._door.open()
        application = web.Application(
            middlewares=[self._answered], client_max_size=self._request_bytes_max()
        )
        application.router.add_get("/livez", self._livez)
        application.router.add_get("/readyz", self._readyz)
        application.router.add_get(METRICS, self._metrics)
        application.router.add_get(DOCUMENT, self._document)
        for route in ROUTES:
            application.router.add_route(route.method, route.path, self._handler(route))
        self._site.add_to(application.router)
        self._runner = web.AppRunner(
            application, access_log=None, handle_signals=False, shutdown_timeout=STOP_SECONDS
        )
        await self._runner.setup()
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._protocol, settings.host, settings.port, ssl=_tls(self._settings)
            )
        except OSError as error:
            await self.stop()
            raise ConfigInvalid(
                "settings", [f"web.host and web.port: nothing can listen there: {error.strerror}"]
            ) from error
        log.info(LogEvent.WEB_STARTED, host=settings.host, port=settings.port)

    async def stop(self) -> None:
        """Listen no more; give requests under way a moment."""
        self._live.stop()
        self._exposition.stop()
        await self._waiting.stop()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        await self._database.close()
        await self._door.close()

    def arrived(self, endpoint_id: str) -> None:
        """Let whoever polls for an endpoint know that there is new work."""
        self._waiting.arrived(endpoint_id)

    def _protocol(self) -> web.RequestHandler:
        """Make what speaks on a new connection."""
        assert self._runner is not None
        assert self._runner.server is not None
        protocol = self._runner.server()
        protocol.__class__ = _Protocol  # the library has no other place to choose it
        return protocol

    @web.middleware
    async def _answered(self, request: web.Request, handler: Answer) -> web.StreamResponse:
        """See that every answer is one of ours, whatever happens."""
        try:
            if request.path not in PROBES:  # which are asked by address, and tell nothing
                self._hosts.check(request)
            response = await handler(request)
        except Exception as error:  # noqa: BLE001  of any kind: a defect of ours is told as one
            problem = self._problem(error)
            is_page = is_for_people(request)
            response = problem_page(request, problem) if is_page else problem.answer()
        if not response.prepared:
            self._site.frame(request, response)
            harden(response)
        return response

    def _problem(self, error: Exception) -> Problem:
        """Say what an error is to whoever asked; of our own faults the log tells the reason."""
        match error:
            case Problem():
                return error
            case web.RequestPayloadError():
                return Problem(HTTPStatus.BAD_REQUEST, "the body cannot be unpacked")
            case web.HTTPException():  # of the router, or a body that is too large
                status = HTTPStatus(error.status)
                allow = {name: it for name, it in error.headers.items() if name == "Allow"}
                return Problem(status, _ROUTER_SAYS.get(status, status.phrase), headers=allow)
            case HooksError() if (problem := problem_of(error)).status != FAULT:
                return problem
        problem = Problem(FAULT, "this is our fault; the log tells more")
        log.error(LogEvent.STAGE_FAILED, stage="web", problem=problem.id, exc_info=error)
        return problem

    def _handler(self, route: Route) -> Answer:
        async def answer(request: web.Request) -> web.StreamResponse:
            access = await self._doorman.admit(request)
            call = self._call(request, access, partial(self._doorman.is_still_in, request))
            call.check(route.scope)
            raw = await request.read() if route.body is not None else b""
            traceparent = request.headers.get("traceparent", "")
            traceparent = traceparent if read_traceparent(traceparent) else ""
            return await route.answer(request, replace(call, raw=raw, traceparent=traceparent))

        return answer

    def _call(
        self, request: web.Request, access: Access, still_in: Callable[[], Awaitable[bool]]
    ) -> Call:
        database = self._database.acting(access.actor)
        of_engine = self._of_engine
        lent = Lent(
            of_engine.try_out,
            self._live,
            self._waiting,
            of_engine.on_recorded,
            of_engine.is_released,
            self._counting,
        )
        return Call(access, database, self._settings, lent, still_in, partial(_is_gone, request))

    async def _document(self, request: web.Request) -> web.Response:
        await self._doorman.admit(request)
        return web.Response(body=orjson.dumps(document(ROUTES)), content_type=JSON)

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._settings.metrics.without_token:
            await self._scrapers.check(presented(request), partial(self._doorman.admit, request))
        return await self._exposition.answer(request.headers.get("Accept", ""))

    async def _livez(self, _: web.Request) -> web.Response:
        """Pass: whoever is stuck answers nothing."""
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        """Pass where the engine can do its work."""
        faults = await self._of_engine.faults()
        try:
            await self._door.value("shards_count")
        except DatabaseUnavailable:
            faults.append("Postgres cannot be reached")
        if faults:
            return web.Response(status=503, text="".join(f"{fault}\n" for fault in faults))
        return web.Response(text="ok\n")

    def _request_bytes_max(self) -> int:
        # A form writes three characters for most of those that JSON is made of.
        return 3 * self._settings.emit.data_max_bytes + ENVELOPE_BYTES


_ROUTER_SAYS = {
    HTTPStatus.NOT_FOUND: "there is nothing at this path",
    HTTPStatus.METHOD_NOT_ALLOWED: "this path does not know that method",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "the body is too large: emit less at once",
}


def _is_gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()


def _names(settings: Settings) -> tuple[str, ...]:
    """Name what may be asked for: where it listens, this machine, and what the setting adds."""
    host = settings.web.host
    bound = f"[{host}]" if ":" in host else host
    loopback = ("localhost", "127.0.0.1", "[::1]") if is_loopback(host) else ()
    return tuple({bound, *loopback, *(name.lower() for name in settings.web.hosts)})


def is_loopback(host: str) -> bool:
    """Tell whether an address can be reached from this machine alone."""
    return host == "localhost" or ip_address(host).is_loopback


def _tls(settings: Settings) -> ssl.SSLContext | None:
    web_settings = settings.web
    if not web_settings.certificate_file:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(web_settings.certificate_file, web_settings.key_file or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigInvalid(
            "settings", [f"web.certificate_file cannot be used: {error}"]
        ) from error
    return context
