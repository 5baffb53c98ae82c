"""Exchange: a request from its start to its outcome, whatever happens on the way."""

import asyncio
import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import RawResponseMessage

from aetherflow_hooks.model import (
    Answered,
    Blocked,
    Ended,
    NotReached,
    Outcome,
    Prevented,
    TimedOut,
)
from aetherflow_hooks.rules.addresses import CLOSED_REASON, Closed
from aetherflow_hooks.rules.retry import retry_after_seconds
from aetherflow_hooks.rules.urls import UrlProblem, UrlRefused

if TYPE_CHECKING:
    from aetherflow_hooks.http.connections import Protocol

SWITCHING = 101  # the lowest that ends an exchange
STATUS_MAX = 599  # RFC 9110, 15
# This process or machine has no more files, memory or ports.
OWN_ERRNOS = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EADDRNOTAVAIL}
TOLD_CHARACTERS_MAX = 200  # of what a parser says, which may repeat what it was given

BROKEN_OFF: Outcome = NotReached("broken off: the engine was stopped")


class BrokenOffError(Exception):
    """Given to a connection whose request is broken off."""


class BlockedError(OSError):
    """Raised where a socket is made: aiohttp takes only an OSError for a failed connection."""

    def __init__(self, closed: Closed) -> None:
        """Keep why the address is `closed`."""
        super().__init__(closed.detail)
        self.closed = closed


class PreventedError(OSError):
    """Raised where the proxy cannot be reached, so that nothing can."""


@dataclass(slots=True, eq=False)
class Exchange:
    """A request, from its start until its outcome has been told."""

    done: Callable[[Ended], None]
    timeout_seconds: float
    ends_at: float  # by the loop's clock
    told: Callable[["Exchange"], None]  # takes it when its answer or its outcome is there
    task: asyncio.Task[Ended | None] | None = None  # while something is waited for in steps
    protocol: "Protocol | None" = None  # its connection
    key: ConnectionKey | None = None  # by which the connection is kept
    answer: tuple[RawResponseMessage, aiohttp.StreamReader] | None = None
    is_clean: bool = False  # its connection can serve the next request
    outcome: Ended | None = None

    def end(self, outcome: Ended) -> None:
        """Take the outcome, of which nobody knows yet."""
        self.outcome = outcome
        self.told(self)

    def expire(self) -> None:
        """Let whoever waits for the answer see a TimeoutError."""
        if self.answer is not None:
            self.answer[1].set_exception(TimeoutError())
        elif self.protocol is not None:
            self.protocol.set_exception(TimeoutError())
        elif self.task is None:
            self.end(TimedOut(self.timeout_seconds))  # not even sent

    def break_off(self) -> None:
        """Wait no longer."""
        if self.task is not None:
            self.task.cancel()
        elif self.protocol is not None:
            self.protocol.set_exception(BrokenOffError())
        elif self.outcome is None:
            self.end(BROKEN_OFF)


def answered(status: int, headers: Any, start: bytes) -> Outcome:
    """Take an answer, with the start of its body."""
    if 200 <= status < 400:  # noqa: PLR2004  there Retry-After says nothing, and that is most of all
        return Answered(status, None, start)
    if not SWITCHING <= status <= STATUS_MAX:
        return NotReached(f"its answer is not HTTP: there is no status {status}")
    value = headers.get("Retry-After")
    return Answered(status, retry_after_seconds(status, value, time.time()), start)


def failed(error: BaseException, timeout_seconds: float) -> Ended:  # noqa: PLR0911  a line each
    """Say what an exception means for the attempt; its words are for people."""
    match error:
        case BrokenOffError():
            return BROKEN_OFF
        case TimeoutError():
            return TimedOut(timeout_seconds)
        case BlockedError():
            return Blocked(*error.closed)
        case PreventedError():
            return Prevented(str(error))
        case OSError() if _errno(error) in OWN_ERRNOS:
            return Prevented(f"no connection can be made here: {os.strerror(_errno(error))}")
        case aiohttp.ClientHttpProxyError(status=403 | 407):
            # So do proxies that guard a network answer, whatever the password.
            return Blocked(CLOSED_REASON, f"the proxy refuses it with {error.status}")
        case UrlRefused(problem=UrlProblem.HOST | UrlProblem.PORT | UrlProblem.ADDRESS):
            return Blocked(CLOSED_REASON, str(error))
        case UrlRefused():
            return Blocked(f"its URL is not allowed any more: {error.problem}", str(error))
        case _:
            return NotReached(_told(error))


def _errno(error: OSError) -> int:
    """Give the system's number of an error, which aiohttp wraps; 0: there is none."""
    return getattr(error, "os_error", error).errno or 0


def _told(error: BaseException) -> str:  # noqa: PLR0911  a line for each kind
    """Say what went wrong, without the URL's query or a header: those may hold secrets."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorDNSError():
            return f"its name cannot be resolved: {error.os_error.strerror}"
        case aiohttp.ClientConnectorError():
            return f"no connection: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy cannot reach it: {error.status}"
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return f"its answer is not HTTP: {_in_a_line(error.message)}"
        case aiohttp.ClientOSError():
            return f"the connection broke: {error.strerror or error}"
        case _:
            return f"the request could not be made: {type(error).__name__}"


def _in_a_line(text: str) -> str:
    words = " ".join(text.split())[:TOLD_CHARACTERS_MAX]
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in words)
