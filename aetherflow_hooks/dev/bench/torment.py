"""Torment: a receiver that misbehaves as its URL says (see `dev.script`), in a process of its own.

open   → how many of the requests to the paths that it was told of are under way
"""

from typing import Any

from aetherflow_hooks.dev.bench import talk
from aetherflow_hooks.dev.receiver import Receiver


async def main(told: dict[str, Any]) -> None:
    """Serve until the parent ends us: {paths}."""
    async with Receiver(on_request=lambda _: receiver.received.clear()) as receiver:
        talk.say({"port": receiver.port})
        while await talk.hear() is not None:
            talk.say(sum(receiver.open_now(path) for path in told["paths"]))


if __name__ == "__main__":
    talk.run(main)
