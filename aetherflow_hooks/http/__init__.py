"""HTTP: the way of one request to its answer, over aiohttp's connector and parser."""

from aetherflow_hooks.http.client import Client
from aetherflow_hooks.http.connections import parts_are_there
from aetherflow_hooks.http.exchange import BROKEN_OFF

__all__ = ["BROKEN_OFF", "Client", "parts_are_there"]
