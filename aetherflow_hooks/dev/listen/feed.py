"""Feed: what is new at a source, each event once.

An event is there once its transaction is committed, which may be a while after it was emitted and
behind younger ones; so each look reaches back, mostly a little, now and then further.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from aetherflow_hooks.dev.listen.sources import EventRow, Source
from aetherflow_hooks.rules.topics import patterns_of

NEAR = timedelta(seconds=2)
FAR = timedelta(seconds=60)  # longer from emit to commit, and an event may not be noticed
LOOKS_FAR_EACH = 20
PAGES_MAX = 100


class Feed:
    """Reads a source; `begin` first, then `look` again and again."""

    def __init__(self, source: Source, patterns: Sequence[str]) -> None:
        """Choose events whose type one of the patterns chooses."""
        self._source = source
        self._patterns = set(patterns)
        self._known: dict[str, datetime] = {}
        self._looked_at: datetime
        self._looks = 0
        self.missed = False
        """The last look found more than it could read, and left out the oldest."""

    async def begin(self, replay_last: int = 0) -> list[EventRow]:
        """Take what is there as known; give the last few of it that are chosen, the oldest first.

        Raises:
            AwayError: nothing can be read now.
        """
        found: list[EventRow] = []
        before: str | None = None
        for _ in range(PAGES_MAX):
            page = await self._source.listed(before=before, since=None)
            if before is None:
                self._looked_at = page.as_of
            before = page.before
            self._known.update((it.id, it.emitted_at) for it in page.events)
            found += filter(self._chooses, page.events)
            is_far = not page.events or page.events[-1].emitted_at < self._looked_at - FAR
            if before is None or (is_far and len(found) >= replay_last):
                break
        return found[:replay_last][::-1]

    async def look(self) -> list[EventRow]:
        """Give what is chosen and was not there at any earlier look, the oldest first.

        Raises:
            AwayError: nothing can be read now; the next look makes up for it.
        """
        is_far = self._looks % LOOKS_FAR_EACH == LOOKS_FAR_EACH - 1
        since = self._looked_at - (FAR if is_far else NEAR)
        page = await self._source.listed(before=None, since=since)
        as_of, events, pages = page.as_of, page.events, 1
        while page.before is not None and pages < PAGES_MAX:
            page = await self._source.listed(before=page.before, since=since)
            events = events + page.events
            pages += 1
        self.missed = page.before is not None
        self._looks += 1
        self._looked_at = max(self._looked_at, as_of)
        new = [it for it in events if it.id not in self._known]
        self._known.update((it.id, it.emitted_at) for it in new)
        if is_far:
            forgotten = self._looked_at - 2 * FAR
            self._known = {event_id: at for event_id, at in self._known.items() if at > forgotten}
        return [it for it in reversed(new) if self._chooses(it)]

    def _chooses(self, event: EventRow) -> bool:
        return not self._patterns.isdisjoint(patterns_of(event.type))
