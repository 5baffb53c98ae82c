"""Scripts: what a receiver is told to do by the URL that it is called by.

A script is a list of steps separated by commas. The n-th request to a path takes the n-th step, the
last one for ever. A step is a status or a word, then options, each after a semicolon:

    200                     an answer without a body
    503;retry-after=3       any option that is not named below becomes a header of the answer
    200;wait=0.2            0.2 seconds before anything is answered; every step can have it
    200;size=1048576        a body of that many bytes
    200;body=%00%1b%ff      this body; values are percent-decoded once, so "," is %2C and ";" is %3B

    hang                    reads the request and never answers
    deaf                    reads the headers, not the body, and never answers
    drip;every=0.5          headers at once, then one byte of the body every 0.5 seconds without end
    drip-head;every=0.5     a good answer, one byte every 0.5 seconds
    flood                   a chunked body without end, as fast as it is read
    bomb                    64 KiB of gzip that unpack to 64 MiB
    many-headers;count=10000
    endless-103             103 Early Hints without end, as fast as they are read
    endless-extension       a good answer whose first chunk has an extension without end
    close                   closes without an answer
    reset                   the same with a TCP reset
    half                    half a status line, then closes
    short                   promises 100 bytes, sends 5, closes
    garbage                 greets like an SSH server, closes
    twice                   a good answer and right behind it a second one, 500
    later                   a good answer and, 50 ms later on the idle connection, an unasked one

A status below 200 is not a final answer: whoever asked goes on waiting. A script that cannot be
understood is answered 400 with the reason as its body.
"""

import enum
import functools
import itertools
import math
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from urllib.parse import unquote_plus, unquote_to_bytes

BLOCK = b"x" * 65536
MEBIBYTE = 1024 * 1024
BOMB_MEBIBYTES = 64


class Then(enum.Enum):
    """What becomes of the connection after a step."""

    KEEP = enum.auto()
    CLOSE = enum.auto()
    RESET = enum.auto()
    HOLD = enum.auto()  # it stays open, and the request unanswered


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What is done with one request."""

    text: str = ""
    wait_seconds: float = 0.0
    sent: bytes = b""  # at once
    stream: Callable[[], Iterator[bytes]] | None = None  # behind it, in pieces
    every_seconds: float = 0.0  # between the pieces
    then: Then = Then.KEEP
    unasked: bytes = b""
    deaf: bool = False


class NotUnderstood(ValueError):
    """A script that means nothing here."""


class _Options:
    """The `key=value`s of one step; each is taken out by whoever understands it."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._pairs: list[tuple[str, bytes]] = []
        for text in texts:
            key, equals, value = text.partition("=")
            if not key or not equals:
                raise NotUnderstood(f"an option is key=value, not {text!r}")
            self._pairs.append((key, unquote_to_bytes(value)))

    def take(self, key: str) -> bytes | None:
        values = [value for found, value in self._pairs if found == key]
        if len(values) > 1:
            raise NotUnderstood(f"{key} is given {len(values)} times")
        self._pairs = [pair for pair in self._pairs if pair[0] != key]
        return values[0] if values else None

    def seconds(self, key: str, default: float) -> float:
        value = self.take(key)
        try:
            seconds = default if value is None else float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            raise NotUnderstood(f"{key} is a number of seconds, not {value!r}")
        return seconds

    def count(self, key: str, default: int, most: int) -> int:
        value = self.take(key)
        if value is None:
            return default
        if not value.isdigit() or int(value[:20]) > most:
            raise NotUnderstood(f"{key} is a whole number up to {most}, not {value!r}")
        return int(value)

    def rest(self) -> list[tuple[str, bytes]]:
        rest, self._pairs = self._pairs, []
        return rest


@functools.lru_cache(maxsize=4096)
def plan(target: str) -> tuple[str, tuple[Step, ...]]:
    """Split a request's target into its path and the steps of its script."""
    path, _, query = target.partition("?")
    script = "200"
    for pair in query.split("&"):
        key, _, value = pair.partition("=")
        if key == "do":
            script = unquote_plus(value)
    try:
        return path, tuple(_read_step(text) for text in script.split(","))
    except NotUnderstood as problem:
        return path, (Step(sent=answer(400, [], f"{problem}\n".encode())),)


