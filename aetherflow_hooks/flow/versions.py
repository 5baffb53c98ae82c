"""Versions: events as they were before their type was changed, for endpoints that ask for that.

Takes    ids of events, each with a version that is asked for.
Hands on the events with that version's body, or with why it cannot be made.
Holds    data that makes no version fails alone; what takes long keeps nobody waiting for long.
"""

import random
import time
from collections.abc import Mapping

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import TookTooLong
from aetherflow_hooks.model import Event, Version
from aetherflow_hooks.rules.bodies import Bodies, event_of
from aetherflow_hooks.rules.versions import MAKING_MILLISECONDS, too_slow

TURN_SECONDS = 1.0  # a turn of lease takes no longer for them, but for the last that is begun
# What was made is used for other endpoints, and not for long: somebody may have deleted a version.
MADE_SECONDS = 5.0
MADE_BYTES_MAX = 4_194_304


class Versions:
    """Has Postgres make versions of events."""

    def __init__(self, database: Database) -> None:
        """Use this database."""
        self._database = database
        self._made = Bodies(MADE_BYTES_MAX)
        self._made_until = 0.0
        self._is_slow = False  # one by one is being made

    async def fetch(self, wanted: Mapping[Version, int]) -> dict[Version, Event | None]:
        """Give events of the shards that are named; those for which there was no time are missing.

        None: the event is not there any more.
        """
        now = time.monotonic()
        if now > self._made_until:
            self._made = Bodies(MADE_BYTES_MAX)
            self._made_until = now + MADE_SECONDS
        found: dict[Version, Event | None] = {
            it: event for it in wanted if (event := self._made.get(_key(it)))
        }
        missing = {it: shard for it, shard in wanted.items() if it not in found}
        until = now + TURN_SECONDS
        try:
            while missing and time.monotonic() < until:
                made = await self._make(missing)
                found |= made
                missing = {it: shard for it, shard in missing.items() if it not in made}
        except TookTooLong:
            if not self._is_slow:  # no more than one lease is held up so
                self._is_slow = True
                try:
                    found |= await self._make_some(missing, until)
                finally:
                    self._is_slow = False
        return found

    async def _make_some(
        self, wanted: Mapping[Version, int], until: float
    ) -> dict[Version, Event | None]:
        """Make them one by one, in no order: of the quick ones some are made in each turn."""
        made: dict[Version, Event | None] = {}
        for version in random.sample(list(wanted), len(wanted)):
            if time.monotonic() >= until:
                break
            made[version] = await self._make_one(version, wanted[version])
        return made

    async def _make_one(self, version: Version, shard: int) -> Event | None:
        try:
            return (await self._make({version: shard}))[version]
        except TookTooLong:
            event_id, name = version
            rows = await self._database.rows("load_events", [shard], [event_id])
            return Event(event_id, rows[0]["type"], b"", unmade=too_slow(name)) if rows else None

    async def _make(self, wanted: Mapping[Version, int]) -> dict[Version, Event | None]:
        """Make the first of these, and those for which there is time after it."""
        ids, names = zip(*wanted, strict=True)
        asked = list(wanted.values()), ids, names, MAKING_MILLISECONDS // 2
        rows = await self._database.rows_within(
            "load_versions", *asked, milliseconds=MAKING_MILLISECONDS
        )
        made: dict[Version, Event | None] = dict.fromkeys(wanted)
        for event_id, name, in_time, *content in rows:
            version = Version(event_id, name)
            if not in_time:
                del made[version]
                continue
            made[version] = event = event_of(event_id, *content)
            if event.body:
                self._made.put(event, _key(version))
        return made


def _key(version: Version) -> str:
    return " ".join(version)
