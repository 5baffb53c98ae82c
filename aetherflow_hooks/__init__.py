"""AetherFlow Hooks: webhook delivery for applications on Postgres."""

from aetherflow_hooks.config import Settings
from aetherflow_hooks.config import load as load_config
from aetherflow_hooks.db import migrate
from aetherflow_hooks.engine import Engine, start_engine
from aetherflow_hooks.errors import HooksError
from aetherflow_hooks.flow.emit import emit
from aetherflow_hooks.receive import verify

__all__ = [
    "Engine",
    "HooksError",
    "Settings",
    "emit",
    "load_config",
    "migrate",
    "start_engine",
    "verify",
]
