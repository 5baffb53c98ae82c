"""Pace: who goes next.

Takes    endpoints that have work, and deliveries on lease.
Hands on one delivery at a time, when a slot, its endpoint's limit and its endpoint's rate let it.
Holds    at most `slots` POSTs at once; per endpoint at most `max_in_flight`, and no more than
         burst + rate x (time + 0.02 s); no endpoint takes what another could use.
"""

import asyncio
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from functools import partial

from aetherflow_hooks.config import LeaseSettings, PaceSettings
from aetherflow_hooks.model import Delivery, Endpoint, Event, Leased, Wanted, rooms_of
from aetherflow_hooks.rules.bucket import Bucket
from aetherflow_hooks.rules.lane import Lane, Reply, Standing
from aetherflow_hooks.rules.slots import SPACING_SECONDS, Slots
from aetherflow_hooks.rules.turns import Lively, Trials, Turns

DUE_TICK_SECONDS = 0.05  # what falls due together is looked at together, so late at the most
IDLE_SECONDS = 600.0  # an endpoint without work is forgotten after this


class Pace:
    """Keeps a lane per endpoint with work, and the slots that all of them share."""

    def __init__(
        self,
        settings: PaceSettings,
        lease: LeaseSettings,
        *,
        send: Callable[[Endpoint, Delivery, Event, Callable[[Reply | None], None]], None],
        break_off: Callable[[], None],
        holds: Callable[[int, float], bool],
        give_back: Callable[[list[Delivery]], None],
    ) -> None:
        """Call `send` for each delivery in its turn; it tells in the end what came back.

        `break_off()` lets everything under way end, `holds(shard, now)` tells whether a shard is
        still ours, and `give_back` takes deliveries that came to nothing.
        """
        self._slots = Slots(settings.slots, lease.batch_max)
        self._lease = lease
        self._send = send
        self._break_off = break_off
        self._holds = holds
        self._give_back = give_back
        self._lanes: dict[str, Lane] = {}
        self._turns = Turns()  # lanes to ask the database for
        self._trials = Trials(settings.slots, ahead_max=lease.batch_max)
        self._queue: deque[Lane] = deque()  # lanes that may start a POST, in turn
        self._lively = Lively()
        self._asked_again_at = 0.0  # when `on_room` will have been called by itself
        self._loop = asyncio.get_running_loop()  # Python 3.11 asks the kernel for each look at it
        self._will_pump = self._waits = self._stopping = False
        self._drained = asyncio.Event()
        self.on_room: Callable[[], None] = lambda: None  # called when leases are wanted

    @property
    def leased(self) -> int:
        """Deliveries on lease, or being asked for."""
        return self._slots.leased

    @property
    def in_flight(self) -> int:
        """POSTs under way."""
        return self._slots.in_flight

    @property
    def asking(self) -> int:
        """Endpoints that are to be leased for, now or when they have a place on trial."""
        return len(self._turns) + self._trials.waiting

    @property
    def endpoint_ids(self) -> list[str]:
        """Endpoints that have work, or have had some lately."""
        return list(self._lanes)

    def known(self, endpoint_id: str) -> Endpoint | None:
        """Give an endpoint as it was last seen."""
        return lane.endpoint if (lane := self._lanes.get(endpoint_id)) else None

    def due(self, endpoint: Endpoint, in_seconds: float = 0.0) -> None:
        """Note that an endpoint has work: since a while, now, or after a while."""
        now = time.monotonic()
        if (lane := self._lanes.get(endpoint.id)) is None:
            lane = self._lanes[endpoint.id] = Lane(endpoint, bucket=Bucket(at=now))
        elif endpoint.version > lane.endpoint.version:
            lane.renew(endpoint)
        lane.touched_at = now
        if in_seconds <= 0:
            lane.fall_due(now + in_seconds)
            self._consider(lane)
            return
        tick = math.ceil((now + in_seconds) / DUE_TICK_SECONDS)
        if tick not in lane.later and not self._stopping:
            wait_seconds = tick * DUE_TICK_SECONDS - now
            lane.later[tick] = self._loop.call_later(wait_seconds, self._fall_due, lane, tick)

    def is_held_up(self, endpoint_id: str) -> bool:
        """Tell whether an endpoint's work has to wait: for its rate, its failures or its slots."""
        now, lane = time.monotonic(), self._lanes.get(endpoint_id)
        if self._slots.capacity(now) <= 0:
            return True
        return lane is not None and (lane.is_shut or lane.held or self._room(lane, now) <= 0)

    def wanted(self) -> list[Wanted]:
        """Say what can be leased now, of each shard.

        The shards come in turn, and so do a shard's endpoints; each gets a fair part of a batch.
        """
        now = time.monotonic()
        capacity = self._slots.capacity(now)
        if capacity <= 0 or self._stopping:
            if self._turns and self._asked_again_at <= now:
                self._asked_again_at = now + SPACING_SECONDS
                self._loop.call_later(SPACING_SECONDS, self.on_room)
            return []
        wanted = self._turns.take(
            capacity,
            now,
            holds=lambda shard: self._holds(shard, now),
            room=lambda lane: self._room(lane, now),
        )
        if wanted:
            self._slots.take(sum(rooms_of(wanted).values()), now)
        return wanted

    def take(self, leased: Leased) -> None:
        """Take over what was leased."""
        for endpoint_id, endpoint in leased.endpoints.items():
            self._lanes[endpoint_id].renew(endpoint)
        is_offer, now = leased.wanted is None, time.monotonic()
        rooms = rooms_of(leased.wanted or ())
        got: Counter[str] = Counter()
        for delivery, event in leased.work:
            lane = self._lanes.get(delivery.endpoint_id)
            if lane is None:
                self._give_back([delivery])
                continue
            got[delivery.endpoint_id] += 1
            if event is None:
                self._slots.leased -= 1
            else:
                lane.waiting.append((delivery, event))
        if is_offer:
            self._slots.leased += got.total()  # else they were counted when they were asked for
        for endpoint_id in got if is_offer else rooms:
            lane = self._lanes[endpoint_id]
            self._lively.add(lane)
            if not is_offer:
                not_there = rooms[endpoint_id] - got[endpoint_id]
                self._slots.leased -= not_there
                lane.get(all_=not_there > 0)
            if lane.is_shut or self._stopping or not self._holds(lane.endpoint.shard, now):
                self._return_waiting(lane)
            else:
                self._enqueue(lane)
                self._consider(lane)
        self._pump()

    def may_wait(self, offered: int) -> bool:
        """Tell whether new work should wait for room, beside the `offered` batches under way."""
        return not self._stopping and self._slots.are_worth_waiting_for(
            older=len(self._turns), lively=len(self._lively), offered=offered
        )

    def open_rooms(self, offered: int) -> list[tuple[Endpoint, int]]:
        """Say what could be leased of endpoints that answer and have no work waiting for them."""
        now = time.monotonic()
        if not self._slots.has_room(offered):
            return []
        return self._lively.rooms(
            self._lease.batch_max,
            holds=lambda shard: self._holds(shard, now),
            room=lambda lane: self._room(lane, now),
        )

    def take_none(self, wanted: list[Wanted]) -> None:
        """Note that leases could not be asked for."""
        for endpoint_id, room in rooms_of(wanted).items():
            lane = self._lanes[endpoint_id]
            lane.get(all_=False)
            self._slots.leased -= room
            self._consider(lane)

    def drop(self, shards: Iterable[int]) -> None:
        """Let shards go: nothing more of theirs is started, what waits is given back."""
        gone = set(shards)
        for shard in gone:
            self._turns.drop(shard)
        for lane in [lane for lane in self._lanes.values() if lane.endpoint.shard in gone]:
            lane.is_due = False
            self._return_waiting(lane)
            self._consider(lane)  # others may be waiting for its place on trial
            if not lane.is_busy:
                self._forget(lane)

    def is_busy_with(self, shard: int) -> bool:
        """Tell whether anything of a shard is on lease or being asked for."""
        return any(lane.endpoint.shard == shard and lane.is_busy for lane in self._lanes.values())

    def shut(self, endpoint_id: str) -> None:
        """Start nothing more for an endpoint until it is opened again."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.is_shut = True
            self._return_waiting(lane)

    def open(self, endpoint_id: str) -> None:
        """Undo `shut`: from now on the database knows what the endpoint wants."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            lane.is_shut = False
            self._consider(lane)

    def recall(self, endpoint_id: str) -> None:
        """Give back what waits for an endpoint, which may have changed."""
        if (lane := self._lanes.get(endpoint_id)) is not None:
            self._return_waiting(lane)

    def forget_idle(self) -> None:
        """Forget endpoints that have had no work for long."""
        before = time.monotonic() - IDLE_SECONDS
        for lane in [it for it in self._lanes.values() if it.touched_at < before and it.is_idle]:
            self._forget(lane)

    def wait(self) -> None:
        """Start nothing more until `resume`."""
        self._waits = True

    def resume(self) -> None:
        """Go on, after `wait` or where `holds` has said no before."""
        self._waits = False
        self._pump()
        self.on_room()

    async def drain(self, grace_seconds: float) -> None:
        """Start nothing more, give back what waits, and wait for what is under way.

        What has no answer after `grace_seconds` is broken off; `send` says what becomes of it.
        """
        self._stopping = True
        for lane in self._lanes.values():
            self._return_waiting(lane)
            lane.cancel_alarms()
        if not self._slots.in_flight:
            return
        try:
            async with asyncio.timeout(grace_seconds):
                await self._drained.wait()
        except TimeoutError:
            self._break_off()
            await self._drained.wait()

    def _room(self, lane: Lane, now: float) -> int:
        """Say how many deliveries may be leased for a lane now."""
        if now < lane.paused_until:
            self._look_again(lane, lane.paused_until - now)
            return 0
        if (room := self._slots.room(lane)) <= 0:
            return room
        by_rate, more_in_seconds = lane.room_by_rate(now)
        if by_rate < 1:
            self._look_again(lane, more_in_seconds)
        return min(room, by_rate)

    def _consider(self, lane: Lane) -> None:
        """Put a lane among those to lease for, if it has work due and room for it."""
        if lane.trial is not None:
            for other in self._trials.leave(lane):
                self._consider_due(other)
        self._consider_due(lane)

    def _rested(self) -> None:
        for lane in self._trials.rested():
            self._consider_due(lane)

    def _consider_due(self, lane: Lane) -> None:
        if lane.ready or lane.asked or lane.is_shut or self._stopping or not lane.is_due:
            return
        room = self._room(lane, time.monotonic())
        # While some wait to be sent, room is gathered: few large statements beat many small ones.
        if room > 0 and (not lane.waiting or room > len(lane.waiting)) and self._trials.admit(lane):
            self._turns.add(lane)
            self.on_room()

    def _enqueue(self, lane: Lane) -> None:
        if not lane.queued and lane.waiting:
            lane.queued = True
            self._queue.append(lane)

    def _pump(self) -> None:
        """Start what may start now, one of each lane in turn."""
        self._will_pump = False
        now = time.monotonic()
        while (work := self._next(now)) is not None:
            lane, delivery, event = work
            self._send(lane.endpoint, delivery, event, partial(self._ended, lane, now))

    def _next(self, now: float) -> tuple[Lane, Delivery, Event] | None:
        """Choose what starts now, and count it as under way."""
        while (lane := self._next_lane()) is not None:
            if not self._may_go_on(lane, now):
                continue
            delivery, event = lane.waiting[0]
            if now > delivery.leased_at_monotonic + self._lease.margin_seconds / 2:
                self._return_waiting(lane)  # an answer might come after the lease has ended
                self._consider(lane)
                continue
            if lane.standing is not Standing.PROVEN and not self._trials.start(lane):
                lane.queued = self._trials.park(lane)
                if not lane.queued:
                    self._return_waiting(lane)
                continue
            del lane.waiting[0]
            self._slots.start(lane, now)
            if lane.waiting:
                self._enqueue(lane)
            elif lane.is_due or lane.trial is not None:
                self._consider(lane)
            return lane, delivery, event
        return None

    def _next_lane(self) -> Lane | None:
        """Take the lane whose turn it is, if anything may start now."""
        while self._slots.are_free and not (self._waits or self._stopping):
            lane = self._trials.unparked() or (self._queue.popleft() if self._queue else None)
            if lane is None:
                return None
            lane.queued = False
            if lane.waiting:
                return lane
        return None

    def _may_go_on(self, lane: Lane, now: float) -> bool:
        """Tell whether a lane's own limits let it start a POST; if not, see to what waits."""
        if lane.in_flight and lane.in_flight >= self._slots.limit(lane):
            # What ends here queues it again. Where that may take long, others can lease instead.
            if not lane.is_quick:
                self._return_waiting(lane)
            return False
        if now < lane.paused_until or not self._holds(lane.endpoint.shard, now):
            self._return_waiting(lane)
            return False
        if (wait_seconds := lane.wait_for_rate(now)) > 0:
            self._look_again(lane, wait_seconds)
        return wait_seconds <= 0

    def _ended(self, lane: Lane, started_at: float, reply: Reply | None) -> None:
        """Note the end of a POST; what it makes room for starts with what others do."""
        now = time.monotonic()
        lane.learn(started_at, now, reply)
        if lane.tried_as is not None and (rest := self._trials.end(lane, started_at, now)) > 0:
            self._loop.call_later(rest, self._rested)
        self._slots.end(lane)
        if lane.waiting and not lane.queued:
            self._enqueue(lane)
        if lane.is_due or lane.trial is not None:  # as in `_consider`, for most have neither
            self._consider(lane)
        if self._turns and self._slots.has_just_got_room:
            self.on_room()
        if not self._will_pump:
            self._will_pump = True
            self._loop.call_soon(self._pump)
        if self._stopping and not self._slots.in_flight:
            self._drained.set()

    def _return_waiting(self, lane: Lane) -> None:
        if lane.waiting:
            self._slots.leased -= len(lane.waiting)
            self._give_back([delivery for delivery, _ in lane.waiting])
            lane.waiting.clear()

    def _forget(self, lane: Lane) -> None:
        lane.cancel_alarms()
        self._lively.drop(lane)
        del self._lanes[lane.endpoint.id]

    def _fall_due(self, lane: Lane, tick: int) -> None:
        del lane.later[tick]
        lane.fall_due(time.monotonic())
        self._consider(lane)

    def _look_again(self, lane: Lane, in_seconds: float) -> None:
        """Look at a lane again when its rate allows for more, or when its pause is over."""
        at = time.monotonic() + in_seconds
        if lane.refill is not None:
            if lane.refill_at <= at:
                return
            lane.refill.cancel()
        lane.refill_at = at
        lane.refill = self._loop.call_later(in_seconds, self._refilled, lane)

    def _refilled(self, lane: Lane) -> None:
        lane.refill = None
        self._enqueue(lane)
        self._consider(lane)
        self._pump()
