"""Receivers as people write them, one for each framework, each a process of its own.

Each takes what it needs from the environment, and for each event puts a row into `handled`, in the
transaction in which the event is marked as seen. What else happens stands in its data, under `do`:
`fail once`, `wait`, or `die once`, which is after the work and before the answer.
"""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aetherflow_hooks.receive import Answer, Hooks

DSN = os.environ["RECEIVER_DSN"]
PORT = int(os.environ["RECEIVER_PORT"])
SECRET = os.environ["RECEIVER_SECRET"]
FOLDER = Path(os.environ["RECEIVER_FOLDER"])
HANDLED = "insert into handled (event_id) values ('{id}')"  # an id holds nothing else
WAIT_SECONDS = 0.3


def happens_first(what: str) -> bool:
    """Tell it once, over the processes of a test."""
    try:
        (FOLDER / what).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def misbehave(data: Mapping[str, Any]) -> None:
    """Do what an event says, after its row is in."""
    if data.get("do") == "fail once" and happens_first("failed"):
        raise RuntimeError("as it was told to")
    if data.get("do") == "wait":
        time.sleep(WAIT_SECONDS)


async def misbehave_awaited(data: Mapping[str, Any]) -> None:
    """Do what an event says, after its row is in."""
    if data.get("do") == "wait":
        await asyncio.sleep(WAIT_SECONDS)
    else:
        misbehave(data)


class Dying:
    """Hooks whose process dies after the work, and before the answer, of one event."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self.body_bytes_max = hooks.body_bytes_max

    @property
    def is_awaited(self) -> bool:
        return self._hooks.is_awaited

    async def receive(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = await self._hooks.receive(body, headers)
        _die(body)
        return answer

    def receive_sync(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        answer = self._hooks.receive_sync(body, headers)
        _die(body)
        return answer


def _die(body: bytes) -> None:
    if b'"die once"' in body and happens_first("died"):
        os._exit(9)
