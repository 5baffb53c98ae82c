"""Slots: what all lanes have together, and what is one lane's part of it."""

from aetherflow_hooks.rules.lane import Lane

LIVELY_MAX = 500  # endpoints that may be offered leases for new work as soon as it is made
OLDER_MAX = 500  # endpoints that wait for leases: with more, new work waits for nothing
SPACING_SECONDS = 0.02  # between small statements that take leases, when most room is taken


class Slots:
    """POSTs under way, and deliveries on lease: both are bounded over all lanes."""

    def __init__(self, slots: int, batch_max: int) -> None:
        self._slots = slots
        self._batch_max = batch_max
        self._half_a_batch = batch_max // 2
        # While one batch is being sent, the next is there and the one after it on its way.
        self._leased_max = slots + 2 * batch_max
        self._few_from = 0.0  # when less than half a batch may be leased
        self._busy_lanes = 0  # those with something in flight
        self.in_flight = 0
        self.leased = 0  # in flight, waiting, or being asked for

    @property
    def are_free(self) -> bool:
        """Tell whether one more POST may be under way."""
        return self.in_flight < self._slots

    def has_room(self, besides_batches: int = 0) -> bool:
        """Tell whether half a batch may be leased, beside so many whole ones."""
        free = self._leased_max - self.leased - besides_batches * self._batch_max
        return free >= self._half_a_batch

    @property
    def has_just_got_room(self) -> bool:
        """Tell whether it was the last one to end that made room for half a batch."""
        return self._leased_max - self.leased == self._half_a_batch

    @property
    def run_low(self) -> bool:
        """Tell whether less than half a batch is on lease."""
        return self.leased < self._half_a_batch

    def are_worth_waiting_for(self, *, older: int, lively: int, offered: int) -> bool:
        """Tell whether new work should wait until it can be leased as it is made.

        Not where so many endpoints have older work, or have had some lately, that it would not be
        leased all the same. Older work goes first, but for a little of it nobody is kept idle.
        """
        if older > OLDER_MAX or lively >= LIVELY_MAX:
            return False
        if not self.has_room(offered):
            return True
        return older > (lively // 4 if self.run_low else 0)

    def capacity(self, now: float) -> int:
        """Say how many leases a statement may take now.

        It is worth one where half a batch has room. For less there is one every SPACING_SECONDS, so
        that an endpoint whose work has just come does not wait for others to be done with theirs.
        """
        free = self._leased_max - self.leased
        if free >= self._half_a_batch:
            return min(free, self._batch_max)
        return min(free + self._slots, self._batch_max) if now >= self._few_from else 0

    def take(self, rooms: int, now: float) -> None:
        """Note that so many are being asked for; nobody else is given them."""
        self.leased += rooms
        self._few_from = now + SPACING_SECONDS

    def share(self, whole: int, lane: Lane) -> int:
        """Give a lane's share of something: one for each that is busy, and one left over."""
        others = self._busy_lanes - (lane.in_flight > 0)
        return whole // (others + 2)

    def limit(self, lane: Lane) -> int:
        """Say how many POSTs of a lane may be under way."""
        return lane.limit(self.share(self._slots, lane))

    def room(self, lane: Lane) -> int:
        """Say how many more of a lane may be on lease, its rate aside."""
        limit = self.limit(lane)
        ahead = min(lane.ahead(limit), self.share(2 * self._batch_max, lane))
        return limit + ahead - lane.in_flight - len(lane.waiting)

    def start(self, lane: Lane, now: float) -> None:
        """Note that a POST of a lane starts."""
        lane.start(now)
        self._busy_lanes += lane.in_flight == 1
        self.in_flight += 1

    def end(self, lane: Lane) -> None:
        """Note that one has ended."""
        lane.in_flight -= 1
        self._busy_lanes -= lane.in_flight == 0
        self.in_flight -= 1
        self.leased -= 1
