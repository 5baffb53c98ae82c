"""Engine: the flow, wired.

    emit → outbox → fanout → deliveries → lease → pace → post → record → attempts
                                 ↑______________ retry ______________|

`start_engine()` starts one on the running loop. It owns every task and connection of its own, and
ends them all in `stop()`, from the front of the flow to its back.
"""

import asyncio
import math
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Collection, Generator, Sequence
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from aetherflow_hooks.config import Settings, load
from aetherflow_hooks.db import Database, Listener, check_schema, migrate
from aetherflow_hooks.errors import ConfigInvalid, DatabaseUnavailable
from aetherflow_hooks.flow.archive import Archive
from aetherflow_hooks.flow.backlog import Backlog
from aetherflow_hooks.flow.fanout import Fanout
from aetherflow_hooks.flow.health import Health
from aetherflow_hooks.flow.hold import Hold
from aetherflow_hooks.flow.lease import Lease
from aetherflow_hooks.flow.lookout import Lookout
from aetherflow_hooks.flow.pace import Pace
from aetherflow_hooks.flow.post import Post
from aetherflow_hooks.flow.record import Record
from aetherflow_hooks.flow.replay import Replay
from aetherflow_hooks.flow.search import Search
from aetherflow_hooks.flow.sweep import Sweep
from aetherflow_hooks.flow.tally import Tally
from aetherflow_hooks.flow.versions import Versions
from aetherflow_hooks.http import BROKEN_OFF
from aetherflow_hooks.manage.keys import check_keys
from aetherflow_hooks.manage.replays import HINT as NEW_REPLAY
from aetherflow_hooks.manage.restore import call_restored, is_held
from aetherflow_hooks.model import (
    Attempt,
    DeadReason,
    Delivered,
    Delivery,
    Ended,
    Endpoint,
    Event,
    GiveUp,
    Halt,
    Leased,
    NotReached,
    Outcome,
    Prevented,
    RetryIn,
    Verdict,
)
from aetherflow_hooks.rules.addresses import nets_at, opens_closed, parse_entry
from aetherflow_hooks.rules.lane import Reply, reply_of
from aetherflow_hooks.rules.retry import DELIVERED, delivers, judge
from aetherflow_hooks.shards import Shards
from aetherflow_hooks.watch.attempts import AttemptLog
from aetherflow_hooks.watch.log import LogEvent, log
from aetherflow_hooks.watch.metrics import Attempts, Samples, Turns, by_label
from aetherflow_hooks.watch.traces import Tracer

if TYPE_CHECKING:
    from aetherflow_hooks.web.server import Server

Done = Callable[[Reply | None], None]  # what a POST told of its endpoint; None: it was not made
VERSION = version("aetherflow-hooks")
TASKS = "aetherflow_hooks "  # how the names of our tasks begin
LEASE_LOOPS = 2  # while one waits for the database, another shard is asked
RECORD_LOOPS = 2
DEFECT_PAUSE_SECONDS = 1.0
WAKE_OTHERS_SECONDS = 0.02  # at most one notification to other engines in this time
FORGET_SECONDS = 5.0  # between looks for endpoints that have had no work for long
FIRST_SWEEP_SECONDS = 60.0  # after the start, at the latest: an engine may be restarted often
STOP_SECONDS = 10.0  # beyond the grace, for the database to take what is left
PREVENTED_SECONDS_MIN = 0.2
PREVENTED_SECONDS_MAX = 10.0
WORD_SECONDS = 1.0  # between looks whether a restored database has been accepted
RELOADED_TOGETHER = 500  # endpoints
STUCK_SECONDS = 60.0  # no turn of a stage takes so long by itself: its statements have time limits
# Whose turns take as long as there is work.
UNHURRIED = frozenset({"sweep", "wide", "search", "backlog", "replay"})


