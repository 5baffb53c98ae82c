"""Turns: which lanes may be leased for, and whose turn it is."""

from collections import deque
from collections.abc import Callable

from aetherflow_hooks.model import Endpoint, Wanted
from aetherflow_hooks.rules.lane import SMOOTHING, Lane, Standing, ahead
from aetherflow_hooks.rules.slots import LIVELY_MAX

ENOUGH = 50  # leases for one lane that are worth their part of a statement
MORE_SHARES = 8  # a part of a batch that one lane may be offered beyond its share
TRIAL_PART = 4  # a quarter of the slots for endpoints of each standing that is not proven
REST_SECONDS = 0.02  # between the places that fall free because one has failed again


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
        self,
        capacity: int,
        now: float,
        *,
        holds: Callable[[int], bool],
        room: Callable[[Lane], int],
    ) -> list[Wanted]:
        """Take lanes of the next shards that are held, to be asked for now.

        Each gets a fair part of `capacity`, as far as it has room. Where few lanes wait, all are
        taken: mostly there is a single delivery for each. A shard that does not fit in as a whole
        comes first the next time, or its lanes would get what others leave, each time. One with
        lanes that have an order is the last: those take statements of their own, and meanwhile
        others can be at the next.
        """
        taken: list[Wanted] = []
        left = capacity
        most = max(ENOUGH, capacity // max(1, self._count))
        for _ in range(len(self._shards)):
            shard = self._shards[0]
            lanes = self._lanes[shard]
            if not lanes or not holds(shard):
                self._shards.rotate(-1)
                continue
            quantum = max(1, min(capacity // len(lanes), most))
            if taken and quantum * len(lanes) > left:
                break
            self._shards.rotate(-1)
            plain = Wanted(shard, {}, [])
            ordered: list[Wanted] = []
            while lanes and left:
                lane = lanes.popleft()
                lane.ready = False
                self._count -= 1
                part = min(room(lane), quantum, left)
                if part > 0:
                    wanted = plain
                    if lane.endpoint.ordering is not None:
                        wanted = Wanted(shard, {}, [], is_ordered=True)
                        ordered.append(wanted)
                    wanted.rooms[lane.endpoint.id] = part
                    wanted.sinces_seconds_ago.append(lane.ask(now))
                    left -= part
            taken += [plain, *ordered] if plain.rooms else ordered
            if ordered:
                break
        return taken


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
        self, batch_max: int, *, holds: Callable[[int], bool], room: Callable[[Lane], int]
    ) -> list[tuple[Endpoint, int]]:
        """Say what each can be offered, of those that answer and have nothing older waiting.

        Which of them get something, and how much, is not known: so each is offered more than it has
        room for, or what is left of a batch would cost a statement of its own.
        """
        rooms = [
            (lane.endpoint, free)
            for lane in self._lanes
            if lane.takes_new and holds(lane.endpoint.shard) and (free := room(lane)) > 0
        ]
        more = batch_max // min(len(rooms) + 1, MORE_SHARES)
        return [(endpoint, free + more) for endpoint, free in rooms]


class Trials:
    """Bounds what endpoints that may not answer can take of the slots.

    One that is new or failing has one POST at a time, and those of a standing have a quarter of the
    slots together: however many of them hang, the others keep half. A place that falls free goes
    to who has waited longest and to who came last, in turn, so that an endpoint with new work does
    not wait behind thousands that are dead.

    The place of one that has failed again rests for a moment, and such places fall free one by one:
    or those that time out together would be followed by as many that do, time and again, and those
    that refuse at once by thousands a second.

    As long as new ones answer quickly, leases are taken for many more than have a POST under way.
    """

    def __init__(self, slots: int, ahead_max: int) -> None:
        self._places = max(1, slots // TRIAL_PART)
        self._ahead_max = ahead_max
        self._ahead = 0  # new ones that may have leases beyond those with a POST under way
        self._average_seconds = 0.0  # of a new one's POST; 0 until the first has ended
        self._admitted = dict.fromkeys(Standing, 0)
        self._under_way = dict.fromkeys(Standing, 0)
        self._held: dict[Standing, deque[Lane]] = {standing: deque() for standing in Standing}
        self._parked: deque[Lane] = deque()  # new ones with leases
        self._rested_at = 0.0  # when the last of the places that rest falls free
        self._newest_next = True

    @property
    def waiting(self) -> int:
        """Lanes that wait for leases."""
        return sum(map(len, self._held.values()))

    def admit(self, lane: Lane) -> bool:
        """Tell whether a lane may have leases now; one that may not waits for a free place."""
        standing = lane.standing
        if standing is Standing.PROVEN or lane.trial is not None:
            return True
        if self._free(standing) > 0:
            self._admitted[standing] += 1
            lane.trial = standing
            return True
        if not lane.held:
            lane.held = True
            self._held[standing].append(lane)
        return False

    def leave(self, lane: Lane) -> list[Lane]:
        """Give a lane's place back, if it has one and nothing of it is under way; say for whom.

        Where there are many places, they are given back together, so that one statement can take
        leases for all who get them.
        """
        standing = lane.trial
        if standing is None or lane.is_busy or lane.ready:
            return []
        lane.trial = None
        return self._pass_on(standing)

    def rested(self) -> list[Lane]:
        """Give back a place that has rested, and say for whom."""
        return self._pass_on(Standing.FAILING)

    def _pass_on(self, standing: Standing) -> list[Lane]:
        self._admitted[standing] -= 1
        free = self._free(standing)
        if free < self._ahead_of(standing) // 2:
            return []
        held = self._held[standing]
        lanes: list[Lane] = []
        while held and len(lanes) < free:
            lanes.append(held.pop() if self._newest_next else held.popleft())
            lanes[-1].held = False
            self._newest_next = not self._newest_next
        return lanes

    def start(self, lane: Lane) -> bool:
        """Tell whether a lane on trial may start a POST now; if so, it is counted until `end`."""
        standing = lane.standing
        if self._under_way[standing] >= self._places:
            return False
        self._under_way[standing] += 1
        lane.tried_as = standing
        return True

    def park(self, lane: Lane) -> bool:
        """Keep a lane that may not start; False: that might take long, or it is not new."""
        if not self._ahead or lane.standing is not Standing.NEW:
            return False
        self._parked.append(lane)
        return True

    def unparked(self) -> Lane | None:
        """Give a lane that may start now, if one is parked."""
        if self._parked and self._under_way[Standing.NEW] < self._places:
            return self._parked.popleft()
        return None

    def end(self, lane: Lane, began: float, now: float) -> float:
        """Note that a POST on trial has ended, and learn from a new one how long they take.

        Gives the seconds for which its place rests before it is passed on by `rested`; 0: not.
        """
        standing, lane.tried_as = lane.tried_as, None
        assert standing is not None
        self._under_way[standing] -= 1
        if standing is Standing.NEW:
            self._average_seconds += SMOOTHING * (now - began - self._average_seconds)
            self._ahead = min(self._ahead_max, ahead(self._places, self._average_seconds))
        if lane.trial is Standing.FAILING and lane.standing is Standing.FAILING:
            lane.trial = None
            self._rested_at = max(self._rested_at, now) + REST_SECONDS
            return self._rested_at - now
        return 0.0

    def _ahead_of(self, standing: Standing) -> int:
        return self._ahead if standing is Standing.NEW else 0

    def _free(self, standing: Standing) -> int:
        return self._places + self._ahead_of(standing) - self._admitted[standing]
