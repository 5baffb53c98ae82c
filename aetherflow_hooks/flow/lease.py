"""Lease: take due deliveries for a limited time.

Takes    what pace wants: endpoints, and how many each can take now; and what fan-out has leased at
         once.
Hands on deliveries with their events, each on a lease that nobody else holds.
Holds    two engines never hold the same delivery; a lost lease can write nothing.
"""

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database, Row
from aetherflow_hooks.errors import DatabaseUnavailable
from aetherflow_hooks.model import Delivery, Endpoint, Event, Leased, Offer, Version, Wanted
from aetherflow_hooks.rules.bodies import Bodies, event_of
from aetherflow_hooks.rules.opening import endpoint_of
from aetherflow_hooks.rules.sealing import Keyring
from aetherflow_hooks.watch.log import LogEvent, log

DOUBTFUL_ROWS_MAX = 1_000  # of an endpoint's first rows: more than are mostly on lease at once
KEYS_MAX = 2_000  # of an endpoint with an order that one statement looks at
IDLE_SECONDS = 1.0  # a bound; pace wakes us when it wants something
OFFER_SECONDS = 0.02  # how long it holds who is offered how much
OFFER_QUIET_SECONDS = 5.0  # the same, while nothing is leased; a look makes a new one all the same
# Where little of what fan-out makes is for those who are offered something, as with thousands of
# endpoints in turn, an offer to many costs more than it saves. Then only a few are made, to see
# whether that has changed.
OFFER_TO_MANY = 100
OFFER_USE_MIN = 0.25
OFFER_SMOOTHING = 0.1  # of the newest offer's use in the average
OFFERS_SKIPPED = 10
NO_OFFER = Offer(0, "{}", [])