class Engine:
    """A running engine. `start_engine()` makes one."""

    def __init__(self, settings: Settings) -> None:
        """Wire the stages; nothing runs yet."""
        self.id = f"eng_{secrets.token_hex(6)}"
        self._settings = settings
        self._keyring = settings.keyring()
        self._database = Database(settings.database, for_flow=True)
        self._listener = Listener(settings.database, self._woken, self._deafened)
        self._shards = Shards(
            self._database,
            settings.engine,
            engine_id=self.id,
            host=f"{socket.gethostname()}/{os.getpid()}",
            on_taken=self._taken,
            on_lost=self._lost,
            is_quiet=self._is_quiet,
            in_flight=lambda: self._pace.in_flight,
        )
        self._post = Post(settings.post, settings.egress_rules(), settings.proxy())
        self._pace = Pace(
            settings.pace,
            settings.lease,
            send=self._attempt,
            break_off=self._post.break_off,
            holds=self._shards.holds,
            give_back=self._give_back,
        )
        self._lease = Lease(
            self._database,
            settings,
            wanted=self._pace.wanted,
            may_wait=self._pace.may_wait,
            open_rooms=self._pace.open_rooms,
            known=self._pace.known,
            keyring=lambda: self._keyring,
            versions=Versions(self._database).fetch,
            on_late=self._late,
            hand_on=self._leased,
            hand_back=self._pace.take_none,
        )
        self._fanout = Fanout(
            self._database,
            settings.fanout,
            engine_id=self.id,
            shards=self._shards.held,
            hand_on=self._fanned_out,
            hands=self._lease,
            on_polled=self._arrived,
        )
        self._search = Search(
            self._database,
            settings.pace,
            shards=self._shards.held,
            load=self._lease.load,
            known=self._pace.known,
            waiting=lambda: self._pace.asking,
            wide_since=lambda: self._fanout.wide_since,
            hand_on=self._pace.due,
        )
        self._pace.on_room = self._lease.wake.set
        self._hold = Hold(
            self._database,
            load=self._lease.load,
            read_keys=self._read_keys,
            hand_on=self._held_no_longer,
        )
        self._backlog = Backlog(self._database, settings.emit)
        self._health = Health(self._database, settings.health, on_disabled=self._pace.recall)
        self._tally = Tally(self._database)
        self._attempts = Attempts(settings.metrics.endpoints_max)
        self._turns = Turns()
        self._attempt_log = AttemptLog(settings.log)
        self._tracer = Tracer(VERSION) if settings.traces.enabled else None
        self._prevented = 0
        self._record = Record(
            self._database,
            settings.record,
            on_recorded=self._recorded,
            on_retry=self._retry,
            on_gone=self._pace.open,
            on_next=partial(self._retry, seconds=0.0),
            on_full=self._pace.wait,
            on_room=self._resume,
        )
        self._replay = Replay(self._database, hand_on=self._replayed)
        self._sweep = Sweep(
            self._database,
            settings,
            shards=self._shards.held,
            archive=Archive(self._database, settings.sweep.archive_folder).keep,
            first_after_seconds=min(settings.sweep.every_seconds, FIRST_SWEEP_SECONDS),
        )
        self._lookout = Lookout(
            self._database,
            after_seconds=settings.engine.stuck_after_seconds,
            shards=self._shards.held,
            fanned_out=lambda: self._fanout.events,
            leased=lambda: self._lease.counts["lease"],
            is_held_up=self._pace.is_held_up,
        )
        self._released = asyncio.Event()  # set unless the database was restored
        self._web = None if settings.web.port is None else self._make_web(settings)
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = asyncio.Event()
        self._stopped = asyncio.Event()
        self._database_is_lost = False
        self._is_deaf = False
        self._turns_began: dict[object, tuple[str, float]] = {}
        self._is_prevented = False
        self._prevented_seconds = 0.0
        self._returned: list[Delivery] = []  # leases to end unused
        self._returning = asyncio.Event()
        self._others: set[int] = set()  # shards of other engines that have new work
        self._others_wake = asyncio.Event()

    def _make_web(self, settings: Settings) -> "Server":
        # Most engines listen nowhere, and to load it takes 7 MB.
        from aetherflow_hooks.web.server import OfEngine, Server  # noqa: PLC0415

        return Server(
            settings,
            OfEngine(
                self._post.try_out,
                self._faults,
                self._samples,
                on_recorded=self._recorded,
                is_released=self._released.is_set,
            ),
        )

    async def _start(self, *, restored: bool) -> None:
        """Connect, take a share of the work, and begin, unless the database was `restored`.

        Raises:
            HooksError: the database cannot be reached, or does not fit this program.
        """
        settings = self._settings
        if settings.database.migrate_at_start:
            await migrate(settings)
        if await check_schema(settings.database):
            log.warning(LogEvent.SCHEMA_NEWER)
        await self._database.open()
        try:
            await self._warn()
            await self._post.open(nets_at(await self._database.server_places()))
            await self._sweep.prepare()
            if restored:
                await call_restored(self._database)
            if await self._is_held():
                log.error(LogEvent.ENGINE_HELD, engine=self.id)
            else:
                self._released.set()
                await self._shards.turn()
            if self._web is not None:
                await self._web.start()
        except BaseException:
            if self._web is not None:
                await self._web.stop()
            await self._post.close()
            await self._database.close()
            raise
        loops: list[tuple[str, Callable[[], Awaitable[float]], asyncio.Event]] = [
            ("shards", self._shards.turn, asyncio.Event()),
            ("fanout", self._fanout.turn, self._fanout.wake),
            ("wide", self._fanout.wide_turn, self._fanout.wake_wide),
            ("search", self._search.turn, self._search.wake),
            ("others", self._wake_others_turn, self._others_wake),
            *[("lease", self._lease.turn, self._lease.wake)] * LEASE_LOOPS,
            ("return", self._return_turn, self._returning),
            *[("record", self._record.turn, self._record.wake)] * RECORD_LOOPS,
            ("tally", self._tally.turn, self._tally.wake),
            ("replay", self._replay.turn, self._replay.wake),
            ("backlog", self._backlog.turn, self._backlog.wake),
            ("health", self._health.turn, self._health.wake),
            ("hold", self._hold.turn, self._hold.wake),
            ("sweep", self._sweep.turn, self._sweep.wake),
            ("lookout", self._lookout.turn, self._lookout.wake),
            ("forget", self._forget_turn, asyncio.Event()),
        ]
        self._tasks = [
            asyncio.create_task(self._keep(name, turn, wake), name=TASKS + name)
            for name, turn, wake in loops
        ]
        self._tasks += [
            asyncio.create_task(self._listener.run(), name=TASKS + "listen"),
            asyncio.create_task(self._guard(), name=TASKS + "guard"),
            asyncio.create_task(self._wait_for_word(), name=TASKS + "word"),
        ]
        log.info(
            LogEvent.ENGINE_STARTED,
            engine=self.id,
            profile=settings.profile,
            shards=len(self._shards.held()),
        )

    async def _warn(self) -> None:
        """Tell what may well be meant so, and is worth a look all the same.

        Raises:
            KeyMissing: a key is missing, which is never meant.
        """
        settings = self._settings
        plain = await check_keys(self._database, self._keyring)
        if plain and settings.profile == "production":
            log.warning(LogEvent.SECRETS_PLAIN, secrets=plain)
        for entry in settings.egress.allow:
            if opens_closed(parse_entry(entry)):
                log.warning(LogEvent.EGRESS_OPENED, entry=entry)

    async def stop(self) -> None:
        """Drain: take nothing new, let POSTs under way end within the grace, write all results.

        What has not ended by then is broken off, to be sent again. Whoever calls this a second
        time waits for the first to end.
        """
        if self._draining.is_set():
            await self._stopped.wait()
            return
        self._draining.set()
        log.info(LogEvent.ENGINE_STOPPING, in_flight=self._pace.in_flight)
        try:
            if self._web is not None:
                await self._web.stop()
            self._cancel(
                *("fanout", "wide", "search", "others", "replay"),
                *("backlog", "health", "hold", "sweep", "lookout", "listen"),
            )
            await self._pace.drain(self._settings.engine.grace_seconds)
            async with asyncio.timeout(STOP_SECONDS):
                await self._cancelled(
                    "fanout", "wide"
                )  # what it has leased is known only at its end
                await self._write_rest()
                await self._cancelled("tally")
                await self._tally.write_all()
                await self._cancelled("shards")
                await self._shards.sign_off()
        except (DatabaseUnavailable, TimeoutError) as error:
            # Leases end by themselves, so nothing is lost; it only waits a little longer.
            log.warning(LogEvent.DATABASE_LOST, error=str(error), results=self._record.waiting)
        finally:
            await self._end()
            self._stopped.set()
        log.info(LogEvent.ENGINE_STOPPED, engine=self.id)

    async def reload(self, settings: Settings) -> None:
        """Take over those of new settings that can change while it runs; the log tells which.

        They are the defaults of endpoints, retries and the log; see `config.RELOADABLE`. What is
        under way ends as it began.

        Raises:
            DatabaseUnavailable: some endpoints go by the defaults of before, until they are changed
                or this is done again.
        """
        old = self._settings
        self._settings = old.with_reloadable(settings)
        log.info(
            LogEvent.SETTINGS_RELOADED,
            changed=old.differing(self._settings),
            needs_restart=self._settings.differing(settings),
        )
        self._attempt_log.settings = self._settings.log
        self._lease.use(self._settings)
        ids = self._pace.endpoint_ids
        for place in range(0, len(ids), RELOADED_TOGETHER):
            endpoints = await self._lease.load(ids[place : place + RELOADED_TOGETHER])
            known = {it: endpoints[it] for it in endpoints if self._pace.known(it)}
            for endpoint_id in known:
                self._pace.recall(endpoint_id)  # its leases are for as long as it had until now
            self._pace.take(Leased(None, [], known))
            self._due_again(known)

    def stuck(self) -> list[str]:
        """Name the stages whose turn has been going on for far too long; mostly there is none."""
        before = time.monotonic() - STUCK_SECONDS
        return sorted({name for name, began in self._turns_began.values() if began < before})

    async def _faults(self) -> list[str]:
        """Say in words why this engine is not ready."""
        faults = [f"the stage {name} does not get on" for name in self.stuck()]
        faults += self._lookout.stuck
        if self._draining.is_set():
            faults.append("it is stopping")
        if not self._released.is_set():
            faults.append(
                "the database was restored: `aetherflow-hooks restore accept` lets it go on"
            )
        if self._database_is_lost:
            faults.append("Postgres is away")
        return faults

    def _samples(self, faults: Sequence[str]) -> Samples:
        """Tell all numbers of this engine, whose `faults` have been found."""
        settings = self._settings
        http = self._post.connections()
        return {
            "engine": {(self.id, VERSION, settings.profile): 1.0},
            "ready": float(not faults),
            "stuck": float(len(self.stuck()) + len(self._lookout.stuck)),
            "shards_held": len(self._shards.held()),
            "events_fanned_out": self._fanout.events,
            "deliveries_created": self._fanout.deliveries,
            "deliveries_leased": by_label(self._lease.counts),
            "leases_returned": self._lease.returned,
            **self._attempts.samples(),
            "posts_in_flight": self._pace.in_flight,
            "posts_in_flight_limit": settings.pace.slots,
            "posts_prevented": self._prevented,
            "leases_held": self._pace.leased,
            "results_waiting": self._record.waiting,
            "results_waiting_limit": settings.record.waiting_max,
            "stage_turn_seconds": by_label(self._turns.took),
            "stage_failures": by_label(self._turns.failures),
            "stage_outages": by_label(self._turns.outages),
            "statement_seconds": by_label(self._database.took),
            "database_connections": by_label(self._database.connections),
            "database_connections_limit": settings.database.connections_max,
            "http_connections": {("busy",): http.busy, ("idle",): http.idle},
            "http_connections_opened": http.opened,
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # The way of a delivery, from stage to stage.

    def _fanned_out(self, made: list[tuple[int, str]], wide: bool, due_since: float) -> None:
        """Fanout → pace: endpoints have new work; those of one event, where it is `wide`."""
        now = time.monotonic()
        for shard, endpoint_id in made:
            endpoint = self._pace.known(endpoint_id)
            if not self._shards.holds(shard, now):
                self._others.add(shard)
                self._others_wake.set()
            elif endpoint is not None:
                self._pace.due(endpoint, due_since - now)
            elif wide:
                self._search.crowd(shard)
            else:
                self._search.stranger(endpoint_id)

    def _arrived(self, endpoint_id: str) -> None:
        """Fanout → web: somebody may be waiting to be given this."""
        if self._web is not None:
            self._web.arrived(endpoint_id)

    def _replayed(self, shard: int, endpoint_id: str) -> None:
        """Replay → pace: an endpoint has new work."""
        self._arrived(endpoint_id)
        self._fanned_out([(shard, endpoint_id)], wide=False, due_since=-math.inf)

    def _leased(self, leased: Leased) -> None:
        """Lease → pace, but for what is not to be sent any more."""
        for place, (delivery, event) in enumerate(leased.work):
            if event is not None and event.body and delivery.attempt == 1:
                continue
            endpoint = leased.endpoints.get(delivery.endpoint_id) or self._pace.known(
                delivery.endpoint_id
            )
            if event is None:
                reason = DeadReason.EXPIRED
            elif endpoint and event.unmade:
                leased.work[place] = delivery, None
                self._unmade(endpoint, delivery, event)
                continue
            elif not event.body:
                reason = DeadReason.TOO_LARGE
            elif endpoint and delivery.attempt > len(endpoint.retry_schedule_seconds) + 1:
                reason = DeadReason.EXHAUSTED  # its attempts ended without a result, in a crash
            else:
                continue
            leased.work[place] = delivery, None
            self._record.put(
                Attempt(
                    delivery,
                    None,
                    Halt() if endpoint and _halts(endpoint, reason) else GiveUp(reason),
                    delivery.leased_unix_us,
                    0,
                    event.type if event else "",
                    endpoint.tenant if endpoint else "",
                    bool(endpoint and endpoint.ordering),
                )
            )
        self._pace.take(leased)

    def _unmade(self, endpoint: Endpoint, delivery: Delivery, event: Event) -> None:
        """Lease → record: an attempt without a POST, since the endpoint's version was not made.

        The endpoint is not to blame: what else is for it goes on.
        """
        outcome = NotReached(event.unmade)
        verdict = self._judged(endpoint, delivery, outcome) or RetryIn(0.0)
        self._record.put(
            Attempt(
                delivery,
                outcome,
                verdict,
                delivery.leased_unix_us,
                0,
                event.type,
                endpoint.tenant,
                endpoint.ordering is not None,
            )
        )
        self._attempt_log.saw(endpoint, delivery, event, outcome, verdict, 0)

    def _attempt(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        done: Done,
    ) -> None:
        """Pace → post: make one POST; `done` is told in the end what came back."""
        if endpoint.unsignable:
            self._pace.shut(endpoint.id)
            self._give_back([delivery])
            done(None)
            self._hold.put(endpoint)
            return
        then: Callable[[Ended], None]
        then = partial(self._attempted, endpoint, delivery, event, done, time.monotonic())
        place = event.traceparent
        if self._tracer is not None:
            place, then = self._tracer.attempt(endpoint, delivery, event, then)
        try:
            self._post.send(
                endpoint,
                event,
                delivery.id,
                delivery.attempt,
                then,
                place if endpoint.traced else "",
            )
        except Exception as error:  # noqa: BLE001  a defect of ours uses up its attempts too
            log.error(LogEvent.STAGE_FAILED, stage="post", delivery=delivery.id, exc_info=error)
            then(NotReached(f"a defect of ours: {type(error).__name__}"))

    def _attempted(
        self,
        endpoint: Endpoint,
        delivery: Delivery,
        event: Event,
        done: Done,
        began: float,
        outcome: Ended,
    ) -> None:
        """Post → record: what follows from the outcome of a POST."""
        if isinstance(outcome, Prevented):
            self._prevented += 1
            self._prevent(outcome.reason)
            self._give_back([delivery])
            done(None)
            return
        self._prevented_seconds = 0.0
        try:
            verdict: Verdict | None = DELIVERED
            if not delivers(outcome):
                verdict = self._judged(endpoint, delivery, outcome)
            if verdict is None:
                self._give_back([delivery])
                return
            self._health.saw(endpoint, is_delivered=isinstance(verdict, Delivered))
            duration_ms = round((time.monotonic() - began) * 1000)
            # Counted from when we were told, since to be heard at all may have taken long.
            leased_seconds = began - delivery.told_at_monotonic
            started_unix_us = delivery.leased_unix_us + round(leased_seconds * 1_000_000)
            self._record.put(
                Attempt(
                    delivery,
                    outcome,
                    verdict,
                    started_unix_us,
                    duration_ms,
                    event.type,
                    endpoint.tenant,
                    endpoint.ordering is not None,
                    delivery.overdue_seconds + leased_seconds,
                )
            )
            self._attempt_log.saw(endpoint, delivery, event, outcome, verdict, duration_ms)
        except Exception as error:  # noqa: BLE001  a defect of ours: it is sent again
            log.error(LogEvent.STAGE_FAILED, stage="record", delivery=delivery.id, exc_info=error)
            self._give_back([delivery])
        finally:
            done(reply_of(outcome))

    def _resume(self) -> None:
        """Record → pace: go on sending, if nothing else stands against it."""
        if not self._record.is_full and not self._is_prevented:
            self._pace.resume()

    def _prevent(self, reason: str) -> None:
        """Start nothing for a while, since our own side is not able to; twice as long each time."""
        if self._is_prevented:
            return
        self._is_prevented = True
        self._pace.wait()
        self._prevented_seconds = min(
            max(2 * self._prevented_seconds, PREVENTED_SECONDS_MIN), PREVENTED_SECONDS_MAX
        )
        log.warning(LogEvent.POST_PREVENTED, error=reason, pause_seconds=self._prevented_seconds)
        asyncio.get_running_loop().call_later(self._prevented_seconds, self._try_again)

    def _try_again(self) -> None:
        self._is_prevented = False
        self._resume()

    def _judged(self, endpoint: Endpoint, delivery: Delivery, outcome: Outcome) -> Verdict | None:
        """Judge an outcome; None: it counts for nothing."""
        if outcome is BROKEN_OFF:
            # The last attempt is made again rather than lost to a stop of ours.
            is_last = delivery.attempt > len(endpoint.retry_schedule_seconds)
            return None if is_last else RetryIn(0.0)
        retry = self._settings.retry
        verdict = judge(
            outcome,
            attempt=delivery.attempt,
            schedule_seconds=endpoint.retry_schedule_seconds,
            jitter=retry.jitter,
            dice=random.random(),  # noqa: S311  spreads retries, guards nothing
            retry_after_max_seconds=retry.retry_after_max_seconds,
        )
        if isinstance(verdict, GiveUp):
            if verdict.reason is DeadReason.GONE:
                self._pace.shut(endpoint.id)
            elif _halts(endpoint, verdict.reason):
                return Halt()
        return verdict

    def _recorded(
        self, attempts: Sequence[Attempt], late: Collection[tuple[str, str, int]] = ()
    ) -> None:
        """Record → tally: these are on record."""
        self._tally.saw(attempts, late)
        self._attempts.saw(attempts, late)

    def _retry(self, delivery: Delivery, seconds: float) -> None:
        """Record → pace: a delivery is due again after a while."""
        endpoint = self._pace.known(delivery.endpoint_id)
        if endpoint is not None:
            self._pace.due(endpoint, seconds)

    def _give_back(self, deliveries: list[Delivery]) -> None:
        """Pace → lease: these were not sent."""
        self._returned += deliveries
        self._returning.set()

    async def _return_turn(self) -> float:
        returned = list(self._returned)
        await self._lease.give_back(returned)
        del self._returned[: len(returned)]  # not before it is done: a stop waits for that
        self._due_again({delivery.endpoint_id for delivery in returned})
        return 60.0

    def _late(self, endpoint_ids: Collection[str], seconds: float) -> None:
        """Lease → pace: there was no time for all of theirs; others come first for as long."""
        asyncio.get_running_loop().call_later(seconds, self._due_again, endpoint_ids)

    def _due_again(self, endpoint_ids: Collection[str]) -> None:
        now = time.monotonic()
        for endpoint_id in endpoint_ids:
            endpoint = self._pace.known(endpoint_id)
            if endpoint is not None and self._shards.holds(endpoint.shard, now):
                self._pace.due(endpoint, -math.inf)

    def _read_keys(self) -> None:
        """Read the keys again: their file may hold more of them by now."""
        try:
            self._keyring = self._settings.keyring()
        except ConfigInvalid as error:
            log.error(LogEvent.KEYS_UNREADABLE, error=str(error))

    def _held_no_longer(self, endpoint_id: str, endpoint: Endpoint | None) -> None:
        """Hold → pace: an endpoint's requests can be signed by now, or it wants none."""
        if endpoint is not None and self._pace.known(endpoint_id) is not None:
            self._pace.take(Leased(None, [], {endpoint_id: endpoint}))
        self._pace.open(endpoint_id)

    # Finding work that nobody told us of: after a start, a retry of another engine, a resumption.

    def _woken(self, hint: str) -> None:
        """Take a notification: nothing in it is trusted, it only says where to look.

        It is `e` and a shard's number for a new event, and the number alone for new deliveries, an
        endpoint's id where that was changed, the word for a new replay, and empty where a hint may
        have been missed.
        """
        is_new_event, shard = hint.startswith("e"), hint.removeprefix("e")
        if shard.isascii() and shard.isdigit() and len(shard) <= 4:  # noqa: PLR2004
            if is_new_event:
                self._fanout.tell(int(shard))
            else:
                self._search.look([int(shard)])
        elif hint == NEW_REPLAY:
            self._replay.wake.set()
        elif hint:
            self._pace.recall(hint)
            self._search.look(self._shards.held())
        else:
            self._is_deaf = False
            self._fanout.wake.set()

    def _deafened(self, reason: str) -> None:
        """Take it that no notification comes, which is told once, and with an outage not at all."""
        if not self._is_deaf and not self._database_is_lost:
            self._is_deaf = True
            log.warning(LogEvent.DATABASE_DEAF, reason=reason)

    async def _forget_turn(self) -> float:
        self._pace.forget_idle()
        return FORGET_SECONDS

    async def _wake_others_turn(self) -> float:
        """Tell other engines of work that our fan-out made for them, not too often."""
        others, self._others = self._others, set()
        for shard in others:
            await self._database.rows("wake", str(shard))
        await asyncio.sleep(WAKE_OTHERS_SECONDS)
        return 60.0

    def _taken(self, shards: Collection[int]) -> None:
        self._search.look(shards)

    def _lost(self, shards: Collection[int]) -> None:
        self._pace.drop(shards)

    def _is_quiet(self, shard: int) -> bool:
        """Tell whether nothing of a shard is under way, so that another engine may take it."""
        return not (
            self._pace.is_busy_with(shard)
            or self._record.waits_for(shard)
            or any(delivery.shard == shard for delivery in self._returned)
        )

    # The tasks.

    async def _keep(
        self, name: str, turn: Callable[[], Awaitable[float]], wake: asyncio.Event
    ) -> None:
        """Run a stage's turns, one after the other, until cancelled.

        A lost database pauses it with growing pauses; a defect of ours is logged and survived.
        """
        longest_seconds = self._settings.database.retry_seconds_max
        failures, own = 0, object()
        self._turns.began(name)
        await self._released.wait()
        while True:
            wake.clear()
            try:
                began = time.monotonic()
                if name not in UNHURRIED:
                    self._turns_began[own] = name, began
                try:
                    pause_seconds = await turn()
                finally:
                    self._turns_began.pop(own, None)
                    self._turns.took[name].saw(time.monotonic() - began)
            except DatabaseUnavailable as error:
                self._turns.outages[name] += 1
                self._note_database(lost=str(error))
                pause_seconds = min(0.05 * 2**failures, longest_seconds)
                failures = min(failures + 1, 10)
                await asyncio.sleep(pause_seconds * (0.5 + random.random() / 2))  # noqa: S311
                continue
            except Exception as error:  # noqa: BLE001  the stage goes on; the log tells
                self._turns.failures[name] += 1
                log.error(LogEvent.STAGE_FAILED, stage=name, exc_info=error)
                await asyncio.sleep(DEFECT_PAUSE_SECONDS)
                continue
            if failures:
                failures = 0
                self._note_database(lost=None)
            if pause_seconds <= 0:
                await asyncio.sleep(0)
                continue
            try:
                async with asyncio.timeout(pause_seconds):
                    await wake.wait()
            except TimeoutError:
                pass

    async def _is_held(self) -> bool:
        """Tell whether the database was restored, as the guard finds or somebody says."""
        return await is_held(self._database, guards=self._settings.engine.restore_guard)

    async def _wait_for_word(self) -> None:
        """Hold everything back on a database that was restored, until that is accepted."""
        while not self._released.is_set():
            await asyncio.sleep(WORD_SECONDS)
            try:
                if not await self._is_held():
                    self._released.set()
            except DatabaseUnavailable as error:
                self._note_database(lost=str(error))

    def _note_database(self, *, lost: str | None) -> None:
        """Log an outage once, and its end once."""
        if lost is not None and not self._database_is_lost:
            log.warning(LogEvent.DATABASE_LOST, error=lost)
        elif lost is None and self._database_is_lost:
            log.info(LogEvent.DATABASE_BACK)
            self._search.look(self._shards.held())
        self._database_is_lost = lost is not None

    async def _write_rest(self) -> None:
        """Wait until every result is written and every unused lease ended."""
        writing = [task for task in self._tasks if task.get_name() == f"{TASKS}record"]
        while (
            self._pace.leased or self._lease.is_in_doubt or self._record.waiting or self._returned
        ):
            if all(task.done() for task in writing):
                raise DatabaseUnavailable("the loop is ending, and nobody is left to write")
            self._lease.wake.set()
            self._record.wake.set()
            self._returning.set()
            await asyncio.sleep(0.01)

    def _cancel(self, *names: str) -> list[asyncio.Task[None]]:
        tasks = [
            task for task in self._tasks if task.get_name() in {TASKS + name for name in names}
        ]
        for task in tasks:
            task.cancel()
        return tasks

    async def _cancelled(self, *names: str) -> None:
        """Cancel tasks and wait until they have ended."""
        await asyncio.gather(*self._cancel(*names), return_exceptions=True)

    async def _guard(self) -> None:
        """End everything when the loop ends without `stop()` having been called."""
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            if not self._draining.is_set():
                self._draining.set()
                self._database.terminate()  # whatever could close it in peace is being cancelled
                await self._end()
                self._stopped.set()

    async def _end(self) -> None:
        """End every task and connection, whatever state they are in."""
        tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pace.drain(0)
        if self._web is not None:
            await self._web.stop()
        await self._post.close()
        await self._database.close()


class _Starting:
    """What `start_engine()` gives: await it for an engine, or enter it for one that is stopped."""

    def __init__(self, start: Callable[[], Awaitable[Engine]]) -> None:
        self._start = start
        self._engine: Engine | None = None

    def __await__(self) -> Generator[object, None, Engine]:
        return self._start().__await__()

    async def __aenter__(self) -> Engine:
        self._engine = await self._start()
        return self._engine

    async def __aexit__(self, *_: object) -> None:
        assert self._engine is not None
        await self._engine.stop()


def start_engine(
    config: Settings | None = None,
    *,
    dsn: str | None = None,
    migrate: bool | None = None,
    restored: bool = False,
) -> _Starting:
    """Start an engine on the running loop; it is ready when this returns.

    Use it as `engine = await start_engine(dsn="postgresql://…")` with `await engine.stop()`, or as
    `async with start_engine(…) as engine:`. Several may run in one process, on several databases.

    Args:
        config: settings, as `load_config()` reads them; the environment's unless given.
        dsn: which Postgres, in place of the one that the settings name.
        migrate: create or upgrade the schema first; `database.migrate_at_start` unless given.
        restored: the database is a copy: send nothing before `aetherflow-hooks restore accept`.
            One that the server itself shows to be a copy is noticed without this.

    Raises:
        ConfigInvalid: the settings cannot be used, or name no Postgres.
        DatabaseUnavailable: Postgres cannot be reached.
        SchemaMissing, SchemaTooOld, SchemaTooNew, DatabaseUnfit: it does not fit this program.
    """

    async def start() -> Engine:
        settings = load() if config is None else config
        database = {
            **({} if dsn is None else {"dsn": dsn}),
            **({} if migrate is None else {"migrate_at_start": migrate}),
        }
        settings = settings.model_copy(
            update={"database": settings.database.model_copy(update=database)}
        )
        if not settings.database.dsn:
            raise ConfigInvalid(
                "settings", ["database.dsn is empty: say which Postgres, or pass `dsn`"]
            )
        engine = Engine(settings)
        await engine._start(restored=restored)  # noqa: SLF001  an engine is of use only once started
        return engine

    return _Starting(start)


def _halts(endpoint: Endpoint, reason: DeadReason) -> bool:
    """Tell whether what comes behind a delivery has to wait for people, when that is given up."""
    return endpoint.ordering == "block" and reason is DeadReason.EXHAUSTED
