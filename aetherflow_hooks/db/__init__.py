"""Postgres: the only folder that knows the driver. Each statement stands in a file of its own."""

from aetherflow_hooks.db.database import Database, Row
from aetherflow_hooks.db.listen import Listener
from aetherflow_hooks.db.migrate import check_schema, migrate, pending
from aetherflow_hooks.db.statements import array_text, definition_of, indexes_walked

__all__ = [
    "Database",
    "Listener",
    "Row",
    "array_text",
    "check_schema",
    "definition_of",
    "indexes_walked",
    "migrate",
    "pending",
]
