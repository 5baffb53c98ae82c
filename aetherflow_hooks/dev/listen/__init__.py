"""listen: live events to a program on this machine. Nothing is changed where they come from.

sources.py  where events are read: through the API with a token, or in the database
feed.py     what is new there, each event once
program.py  the program that they are sent to
relay.py    from the one to the other, in order, one at a time; who is away is waited for
"""

from aetherflow_hooks.dev.listen.feed import Feed
from aetherflow_hooks.dev.listen.program import Program
from aetherflow_hooks.dev.listen.relay import Relay, Sent
from aetherflow_hooks.dev.listen.sources import FromApi, FromDatabase, Source

__all__ = ["Feed", "FromApi", "FromDatabase", "Program", "Relay", "Sent", "Source"]
