"""Turns: which lanes may be leased for, and whose turn it is."""

from collections import deque
from collections.abc import Callable

from aetherflow_hooks.model import Endpoint
from aetherflow_hooks.rules.lane import Lane, Standing
from aetherflow_hooks.rules.slots import LIVELY_MAX

TRIAL_PART = 4  # a quarter of the slots for endpoints of each standing that is not proven


class Turns:
    """Lanes that want leases: the shards come in turn, and so do a shard's lanes."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[Lane]] = {}
        self._shards: deque[int] = deque()  # of _lanes
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, lane: Lane) -> None:
        """Put a lane behind the others of its shard."""
        lane.ready = True
        shard = lane.endpoint.shard
        if shard not in self._lanes:
            self._lanes[shard] = deque()
            self._shards.append(shard)
        self._lanes[shard].append(lane)
        self._count += 1

    def drop(self, shard: int) -> list[Lane]:
        """Take out all lanes of a shard."""
        lanes = self._lanes.pop(shard, None)
        if lanes is None:
            return []
        self._shards.remove(shard)
        self._count -= len(lanes)
        for lane in lanes:
            lane.ready = False
        return list(lanes)

    def take(
        self, capacity: int, *, holds: Callable[[int], bool], room: Callable[[Lane], int]
    ) -> tuple[int, dict[Lane, int]] | None:
        """Take lanes of the next shard that is held and has any; give the shard and their rooms.

        Each gets a fair part of `capacity`, as far as it has room.
        """
        for _ in range(len(self._shards)):
            shard = self._shards[0]
            self._shards.rotate(-1)
            lanes = self._lanes[shard]
            if not lanes or not holds(shard):
                continue
            quantum = max(1, capacity // len(lanes))
            rooms: dict[Lane, int] = {}
            left = capacity
            while lanes and left:
                lane = lanes.popleft()
                lane.ready = False
                self._count -= 1
                part = min(room(lane), quantum, left)
                if part > 0:
                    rooms[lane] = part
                    left -= part
            if rooms:
                return shard, rooms
        return None


class Lively:
    """The lanes that have had work last: what is new is most likely for one of them."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, None] = {}  # the last one last

    def __len__(self) -> int:
        return len(self._lanes)

    def add(self, lane: Lane) -> None:
        """Note that a lane has work."""
        self._lanes.pop(lane, None)
        self._lanes[lane] = None
        if len(self._lanes) > LIVELY_MAX:
            del self._lanes[next(iter(self._lanes))]

    def drop(self, lane: Lane) -> None:
        """Forget a lane."""
        self._lanes.pop(lane, None)

    def rooms(
        self, *, holds: Callable[[int], bool], room: Callable[[Lane], int]
    ) -> list[tuple[Endpoint, int]]:
        """Say what each has room for, of those that answer and have nothing older waiting."""
        return [
            (lane.endpoint, free)
            for lane in self._lanes
            if lane.takes_new and holds(lane.endpoint.shard) and (free := room(lane)) > 0
        ]


class Trials:
    """Bounds what endpoints that may not answer can take of the slots.

    One that is new or failing has one POST at a time, and those of a standing have a quarter of the
    slots together: however many of them hang, the others keep half. A place that falls free goes
    to who has waited longest and to who came last, in turn, so that an endpoint with new work does
    not wait behind thousands that are dead.
    """

    def __init__(self, slots: int) -> None:
        self._places = max(1, slots // TRIAL_PART)
        self._taken = dict.fromkeys(Standing, 0)
        self._held: dict[Standing, deque[Lane]] = {standing: deque() for standing in Standing}
        self._newest_next = True

    @property
    def waiting(self) -> int:
        """Lanes that wait for a place."""
        return sum(map(len, self._held.values()))

    def admit(self, lane: Lane) -> bool:
        """Tell whether a lane may have leases now; one that may not waits for a free place."""
        standing = lane.standing
        if standing is Standing.PROVEN or lane.trial is not None:
            return True
        if self._taken[standing] < self._places:
            self._taken[standing] += 1
            lane.trial = standing
            return True
        if not lane.held:
            lane.held = True
            self._held[standing].append(lane)
        return False

    def leave(self, lane: Lane) -> Standing | None:
        """Give a lane's place back, if it has one and nothing of it is under way; say of which."""
        standing = lane.trial
        if standing is None or lane.is_busy or lane.ready:
            return None
        self._taken[standing] -= 1
        lane.trial = None
        return standing

    def next(self, standing: Standing) -> Lane | None:
        """Give a lane that waits for a place, if there is one free."""
        held = self._held[standing]
        if not held or self._taken[standing] >= self._places:
            return None
        lane = held.pop() if self._newest_next else held.popleft()
        self._newest_next = not self._newest_next
        lane.held = False
        return lane
