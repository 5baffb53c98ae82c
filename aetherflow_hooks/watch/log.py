"""Log events: the closed list of what is written, and how.

The lines go to the standard library's logger `aetherflow_hooks`, so that an application that
embeds the engine decides over them as over its own; the command line sets up its own handler.
"""

import logging
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import IO, Any, Self

import orjson
import structlog

NAME = "aetherflow_hooks"


class LogEvent(StrEnum):
    """Every event that is ever logged, with its level and its meaning."""

    level: str
    meaning: str

    def __new__(cls, name: str, level: str, meaning: str) -> Self:
        """Make one that is its name."""
        event = str.__new__(cls, name)
        event._value_ = name
        event.level = level
        event.meaning = meaning
        return event

    ENGINE_STARTED = "engine.started", "info", "it takes part from now on"
    ENGINE_HELD = (
        "engine.held",
        "error",
        "the database was restored: `restore accept` lets it go on",
    )
    ENGINE_STOPPING = "engine.stopping", "info", "it takes nothing new and drains"
    ENGINE_STOPPED = "engine.stopped", "info", "everything is handed back"
    ENGINE_STUCK = "engine.stuck", "error", "work is due and nobody takes it"
    ENGINE_SHARDS = "engine.shards", "info", "which shards are this engine's has changed"
    SETTINGS_RELOADED = "settings.reloaded", "info", "some were changed while it runs"
    SETTINGS_REFUSED = "settings.refused", "error", "they were read anew: those of before hold"
    WEB_STARTED = "web.started", "info", "where the API is"
    SESSION_BEGUN = "session.begun", "info", "somebody has logged in to the dashboard"
    SESSION_ENDED = "session.ended", "info", "they have logged out"
    STREAM_ENDED = "stream.ended", "debug", "Postgres was away while somebody listened"
    EGRESS_OPENED = "egress.opened", "warning", "a setting lets POSTs go where none would go"
    STAGE_FAILED = "stage.failed", "error", "a defect of ours; the stage goes on"
    BACKLOG_FULL = "backlog.full", "warning", "too much waits, so emit refuses"
    BACKLOG_FREE = "backlog.free", "info", "it takes events again"
    DATABASE_LOST = "database.lost", "warning", "once per outage"
    DATABASE_BACK = "database.back", "info", "Postgres answers again"
    SCHEMA_NEWER = "schema.newer", "warning", "a newer release has migrated: upgrade this one too"
    DATABASE_DEAF = "database.deaf", "warning", "notifications do not come: it looks by itself"
    EMBEDDED_STARTED = "embedded.started", "info", "which embedded Postgres is in use"
    FANOUT_DONE = "fanout.done", "debug", "events turned into deliveries"
    LEASE_TAKEN = "lease.taken", "debug", "deliveries taken"
    LEASE_RETURNED = "lease.returned", "debug", "deliveries given back unsent"
    POST_DONE = "post.done", "info", "one per attempt"
    POLL_DONE = "poll.done", "info", "something was acknowledged or given"
    POST_MIXED = "post.mixed", "info", "a name leads to closed addresses too, which were left out"
    POST_PREVENTED = "post.prevented", "warning", "our own side cannot send, and pauses"
    RECORD_LATE = "record.late", "warning", "results whose lease was lost changed nothing"
    REPLAY_DONE = "replay.done", "info", "all of it is made, and goes out as its turn comes"
    ENDPOINT_DISABLED = "endpoint.disabled", "warning", "a 410 did it, or failures and nothing else"
    ENDPOINT_FAILING = "endpoint.failing", "warning", "only failures for so long that it will be"
    ENDPOINT_RECOVERED = "endpoint.recovered", "info", "something is delivered again"
    ENDPOINT_UNSIGNABLE = "endpoint.unsignable", "error", "its secret cannot be read: it is held"
    KEYS_UNREADABLE = "keys.unreadable", "error", "they were read anew; those of before are used"
    SECRETS_PLAIN = "secrets.plain", "warning", "some are stored as they are, in production"
    SWEEP_PARTITION = "sweep.partition", "info", "a day's partition was dropped"
    SWEEP_ARCHIVED = "sweep.archived", "info", "a day's rows are in their file, so it may go"
    SWEEP_UNARCHIVED = "sweep.unarchived", "error", "they could not be written, so the day stays"
    SWEEP_POSTPONED = "sweep.postponed", "warning", "a long transaction still uses an old partition"
    SWEEP_EXPIRED = "sweep.expired", "warning", "undelivered work outlived its events"
    SWEEP_DONE = "sweep.done", "debug", "rows removed"


log = structlog.wrap_logger(
    logging.getLogger(NAME),
    processors=[
        structlog.stdlib.filter_by_level,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    wrapper_class=structlog.stdlib.BoundLogger,
    context_class=dict,
    cache_logger_on_first_use=True,
)


_logger = logging.getLogger(NAME)


def wants_info() -> bool:
    """Tell whether lines at info are written; asked before one per attempt is put together."""
    return _logger.isEnabledFor(logging.INFO)


def set_up(level: str, form: str, stream: IO[str] = sys.stderr) -> None:
    """Write our log to `stream`: for a process of our own, not for one that embeds us.

    `form` is "json", "text" or "auto", which is text on a terminal.
    """
    as_text = form == "text" or (form == "auto" and stream.isatty())
    renderer: Callable[..., Any] = (
        structlog.dev.ConsoleRenderer(colors=stream.isatty(), pad_event_to=18)
        if as_text
        else structlog.processors.JSONRenderer(
            lambda value, **_: orjson.dumps(value, default=str).decode()
        )
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
        )
    )
    logger = logging.getLogger(NAME)
    logger.handlers[:] = [handler]
    logger.setLevel(level.upper())
    logger.propagate = False
