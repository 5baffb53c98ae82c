"""Bodies: the bytes that are signed and posted, and those that are kept for a while."""

import functools
from collections import OrderedDict
from datetime import UTC, datetime

from aetherflow_hooks.model import Event

SECONDS_REMEMBERED = 1_000
EVENT_BYTES = 500  # that an event takes beside its body


class Bodies:
    """Events read not long ago, up to a number of bytes; the one used longest ago goes first."""

    def __init__(self, bytes_max: int) -> None:
        """Keep at most so many bytes."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._by_id: OrderedDict[str, Event] = OrderedDict()

    def get(self, key: str) -> Event | None:
        """Give an event that is kept under a key, which mostly is its id."""
        event = self._by_id.get(key)
        if event is not None:
            self._by_id.move_to_end(key)
        return event

    def put(self, event: Event, key: str | None = None) -> None:
        """Keep an event, for the next endpoint or attempt; under a key other than its id.

        One that is larger than all that may be kept is not, and drives out no other.
        """
        key = key or event.id
        size_bytes = _size_bytes(event)
        if key in self._by_id or size_bytes > self._bytes_max:
            return
        self._by_id[key] = event
        self._bytes += size_bytes
        while self._bytes > self._bytes_max:
            _, oldest = self._by_id.popitem(last=False)
            self._bytes -= _size_bytes(oldest)


def _size_bytes(event: Event) -> int:
    return len(event.body) + EVENT_BYTES


def event_of(
    event_id: str,
    event_type: str,
    data: str | None,
    emitted_at: int,
    traceparent: str | None = None,
    unmade: str | None = None,
) -> Event:
    """Make an event with its body: exactly these keys in this order, and `data` untouched.

    Type and id hold nothing that JSON would escape. `unmade` says why there is no data, where that
    is so since a version could not be made.
    """
    if data is None:
        return Event(event_id, event_type, b"", unmade=unmade or "")
    return Event(
        event_id,
        event_type,
        f'{{"event":"{event_type}","id":"{event_id}","timestamp":"{_second(emitted_at)}",'
        f'"data":{data}}}'.encode(),
        traceparent or "",
    )


@functools.lru_cache(SECONDS_REMEMBERED)
def _second(whole_unix_seconds: int) -> str:
    """Write a moment as receivers see it. Events of one second come together."""
    return f"{datetime.fromtimestamp(whole_unix_seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
