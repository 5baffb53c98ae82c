"""Versions: events as they were before their type was changed, for endpoints that ask for that.

Takes    ids of events, each with a version that is asked for.
Hands on the events with that version's body, or with why it cannot be made.
Holds    data that makes no version fails alone; what takes long keeps nobody waiting for long.
"""

import time
from collections.abc import Mapping

from aetherflow_hooks.db import Database
from aetherflow_hooks.errors import TookTooLong
from aetherflow_hooks.model import Event, Version
from aetherflow_hooks.rules.bodies import Bodies, event_of
from aetherflow_hooks.rules.versions import MAKING_MILLISECONDS, too_slow

ONE_BY_ONE_SECONDS = 1.0  # where all together took too long; a turn of lease is no longer
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

    async def fetch(self, wanted: Mapping[Version, int]) -> dict[Version, Event | None]:
        """Give events of the shards that are named; those for which there was no time are missing.

        None: the event is not there any more.
        """
        now = time.monotonic()
        if now > self._made_until:
            self._made = Bodies(MADE_BYTES_MAX)
            self._made_until = now + MADE_SECONDS
        found = {version: self._made.get(_key(version)) for version in wanted}
        missing = {version: wanted[version] for version in wanted if found[version] is None}
        if not missing:
            return found
        try:
            return found | await self._make(missing)
        except TookTooLong:
            until = time.monotonic() + ONE_BY_ONE_SECONDS
            for version, shard in missing.items():
                if time.monotonic() < until:
                    found[version] = await self._make_one(version, shard)
                else:
                    del found[version]
        return found

    async def _make_one(self, version: Version, shard: int) -> Event | None:
        try:
            return (await self._make({version: shard})).get(version)
        except TookTooLong:
            event_id, name = version
            rows = await self._database.rows("load_events", [shard], [event_id])
            return Event(event_id, rows[0]["type"], b"", too_slow(name)) if rows else None

    async def _make(self, wanted: Mapping[Version, int]) -> dict[Version, Event]:
        ids, names = zip(*wanted, strict=True)
        async with self._database.transaction() as bound:
            await bound.rows("limit_statement", MAKING_MILLISECONDS)
            rows = await bound.rows("load_versions", list(wanted.values()), ids, names)
        made = {}
        for event_id, name, *content in rows:
            version = Version(event_id, name)
            made[version] = event = event_of(event_id, *content)
            if event.body:
                self._made.put(event, _key(version))
        return made


def _key(version: Version) -> str:
    return " ".join(version)
