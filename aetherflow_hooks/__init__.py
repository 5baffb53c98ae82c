"""AetherFlow Hooks: webhook delivery for applications on Postgres.

A name is loaded when it is first asked for: who only verifies what was signed loads no engine.
"""

from typing import TYPE_CHECKING

from aetherflow_hooks.lazy import names

if TYPE_CHECKING:
    from aetherflow_hooks.config import Settings
    from aetherflow_hooks.config import load as load_config
    from aetherflow_hooks.db import migrate
    from aetherflow_hooks.engine import Engine, start_engine
    from aetherflow_hooks.errors import HooksError
    from aetherflow_hooks.flow.emit import NewEvent, emit, emit_many
    from aetherflow_hooks.receive import verify

__all__ = [
    "Engine",
    "HooksError",
    "NewEvent",
    "Settings",
    "emit",
    "emit_many",
    "load_config",
    "migrate",
    "start_engine",
    "verify",
]

__getattr__, __dir__ = names(
    __name__,
    {
        "Engine": "aetherflow_hooks.engine:Engine",
        "HooksError": "aetherflow_hooks.errors:HooksError",
        "NewEvent": "aetherflow_hooks.flow.emit:NewEvent",
        "Settings": "aetherflow_hooks.config:Settings",
        "emit": "aetherflow_hooks.flow.emit:emit",
        "emit_many": "aetherflow_hooks.flow.emit:emit_many",
        "load_config": "aetherflow_hooks.config:load",
        "migrate": "aetherflow_hooks.db:migrate",
        "start_engine": "aetherflow_hooks.engine:start_engine",
        "verify": "aetherflow_hooks.receive.signatures:verify",
    },
)
