"""The scripted receiver does to the byte what its scripts say, and leaves nothing behind."""

import asyncio
import gc
import gzip
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from aetherflow_hooks.dev.receiver import Received, Receiver

BODY = b'{"event":"a","id":"evt_1","timestamp":"2024-01-15T10:30:00Z","data":{}}'


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


class Wire:
    """One plain connection, which says and reads bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def post(self, url: str, body: bytes = BODY, headers: str = "") -> None:
        parts = urlsplit(url)
        await self.say(
            f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def rest(self) -> bytes:
        return await self.reader.read()

    async def silent(self, seconds: float = 0.05) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.reader.readexactly(1)
        except TimeoutError:
            return True
        return False


@asynccontextmanager
async def wire(
    receiver: Receiver, tls: ssl.SSLContext | None = None, limit: int = 2**20
) -> AsyncIterator[Wire]:
    async with asyncio.timeout(5):
        streams = await asyncio.open_connection("127.0.0.1", receiver.port, ssl=tls, limit=limit)
        try:
            yield Wire(*streams)
        finally:
            streams[1].transport.abort()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0.005)


async def test_a_url_is_readable_and_carries_its_script(receiver: Receiver) -> None:
    assert receiver.url("/a", "500,500,200") == (
        f"http://127.0.0.1:{receiver.port}/a?do=500,500,200"
    )
    async with wire(receiver) as w:
        await w.post(receiver.url("/b", "503;retry-after=3 + 4;x-path=%2C%3B/?&="))
        assert await w.head() == (
            b"HTTP/1.1 503 Service Unavailable\r\n"
            b"retry-after: 3 + 4\r\nx-path: ,;/?&=\r\nContent-Length: 0\r\n\r\n"
        )


async def test_a_request_is_kept_as_it_came(receiver: Receiver) -> None:
    before, unix_before = asyncio.get_running_loop().time(), time.time()
    async with wire(receiver) as w:
        await w.post(receiver.url("/a"), b"\x00\xff", "X-A: 1\r\nx-a:  2 \r\nX-B: \xe9\r\n")
        await w.head()
    [came] = receiver.received
    assert (came.path, came.body, came.step, came.connection) == ("/a", b"\x00\xff", "200", 1)
    assert came.headers["x-a"] == "2"
    assert came.headers["x-b"] == "\xc3\xa9"
    assert before <= came.began <= asyncio.get_running_loop().time()
    assert unix_before <= came.unix_seconds <= time.time()


async def test_steps_are_taken_in_turn_and_the_last_for_ever(receiver: Receiver) -> None:
    url = receiver.url("/a", "500,410,201")
    async with wire(receiver) as one, wire(receiver) as two:
        answers = []
        for w in (one, two, one, two):
            await w.post(url)
            answers.append((await w.head())[9:12])
    assert answers == [b"500", b"410", b"201", b"201"]
    assert [came.step for came in receiver.at("/a")] == ["500", "410", "201", "201"]
    assert [came.connection for came in receiver.received] == [1, 2, 1, 2]
    assert receiver.connections == 2


async def test_each_path_has_a_script_of_its_own(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        for path in ("/a", "/b"):
            await w.post(receiver.url(path, "500,200"))
            assert (await w.head())[9:12] == b"500"
    assert len(receiver.at("/a")) == len(receiver.at("/b")) == 1
    assert receiver.at("/c") == []


async def test_a_request_in_pieces_began_with_its_first_byte(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        for piece in (b"POST /a HTTP/1.1\r", b"\nContent-Length: 3\r\n\r", b"\na", b"bc"):
            await w.say(piece)
            await asyncio.sleep(0.01)
        await w.head()
    assert receiver.received[0].body == b"abc"
    assert asyncio.get_running_loop().time() - receiver.received[0].began >= 0.04


async def test_pipelined_requests_are_answered_in_order(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "200;wait=0.02"))
        await w.post(receiver.url("/b", "500"))
        assert (await w.head()).startswith(b"HTTP/1.1 200")
        assert (await w.head()).startswith(b"HTTP/1.1 500")


async def test_wait_holds_the_answer_back_after_the_request_is_kept(receiver: Receiver) -> None:
    start = asyncio.get_running_loop().time()
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "200;wait=0.1"))
        await receiver.wait_for(1)
        assert receiver.open_now("/a") == 1
        await w.head()
        assert asyncio.get_running_loop().time() - start >= 0.1
        assert receiver.open_now("/a") == 0


async def test_a_body_has_the_size_that_was_asked_for(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        for _ in range(2):
            await w.post(receiver.url("/a", "200;size=1048576"))
            assert b"Content-Length: 1048576\r\n" in await w.head()
            assert len(await w.reader.readexactly(1048576)) == 1048576


async def test_a_body_holds_the_bytes_that_were_asked_for(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "409;body=%00%1b%ff%2C;x-esc=%1b"))
        assert await w.head() == (
            b"HTTP/1.1 409 Conflict\r\nx-esc: \x1b\r\nContent-Length: 4\r\n\r\n"
        )
        assert await w.reader.readexactly(4) == b"\x00\x1b\xff,"


async def test_an_answer_without_a_body_has_no_length(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "204"))
        assert await w.head() == b"HTTP/1.1 204 No Content\r\n\r\n"
        await w.post(receiver.url("/b", "299"))
        assert await w.head() == b"HTTP/1.1 299 Unnamed\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("closing", ["by the request", "by the script", "by HTTP/1.0"])
async def test_a_connection_closes_when_one_side_says_so(receiver: Receiver, closing: str) -> None:
    async with wire(receiver) as w:
        if closing == "by the request":
            await w.post(receiver.url("/a"), headers="Connection: close\r\n")
        elif closing == "by the script":
            await w.post(receiver.url("/a", "200;connection=close"))
        else:
            await w.say(b"GET /a HTTP/1.0\r\n\r\n")
        assert (await w.rest()).startswith(b"HTTP/1.1 200 OK\r\n")


async def test_hang_reads_and_says_nothing_until_the_sender_goes(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "hang"))
        assert await w.silent()
        assert receiver.received[0].body == BODY
        assert receiver.open_now("/a") == 1
    await until(lambda: receiver.open_now("/a") == 0)
    assert receiver.open_most("/a") == 1


async def test_deaf_leaves_the_body_unread(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        # More than both kernels' buffers take, so that writing it has to stop.
        post = asyncio.create_task(w.post(receiver.url("/a", "deaf"), bytes(2**24)))
        await receiver.wait_for(1)
        assert await w.silent(0.2)
        assert not post.done()
        post.cancel()
    assert receiver.received[0].body == b""
    assert receiver.received[0].step == "deaf"


async def test_deaf_notices_a_sender_that_gives_up(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "deaf"))
        assert await w.silent()
        assert receiver.open_now("/a") == 1
    await until(lambda: receiver.open_now("/a") == 0)


async def test_drip_gives_one_byte_at_a_time(receiver: Receiver) -> None:
    start = asyncio.get_running_loop().time()
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "drip;every=0.03"))
        assert (await w.head()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await w.reader.readexactly(4) == b"...."
        assert asyncio.get_running_loop().time() - start >= 0.09
        assert receiver.open_now("/a") == 1
    await until(lambda: receiver.open_now("/a") == 0)


async def test_drip_head_gives_a_good_answer_byte_by_byte(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "drip-head;every=0.002,201"))
        pieces: list[bytes] = []
        while not b"".join(pieces).endswith(b"\r\n\r\n"):
            pieces.append(await w.reader.read(100))
        assert b"".join(pieces) == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert len(pieces) > 20
        await w.post(receiver.url("/a", "drip-head;every=0.002,201"))
        assert (await w.head()).startswith(b"HTTP/1.1 201")


async def test_flood_never_ends_and_waits_for_the_reader(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "flood"))
        assert b"Transfer-Encoding: chunked\r\n" in await w.head()
        for _ in range(100):
            assert (
                await w.reader.readexactly(7 + 65536 + 2) == b"10000\r\n" + b"x" * 65536 + b"\r\n"
            )
        assert receiver.open_now("/a") == 1
    await until(lambda: receiver.open_now("/a") == 0)


async def test_bomb_is_small_and_grows(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "bomb"))
        head = await w.head()
        assert b"Content-Encoding: gzip\r\n" in head
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        assert size < 2**17
        assert len(gzip.decompress(await w.reader.readexactly(size))) == 64 * 2**20


async def test_many_headers_are_many(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "many-headers,many-headers;count=2"))
        assert (await w.head()).count(b"\r\n") == 1 + 10000 + 1 + 1
        await w.post(receiver.url("/a", "many-headers,many-headers;count=2"))
        assert await w.head() == (
            b"HTTP/1.1 200 OK\r\nX-Many-1: 1\r\nX-Many-2: 1\r\nContent-Length: 0\r\n\r\n"
        )


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        ("close", b""),
        ("half", b"HTTP/1.1 2"),
        ("short", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345"),
        ("garbage", b"SSH-2.0-x\r\n"),
    ],
)
async def test_these_say_what_they_say_and_close(
    receiver: Receiver, step: str, answer: bytes
) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", step))
        assert await w.rest() == answer
    assert receiver.received[0].step == step
    assert receiver.open_now("/a") == 0


async def test_reset_is_a_reset(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "reset"))
        with pytest.raises(ConnectionResetError):
            await w.rest()


async def test_twice_answers_one_request_two_times(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "twice"))
        assert await w.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert (await w.head()).startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
        assert await w.reader.readexactly(7) == b"unasked"
    assert len(receiver.received) == 1


async def test_later_speaks_unasked_on_the_idle_connection(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "later"))
        start = asyncio.get_running_loop().time()
        assert await w.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        assert await w.head() == b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
        assert asyncio.get_running_loop().time() - start > 0.04
        assert receiver.open_now("/a") == 0


async def test_later_is_silent_while_a_request_is_handled(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        for _ in range(2):
            await w.post(receiver.url("/a", "later,500;wait=0.1"))
        assert (await w.head()).startswith(b"HTTP/1.1 200")
        assert (await w.head()).startswith(b"HTTP/1.1 500")
        assert await w.silent()


async def test_hints_never_end(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", "endless-103"))
        for _ in range(2000):
            assert (await w.head()).startswith(b"HTTP/1.1 103 Early Hints\r\nLink: ")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("teapot", "'teapot' is not a step"),
        ("20", "'20' is not a step"),
        ("", "'' is not a step"),
        ("200,", "'' is not a step"),
        ("200;wait", "an option is key=value, not 'wait'"),
        ("200;wait=soon", "wait is a number of seconds, not b'soon'"),
        ("200;wait=-1", "wait is a number of seconds, not b'-1'"),
        ("200;size=many", "size is a whole number up to"),
        ("200;size=1;body=x", "a step has body or size, not both"),
        ("200;wait=0;wait=1", "wait is given 2 times"),
        ("hang;size=1", "hang has no option 'size'"),
    ],
)
async def test_a_wrong_script_is_told(receiver: Receiver, script: str, why: str) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", script), headers="Connection: close\r\n")
        answer = (await w.rest()).decode()
    assert answer.startswith("HTTP/1.1 400 Bad Request\r\n")
    assert why in answer
    assert receiver.received[0].step == ""


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"what\r\n\r\n", b"400"),
        (b"POST / HTTP/3\r\n\r\n", b"505"),
        (b"POST / HTTP/1.1\r\nno colon\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nA: 1\r\n folded: 2\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 1,1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n" + bytes(99999), b"413"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", b"501"),
        (b"POST / HTTP/1.1\r\nA: " + b"a" * 66000, b"431"),
        (b"POST / HTTP/1.1\r\nA: " + b"a" * 66000 + b"\r\n\r\n", b"431"),
    ],
)
async def test_what_is_not_http_is_refused(receiver: Receiver, said: bytes, status: bytes) -> None:
    async with wire(receiver) as w:
        await w.say(said)
        assert (await w.rest())[9:12] == status
    assert receiver.received == []
    assert len(receiver.refused) == 1


async def test_a_sender_may_ask_before_it_sends_the_body(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.say(b"POST /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await w.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await w.say(b"{}")
        assert (await w.head()).startswith(b"HTTP/1.1 200")


async def test_waiting_ends_with_the_request_that_was_missing(receiver: Receiver) -> None:
    waiting = asyncio.create_task(receiver.wait_for(2, "/a"))
    async with wire(receiver) as w:
        for path in ("/a", "/b"):
            await w.post(receiver.url(path))
            await w.head()
        assert not waiting.done()
        await w.post(receiver.url("/a", "hang"))
        assert [came.path for came in await waiting] == ["/a", "/a"]
    assert len(await receiver.wait_for(3)) == 3
    assert len(await receiver.wait_for(1)) == 3


async def test_waiting_in_vain_says_how_many_came(receiver: Receiver) -> None:
    async with wire(receiver) as w:
        await w.post(receiver.url("/a"))
        await w.say(b"GET\r\n\r\n")
        await w.rest()
    with pytest.raises(
        TimeoutError,
        match=r"^1 of 2 requests to /a came within 0.01 s "
        r"\(1 in all, 1 refused: not a request line: 'GET'\)$",
    ):
        await receiver.wait_for(2, "/a", timeout_seconds=0.01)
    with pytest.raises(TimeoutError, match=r"^1 of 3 requests came"):
        await receiver.wait_for(3, timeout_seconds=0)


async def test_open_requests_are_counted_by_path(receiver: Receiver) -> None:
    async with wire(receiver) as one, wire(receiver) as two, wire(receiver) as three:
        await one.post(receiver.url("/a", "200;wait=0.05"))
        await two.post(receiver.url("/a", "200;wait=0.05"))
        await three.post(receiver.url("/b", "hang"))
        await receiver.wait_for(3)
        assert (receiver.open_now("/a"), receiver.open_now("/b")) == (2, 1)
        await one.head()
        await two.head()
        await one.post(receiver.url("/a"))
        await one.head()
    assert (receiver.open_now("/a"), receiver.open_most("/a")) == (0, 2)
    assert (receiver.open_now("/c"), receiver.open_most("/c")) == (0, 0)


async def test_on_request_sees_each_request_before_its_answer() -> None:
    seen: list[Received] = []
    async with Receiver(on_request=seen.append) as receiver, wire(receiver) as w:
        await w.post(receiver.url("/a", "hang"))
        await receiver.wait_for(1)
        assert seen == receiver.received


@pytest.mark.parametrize("ahead", ["", "200;wait=0.01"])
async def test_what_on_request_raises_drops_the_connection(ahead: str) -> None:
    def refuse(request: Received) -> None:
        if request.path == "/bad":
            raise LookupError(request.path)

    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: told.append(context["exception"])
    )
    async with Receiver(on_request=refuse) as receiver, wire(receiver) as w:
        if ahead:
            await w.post(receiver.url("/good", ahead))
        await w.post(receiver.url("/bad"))
        assert (await w.rest()).count(b"HTTP/1.1 200") == len(receiver.at("/good"))
        assert receiver.open_now("/bad") == 0
    gc.collect()
    assert [str(error) for error in told] == ["/bad"]


async def test_a_path_may_redirect_to_another_script(receiver: Receiver) -> None:
    target = receiver.url("/b", "500;x=1,200")
    async with wire(receiver) as w:
        await w.post(receiver.url("/a", f"302;location={quote(target, safe='')}"))
        head = await w.head()
    assert f"location: {target}\r\n".encode() in head


async def test_stopping_ends_everything_at_once() -> None:
    before = asyncio.all_tasks()
    receiver = Receiver()
    await receiver.start()
    steps = ["hang", "deaf", "drip", "drip-head", "flood", "endless-103", "200;wait=60", "later"]
    writers = []
    for step in steps:
        reader, writer = await asyncio.open_connection("127.0.0.1", receiver.port)
        await Wire(reader, writer).post(receiver.url(f"/{step[:5]}", step))
        writers.append(writer)
    _, unused = await asyncio.open_connection("127.0.0.1", receiver.port)
    writers.append(unused)
    await receiver.wait_for(len(steps))
    await asyncio.sleep(0.02)
    start = asyncio.get_running_loop().time()
    await receiver.stop()
    assert asyncio.get_running_loop().time() - start < 1
    assert asyncio.all_tasks() == before
    assert receiver.open_now("/hang") == receiver.open_now("/deaf") == 0
    await receiver.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", receiver.port)
    for writer in writers:
        writer.transport.abort()


async def test_it_takes_ten_thousand_requests_quickly(receiver: Receiver) -> None:
    async def post(count: int) -> None:
        async with wire(receiver) as w:
            for _ in range(count):
                await w.post(receiver.url("/a"))
                await w.head()

    start = time.perf_counter()
    await asyncio.gather(*(post(500) for _ in range(20)))
    assert len(receiver.received) == 10_000
    assert receiver.connections == 20
    assert time.perf_counter() - start < 5


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    made = subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=receiver", "-keyout", "-", "-out", "-"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=False,
        capture_output=True,
        timeout=10,
    )
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    file.write_bytes(made.stdout)
    return file


async def test_it_speaks_tls_and_stops_within_a_handshake(certificate: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate)
    client = ssl.create_default_context(cafile=str(certificate))
    before = asyncio.all_tasks()
    async with Receiver(ssl=server) as receiver:
        assert receiver.url().startswith("https://")
        async with wire(receiver, client) as w, wire(receiver, client) as deaf:
            for status in ("200", "503"):
                await w.post(receiver.url(f"/{status}", status))
                assert status.encode() in await w.head()
            await deaf.post(receiver.url("/deaf", "deaf"))
            await receiver.wait_for(3)
        await until(lambda: receiver.open_now("/deaf") == 0)
        async with wire(receiver, client) as w:
            await w.post(receiver.url("/reset", "reset"))
            with pytest.raises(ConnectionResetError):
                await w.rest()
        async with wire(receiver) as plain:  # talks HTTP where TLS is spoken
            await plain.say(b"GET / HTTP/1.1\r\n\r\n")
            await plain.rest()
        async with wire(receiver), wire(receiver, client) as w:  # the first says nothing at all
            await w.post(receiver.url("/hang", "hang"))
            await receiver.wait_for(5)
            start = asyncio.get_running_loop().time()
            await receiver.stop()
            assert asyncio.get_running_loop().time() - start < 1
        assert receiver.connections == 6
    assert asyncio.all_tasks() == before
