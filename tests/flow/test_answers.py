"""Answers of any bytes: one outcome each, of a kind that is known, and the next request is sent."""

import asyncio
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.http import Client
from aetherflow_hooks.model import Answered, Ended, NotReached, TimedOut
from aetherflow_hooks.rules.addresses import LOOPBACK, Egress, Net

LOCAL = Egress(https_only=False, allowed=tuple(map(Net, LOOPBACK)))
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"

# Parts that answers are made of, whole and broken, in an order that nobody expects.
PARTS = [
    *(
        GOOD,
        CHUNKED,
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 500 \r\n",
    ),
    *(b"HTTP/1.0 204 No Content\r\n\r\n", b"HTTP/1.1 101 Switching\r\n\r\n", b"HTTP/1.1 000 x\r\n"),
    *(b"HTTP/1.1 999 x\r\n", b"HTTP/1.1 2000 x\r\n", b"HTTP/9.9 200 OK\r\n", b"HTTP/1.1 2"),
    *(
        b"Content-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 99999999999999999\r\n",
    ),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: x\r\n", b"Connection: close\r\n"),
    *(b"Retry-After: 1e99\r\n", b"Set-Cookie: a=b\r\n", b"X: \xff\xfe\x1b[2J\r\n", b"X : 1\r\n"),
    *(b"X:\r\n folded\r\n", b"Content-Encoding: gzip\r\n", b"Location: http://10.0.0.1/\r\n"),
    *(
        b"\r\n",
        b"\n",
        b"\x00",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"ZZ\r\n",
        b"-5\r\n",
        b"1;" + b"x" * 9000,
    ),
    *(b"hello", b"SSH-2.0-x\r\n", b"x" * 9000, b"\x1f\x8b\x08" + bytes(20), b"<html>"),
]
answers = st.lists(st.sampled_from(PARTS) | st.binary(max_size=40), max_size=8).map(b"".join)


class Raw:
    """Answers a request with bytes as they are, then closes or waits; the next one with GOOD."""

    def __init__(self, answer: bytes, *, closes: bool) -> None:
        self.answers = [answer, GOOD]
        self.closes = closes
        self.requests = 0

    async def take(self, reader: Any, writer: Any) -> None:
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                self.requests += 1
                writer.write(self.answers.pop(0))
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, IndexError):
            pass
        finally:
            writer.close()


async def outcomes(answer: bytes, *, closes: bool, direct: bool) -> list[list[Ended]]:
    """Make two requests; give what was told of each, or of none where the machine was too busy."""
    raw = Raw(answer, closes=closes)
    server = await asyncio.start_server(raw.take, "127.0.0.1", 0)
    client = Client(PostSettings(direct=direct), LOCAL, user_agent="Tests/1")
    await client.open()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    told: list[list[Ended]] = [[], []]
    for one, seconds in zip(told, (0.03, 5.0), strict=True):
        done = asyncio.Event()

        def end(outcome: Ended, one: list[Ended] = one, done: asyncio.Event = done) -> None:
            one.append(outcome)
            done.set()

        client.post(url, "", b"{}", tenant="", timeout_seconds=seconds, done=end)
        async with asyncio.timeout(10):
            await done.wait()
        if not raw.requests:
            told.clear()
            break
    assert not client._under_way
    assert raw.requests == len(
        told
    )  # what lay on the connection was not taken for the second's answer
    await client.close()
    server.close()
    return told


@pytest.mark.parametrize("direct", [True, False])
@given(answer=answers, closes=st.booleans())
@example(answer=GOOD * 2, closes=False)
@example(answer=GOOD + b"HTTP/1.1 200 OK\r\n", closes=False)
@example(answer=GOOD[:-2] + b"HTTP/1.1 200 OK\r\n", closes=False)
@example(answer=b"HTTP/1.1 200 x\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nX:", closes=False)
@example(answer=CHUNKED + b"HTTP/1.1 200 OK\r\nX: ", closes=False)
@example(answer=b"HTTP/1.1 204 No Content\r\n\r\nhello", closes=False)
@example(answer=b"HTTP/1.1 103 x\r\n\r\n" * 100 + GOOD, closes=False)
def test_whatever_is_answered_there_is_one_outcome_and_the_next_request_is_sent(
    direct: bool, answer: bytes, closes: bool
) -> None:
    told = asyncio.run(outcomes(answer, closes=closes, direct=direct))
    assume(told)
    first, second = told
    assert len(first) == len(second) == 1
    assert isinstance(first[0], Answered | NotReached | TimedOut)
    if isinstance(first[0], Answered):
        assert 101 <= first[0].status <= 599
        assert len(first[0].response) <= PostSettings().response_read_bytes
    elif isinstance(first[0], NotReached):
        assert first[0].reason.isprintable()
    assert second == [Answered(200, None, b"ok")]