class Lease:
    """Asks the database for work, only for what can be sent now."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        *,
        wanted: Callable[[], list[Wanted]],
        may_wait: Callable[[int], bool],
        open_rooms: Callable[[int], list[tuple[Endpoint, int]]],
        known: Callable[[str], Endpoint | None],
        keyring: Callable[[], Keyring],
        versions: Callable[[Mapping[Version, int]], Awaitable[Mapping[Version, Event | None]]],
        on_late: Callable[[Collection[str], float], None],
        hand_on: Callable[[Leased], None],
        hand_back: Callable[[list[Wanted]], None],
    ) -> None:
        """Ask `wanted` what to take and `known` for endpoints as they were last seen.

        `keyring` opens their secrets; `versions` makes events for those that ask for a version, and
        `on_late` is told for which there was no time, and for how many seconds others have waited.
        `open_rooms` tells what could be taken of endpoints that have no work now, beside so many
        offers that are out, and `may_wait` whether it is better to ask for it later.
        `hand_on` gets what was taken, `hand_back` what could not be asked for.
        """
        self._database = database
        self._settings = settings
        self._wanted = wanted
        self._may_wait = may_wait
        self._open_rooms = open_rooms
        self._known = known
        self._keyring = keyring
        self._versions = versions
        self._on_late = on_late
        self._hand_on = hand_on
        self._hand_back = hand_back
        self._doubtful: list[tuple[Wanted, int]] = []  # with the token that was used
        self._offered = NO_OFFER
        self._offered_to = 0  # how many endpoints
        self._offered_at = -math.inf
        self._is_quiet = False  # nothing has been leased since then
        self._offers_out = 0
        self._offer_use = 1.0  # the part of new deliveries that was leased at once, of late
        self._offers_to_skip = 0
        self._events = Bodies(settings.lease.bodies_max_bytes)
        self.use(settings)
        self._last_keys: dict[str, str] = {}  # of endpoints with an order that had no room for all
        self.counts = {"fanout": 0, "lease": 0}  # deliveries, by the stage that has leased them
        self.returned = 0
        self.wake = asyncio.Event()

    async def turn(self) -> float:
        """Take what is wanted; tell when to come again, in seconds."""
        await self._resolve_doubts()
        wanted = self._wanted()
        if not wanted:
            return IDLE_SECONDS
        # Nobody waits for the statements of an endpoint that has an order, but that endpoint.
        plain = [it for it in wanted if not it.is_ordered]
        parts = [plain] if plain else []
        parts += [[it] for it in wanted if it.is_ordered]
        try:
            while parts:
                leased = await self._take(parts[0])
                del parts[0]
                self._is_quiet = False
                self._hand_on(leased)
        except BaseException:
            for part in parts:
                self._hand_back(part)
            raise
        return 0.0

    def use(self, settings: Settings) -> None:
        """Go by other defaults for endpoints from now on."""
        self._defaults = settings.endpoint_defaults()
        self._lease_times = (settings.post.timeout_seconds, settings.lease.margin_seconds)

    @property
    def is_in_doubt(self) -> bool:
        """Tell whether leases may be ours without our knowing."""
        return bool(self._doubtful)

    def prepare(self) -> None:
        """Work out what will be offered: with many endpoints it takes as long as a statement."""
        if not self._offers_to_skip and not self._may_wait(self._offers_out):
            self._renew_offer(OFFER_SECONDS)

    def offer(self) -> Offer | None:
        """Say what fan-out may lease at once; None: ask again in a moment.

        Each offer is ended by `adopt` or by `doubt`.
        """
        if self._offers_to_skip > 0:
            self._offers_to_skip -= 1
            self._offers_out += 1
            return NO_OFFER
        if self._may_wait(self._offers_out):
            self._offered_at = -math.inf  # those whose older work is waited for have room then
            return None
        self._renew_offer(OFFER_QUIET_SECONDS if self._is_quiet else OFFER_SECONDS)
        self._offers_out += 1
        return self._offered._replace(token=random.getrandbits(63))

    def adopt(
        self,
        offer: Offer,
        event_shard: int,
        rows: Sequence[Row],
        leased_unix_us: int,
        asked_at: float,
        *,
        others: int,
    ) -> None:
        """Take over what fan-out has leased: rows of events and of deliveries, in any order.

        Where it has made more, for so many `others`, the events are kept for what is leased later.
        """
        self._offers_out -= 1
        told_at = time.monotonic()
        deliveries = []
        events: dict[str, Event] = {}
        for _, _, _, _, shard, endpoint_id, event_id, overdue, type_, data, at, trace in rows:
            if endpoint_id is None:
                events[event_id] = event = event_of(event_id, type_, data, at, trace)
                if others:
                    self._events.put(event)
                continue
            of = shard, endpoint_id, event_id, event_shard, 1, offer.token
            deliveries.append(Delivery(*of, leased_unix_us, asked_at, False, overdue, told_at))
        work = [(delivery, events.get(delivery.event_id)) for delivery in deliveries]
        if offer is not NO_OFFER:
            self._learn(len(work), others)
        if work:
            self.counts["fanout"] += len(work)
            self._is_quiet = False
            self._hand_on(Leased(None, work, {}))

    def doubt(self, offer: Offer) -> None:
        """Note that fan-out may have leased something without knowing."""
        self._offers_out -= 1
        self._doubtful += [(wanted, offer.token) for wanted in offer.wanted]
        self.wake.set()

    async def load(self, endpoint_ids: Iterable[str]) -> dict[str, Endpoint]:
        """Read active endpoints, the settings' defaults filled in; others are missing."""
        asked_at = time.monotonic()
        rows = await self._database.rows("load_endpoints", sorted(endpoint_ids), False)
        keyring = self._keyring()
        return {
            row["id"]: endpoint_of(row, self._defaults, keyring=keyring, asked_at=asked_at)
            for row in rows
        }

    async def give_back(self, deliveries: Sequence[Delivery]) -> None:
        """End leases unused: the deliveries are as they were before."""
        for shard, group in groupby(sorted(deliveries), key=lambda delivery: delivery.shard):
            returned = list(group)
            await self._database.rows(
                "return_deliveries",
                shard,
                [delivery.endpoint_id for delivery in returned],
                [delivery.event_id for delivery in returned],
                [delivery.token for delivery in returned],
            )
            self.returned += len(returned)
            log.debug(LogEvent.LEASE_RETURNED, shard=shard, deliveries=len(returned))

    def _renew_offer(self, holds_seconds: float) -> None:
        now = time.monotonic()
        if now >= self._offered_at + holds_seconds:
            self._offered_at, self._is_quiet = now, True
            open_rooms = self._open_rooms(self._offers_out)
            self._offered_to = len(open_rooms)
            self._offered = self._make_offer(open_rooms)

    def _learn(self, leased: int, others: int) -> None:
        """Learn from an offer how much of new work is leased at once."""
        if leased + others:
            self._offer_use += OFFER_SMOOTHING * (leased / (leased + others) - self._offer_use)
        if self._offered_to > OFFER_TO_MANY and self._offer_use < OFFER_USE_MIN:
            self._offers_to_skip = OFFERS_SKIPPED

    async def _take(self, wanted: list[Wanted]) -> Leased:
        """Take what is wanted of endpoints without an order, or of one that has one."""
        token = random.getrandbits(63)
        asked_at = time.monotonic()
        doubts = [(it, token) for it in wanted]
        rows: Sequence[Row]
        try:
            if wanted[0].is_ordered:
                rows = await self._take_ordered(wanted[0], token)
            else:
                rows = await self._database.rows_of_each(
                    "lease_deliveries",
                    [
                        (shard, list(rooms), list(rooms.values()), since, *self._lease_times, token)
                        for shard, rooms, since, _ in wanted
                    ],
                )
        except BaseException:
            self._doubtful += doubts
            raise
        told_at = time.monotonic()
        versions: dict[str, int] = {}
        deliveries = []
        shards = {endpoint_id: it.shard for it in wanted for endpoint_id in it.rooms}
        for endpoint_id, event_id, shard, attempt, leased_us, expired, overdue, version in rows:
            versions[endpoint_id] = version
            of = shards[endpoint_id], endpoint_id, event_id, shard, attempt, token
            deliveries.append(Delivery(*of, leased_us, asked_at, expired, overdue, told_at))
        stale = [it for it, version in versions.items() if not self._is_fresh(it, version)]
        try:
            endpoints = await self.load(stale) if stale else {}
            pins = self._pins(versions, endpoints)
            plain = [it for it in deliveries if it.endpoint_id not in pins] if pins else deliveries
            events = await self._fetch(plain)
            work = [(delivery, events.get(delivery.event_id)) for delivery in plain]
            if pins:
                work += await self._fetch_versions(deliveries, pins)
        except BaseException:
            # Ours, but they cannot be sent: each lease left so would cost an attempt.
            self._doubtful += doubts
            raise
        self.counts["lease"] += len(deliveries)
        log.debug(
            LogEvent.LEASE_TAKEN, shards=[it.shard for it in wanted], deliveries=len(deliveries)
        )
        work.sort(key=lambda it: it[0].event_id)  # the order of an UPDATE is none
        return Leased(wanted, work, endpoints)

    async def _take_ordered(self, wanted: Wanted, token: int) -> list[tuple[Any, ...]]:
        """Take the first of each key, going on behind the key that was the last before."""
        ((endpoint_id, room),) = wanted.rooms.items()
        after = self._last_keys.pop(endpoint_id, "")
        is_last_round = not after
        taken: list[tuple[Any, ...]] = []
        while True:
            asked = wanted.shard, endpoint_id, after, KEYS_MAX, room - len(taken)
            rows = await self._database.rows("lease_ordered", *asked, *self._lease_times, token)
            last_key, keys = after, 0
            for *row, key, keys_seen in rows:
                if row[0] is not None:
                    taken.append(tuple(row))
                    last_key = max(last_key, key)
                else:
                    keys, scanned_to = keys_seen, key
            if len(taken) >= room:
                self._last_keys[endpoint_id] = last_key
                return taken
            if keys == KEYS_MAX:
                after = scanned_to
            elif is_last_round:
                return taken
            else:
                after, is_last_round = "", True

    def _make_offer(self, open_rooms: list[tuple[Endpoint, int]]) -> Offer:
        rooms: dict[str, tuple[int, float]] = {}
        by_shard: dict[int, dict[str, int]] = {}
        for endpoint, room in open_rooms:
            if endpoint.payload_version is not None:
                continue  # fan-out does not make versions
            lease_seconds = endpoint.timeout_seconds + self._settings.lease.margin_seconds
            rooms[f"{endpoint.id}/{endpoint.version}"] = room, lease_seconds
            by_shard.setdefault(endpoint.shard, {})[endpoint.id] = room
        wanted = [Wanted(shard, of_shard, []) for shard, of_shard in by_shard.items()]
        return Offer(0, orjson.dumps(rooms).decode(), wanted)

    async def _resolve_doubts(self) -> None:
        """End leases that we may hold without knowing what of.

        Else they would wait for the lease's end after every lost connection.
        """
        while self._doubtful:
            wanted, token = doubt = self._doubtful.pop()
            try:
                if wanted.is_ordered:
                    (endpoint_id,) = wanted.rooms
                    await self._database.rows("return_ordered", wanted.shard, endpoint_id, token)
                    continue
                await self._database.rows(
                    "return_doubtful", wanted.shard, list(wanted.rooms), token, DOUBTFUL_ROWS_MAX
                )
            except DatabaseUnavailable:
                self._doubtful.append(doubt)
                raise

    async def _fetch(self, deliveries: Sequence[Delivery]) -> dict[str, Event]:
        """Give the events of deliveries, read once however many endpoints want them."""
        events: dict[str, Event] = {}
        missing: dict[str, int] = {}
        for delivery in deliveries:
            if delivery.expired:
                continue
            event = self._events.get(delivery.event_id)
            if event is not None:
                events[delivery.event_id] = event
            else:
                missing[delivery.event_id] = delivery.event_shard
        if missing:
            rows = await self._database.rows("load_events", list(missing.values()), list(missing))
            for row in rows:
                events[row["id"]] = event = event_of(*row)
                self._events.put(event)
        return events

    def _pins(self, leased: Iterable[str], changed: Mapping[str, Endpoint]) -> dict[str, str]:
        """Give the versions of those endpoints that ask for one."""
        pins = {}
        for endpoint_id in leased:
            endpoint = changed.get(endpoint_id) or self._known(endpoint_id)
            if endpoint is not None and endpoint.payload_version is not None:
                pins[endpoint_id] = endpoint.payload_version
        return pins

    async def _fetch_versions(
        self, deliveries: Iterable[Delivery], pins: Mapping[str, str]
    ) -> list[tuple[Delivery, Event | None]]:
        """Give deliveries with events as their endpoints ask for them.

        Those for which there was no time are given back, and not among them.
        """
        asked = [
            (delivery, Version(delivery.event_id, pins[delivery.endpoint_id]))
            for delivery in deliveries
            if delivery.endpoint_id in pins
        ]
        wanted = {version: it.event_shard for it, version in asked if not it.expired}
        began = time.monotonic()
        found = await self._versions(wanted)
        late = [it for it, version in asked if version in wanted and version not in found]
        if late:
            await self.give_back(late)
            self._on_late({it.endpoint_id for it in late}, time.monotonic() - began)
        return [
            (it, found.get(version))
            for it, version in asked
            if version in found or version not in wanted
        ]

    def _is_fresh(self, endpoint_id: str, version: int) -> bool:
        known = self._known(endpoint_id)
        return known is not None and known.version == version