def _read_step(text: str) -> Step:
    word, *texts = text.split(";")
    options = _Options(texts)
    wait_seconds = options.seconds("wait", 0.0)
    if word in _WORDS:
        step = _WORDS[word](options)
    elif len(word) == len("200") and word.isascii() and word.isdigit() and word >= "100":
        step = _status(int(word), options)
    else:
        raise NotUnderstood(
            f"{word!r} is not a step: it would be a status from 100 to 999, {', '.join(_WORDS)}"
        )
    if unknown := options.rest():
        raise NotUnderstood(f"{word} has no option {unknown[0][0]!r}")
    return replace(step, text=text, wait_seconds=wait_seconds)


def _status(status: int, options: _Options) -> Step:
    body = options.take("body")
    size = options.count("size", 0, 2**40)
    if body is not None and size:
        raise NotUnderstood("a step has body or size, not both")
    headers = [(key.encode(), value) for key, value in options.rest()]
    closes = any(key.lower() == b"connection" and value == b"close" for key, value in headers)
    return Step(
        sent=answer(status, headers, body or b"", size),
        stream=functools.partial(_blocks, size) if size else None,
        then=Then.CLOSE if closes else Then.KEEP,
    )


def answer(
    status: int,
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: bytes = b"",
    size_to_follow: int = 0,
) -> bytes:
    """Write an answer in bytes; a body of `size_to_follow` is sent behind it."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unnamed"
    lines = [f"HTTP/1.1 {status} {phrase}".encode()]
    lines += [b"%s: %s" % pair for pair in headers]
    named = {name.lower() for name, _ in headers}
    bodiless = status < HTTPStatus.OK or status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}
    if not bodiless and not named & {b"content-length", b"transfer-encoding"}:
        lines.append(b"Content-Length: %d" % (len(body) or size_to_follow))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _blocks(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: size - start]


def _bytewise(answer: bytes) -> Iterator[bytes]:
    return (answer[place : place + 1] for place in range(len(answer)))


@functools.cache
def _bomb() -> bytes:
    # One mebibyte packed by itself can be repeated: 40 ms of work instead of 400, once, on the loop
    # that the program under test may share.
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    zeros = bytes(MEBIBYTE)
    packed = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    checksum = 0
    for _ in range(BOMB_MEBIBYTES):
        checksum = zlib.crc32(zeros, checksum)
    gzip_head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    last_block = b"\x03\x00"
    gzip_tail = struct.pack("<II", checksum, BOMB_MEBIBYTES * MEBIBYTE)
    gzip = gzip_head + packed * BOMB_MEBIBYTES + last_block + gzip_tail
    return answer(200, [(b"Content-Encoding", b"gzip")], gzip)


def _drip(options: _Options) -> Step:
    return Step(
        sent=b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n",
        stream=lambda: itertools.repeat(b"."),
        every_seconds=options.seconds("every", 0.5),
    )


def _drip_head(options: _Options) -> Step:
    return Step(
        stream=functools.partial(_bytewise, answer(200)),
        every_seconds=options.seconds("every", 0.5),
    )


def _many_headers(options: _Options) -> Step:
    count = options.count("count", 10_000, 1_000_000)
    return Step(sent=answer(200, [(b"X-Many-%d" % n, b"1") for n in range(1, count + 1)]))


_CHUNK = b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK)
_HINTS = 500 * b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"

_WORDS: dict[str, Callable[[_Options], Step]] = {
    "hang": lambda _: Step(then=Then.HOLD),
    "deaf": lambda _: Step(then=Then.HOLD, deaf=True),
    "drip": _drip,
    "drip-head": _drip_head,
    "flood": lambda _: Step(
        sent=answer(200, [(b"Transfer-Encoding", b"chunked")]),
        stream=lambda: itertools.repeat(_CHUNK),
    ),
    "bomb": lambda _: Step(stream=lambda: iter([_bomb()])),
    "many-headers": _many_headers,
    "endless-103": lambda _: Step(stream=lambda: itertools.repeat(_HINTS)),
    "endless-extension": lambda _: Step(
        sent=b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        stream=lambda: itertools.repeat(BLOCK),
    ),
    "close": lambda _: Step(then=Then.CLOSE),
    "reset": lambda _: Step(then=Then.RESET),
    "half": lambda _: Step(sent=b"HTTP/1.1 2", then=Then.CLOSE),
    "short": lambda _: Step(
        sent=answer(200, [(b"Content-Length", b"100")], b"12345"), then=Then.CLOSE
    ),
    "garbage": lambda _: Step(sent=b"SSH-2.0-x\r\n", then=Then.CLOSE),
    "twice": lambda _: Step(sent=answer(200) + answer(500, body=b"unasked")),
    "later": lambda _: Step(sent=answer(200), unasked=answer(200, body=b"unasked")),
}
