"""HTTP: what the direct way does with connections, beyond what every way must do (story/)."""

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp.client_proto import ResponseHandler

from aetherflow_hooks.config import PostSettings
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.http import BROKEN_OFF, Client, parts_are_there
from aetherflow_hooks.http.tls import Context
from aetherflow_hooks.model import Answered, Ended, NotReached, TimedOut
from aetherflow_hooks.rules.addresses import LOOPBACK, Egress, Net

pytestmark = pytest.mark.usefixtures("each_loop")

LOCAL = Egress(https_only=False, allowed=tuple(map(Net, LOOPBACK)), names=("localhost",))


@pytest.fixture
def each_loop() -> None:
    """A name that asks for both loops; see conftest."""


@pytest_asyncio.fixture
async def client() -> AsyncIterator[Client]:
    client = Client(PostSettings(), LOCAL, user_agent="Tests/1")
    await client.open()
    yield client
    await client.close()


async def post(client: Client, url: str, body: bytes = b"{}", seconds: float = 5.0) -> Ended:
    outcome: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
    client.post(
        url, "X-One: 1\r\n", body, tenant="", timeout_seconds=seconds, done=outcome.set_result
    )
    return await outcome


def idle(client: Client) -> list[Any]:
    return [it for kept in client._connector._conns.values() for it, _ in kept]


async def serve(
    answer: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any], **options: Any
) -> tuple[asyncio.Server, int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, **options)
    port: int = server.sockets[0].getsockname()[1]
    return server, port


def test_this_release_of_aiohttp_has_the_parts() -> None:
    assert parts_are_there()


async def test_without_the_parts_the_session_serves(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Client(PostSettings(), LOCAL, user_agent="Tests/1")
    assert whole._is_direct
    monkeypatch.delattr(ResponseHandler, "set_response_params")
    lacking = Client(PostSettings(), LOCAL, user_agent="Tests/1")
    assert not lacking._is_direct


async def test_the_request_is_what_the_session_would_send(receiver: Receiver) -> None:
    both = []
    for direct in (True, False):
        client = Client(PostSettings(direct=direct), LOCAL, user_agent="Tests/1")
        await client.open()
        url = receiver.url("/é/%2F", "200") + "&a=b%20c"
        assert await post(client, url, b'{"a":1}') == Answered(200, None, b"")
        await client.close()
        request = receiver.received[-1]
        both.append((request.path, dict(request.headers), request.body))
    assert both[0] == both[1]


async def test_a_connection_is_used_again_until_it_is_old(
    client: Client, receiver: Receiver
) -> None:
    for _ in range(5):
        assert isinstance(await post(client, receiver.url()), Answered)
    assert receiver.connections == 1
    (protocol,) = idle(client)
    protocol.used_until = 0.0
    assert isinstance(await post(client, receiver.url()), Answered)
    assert receiver.connections == 2


async def test_an_answer_in_many_pieces_leaves_its_connection_good(client: Client) -> None:
    requests = []
    ended = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"{}")
                requests.append(writer)
                for piece in (
                    b"HTTP/1.1 200 OK\r",
                    b"\nContent-Len",
                    b"gth: 5\r\n\r",
                    b"\nhel",
                    b"lo",
                ):
                    writer.write(piece)
                    await writer.drain()
                    await asyncio.sleep(0.01)
        writer.close()
        ended.set()

    server, port = await serve(answer)
    for _ in range(3):
        assert await post(client, f"http://127.0.0.1:{port}/") == Answered(200, None, b"hello")
    assert len(requests) == 3
    assert len(set(requests)) == 1
    await client.close()
    await ended.wait()
    server.close()


async def test_an_answer_before_the_request_is_out_costs_the_connection(client: Client) -> None:
    """What is left of the body would be the start of the next request."""

    left = asyncio.Event()

    async def answer_early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
        await asyncio.sleep(0.1)  # not reading meanwhile
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()
        left.set()

    server, port = await serve(answer_early)
    outcome = await post(client, f"http://127.0.0.1:{port}/", b"x" * 16_000_000)
    assert outcome == Answered(413, None, b"")
    assert idle(client) == []
    await asyncio.wait_for(left.wait(), 5)
    server.close()


async def test_the_deadline_is_over_connecting_too(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(client._connector, "connect", hang)
    assert await post(client, "http://127.0.0.1:1/", seconds=0.1) == TimedOut(0.1)


async def test_nothing_under_way_is_watched_when_all_is_answered(
    client: Client, receiver: Receiver
) -> None:
    outcomes = await asyncio.gather(*(post(client, receiver.url("/a")) for _ in range(20)))
    assert set(outcomes) == {Answered(200, None, b"")}
    assert isinstance(await post(client, receiver.url("/b", "close")), NotReached)
    assert await post(client, receiver.url("/c", "hang"), seconds=0.1) == TimedOut(0.1)
    assert not client._under_way


async def test_what_is_broken_off_is_told_so_wherever_it_is(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        asyncio.create_task(post(client, receiver.url(f"/{number}", script)))
        for number, script in enumerate(("hang", "200;size=1000000;wait=60", "drip"))
    ]
    while len(receiver.received) < len(asked):
        await asyncio.sleep(0.01)

    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(client._connector, "connect", hang)
    asked.append(asyncio.create_task(post(client, "http://127.0.0.1:1/")))
    await asyncio.sleep(0.05)  # an answer has begun, and none has ended
    asked.append(asyncio.create_task(post(client, "http://127.0.0.1:2/")))
    asyncio.get_running_loop().call_soon(client.break_off)  # the last one has not taken a step
    assert await asyncio.wait_for(asyncio.gather(*asked), 2) == [BROKEN_OFF] * 5
    assert not client._under_way
    assert idle(client) == []


async def test_an_answer_before_the_question_is_taken_and_ends_the_connection(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def speak_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Full\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while await reader.read(1 << 20):
                pass
        writer.close()

    server, port = await serve(speak_first)
    connect = client._connector.connect

    async def connect_and_wait(*args: Any) -> Any:
        connection = await connect(*args)
        await asyncio.sleep(0.1)
        return connection

    monkeypatch.setattr(client._connector, "connect", connect_and_wait)
    assert await post(client, f"http://127.0.0.1:{port}/") == Answered(503, None, b"")
    assert idle(client) == []
    server.close()


async def test_one_end_that_is_not_taken_does_not_keep_others_from_theirs(
    client: Client, receiver: Receiver
) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def refuse(_: Ended) -> None:
        raise ValueError("a defect")

    for number in range(5):
        client.post(
            receiver.url(f"/{number}"), "", b"{}", tenant="", timeout_seconds=5.0, done=refuse
        )
    assert isinstance(await post(client, receiver.url("/last")), Answered)
    while client._under_way:
        await asyncio.sleep(0.01)
    assert [str(it["exception"]) for it in told] == ["a defect"] * 5
    assert len(idle(client)) == 6


async def test_a_request_that_cannot_be_written_keeps_no_other_from_its_way(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, taken = client._connector.take, 0

    def take_or_fail(key: Any) -> Any:
        nonlocal taken
        taken += 1
        if taken == 2:
            raise RuntimeError("the handler is closed")
        return take(key)

    monkeypatch.setattr(client._connector, "take", take_or_fail)
    outcomes = await asyncio.gather(*(post(client, receiver.url(f"/{it}")) for it in range(4)))
    assert [type(it) for it in outcomes] == [Answered, NotReached, Answered, Answered]
    assert not client._under_way


async def test_a_connection_that_cannot_be_given_back_keeps_no_outcome_back(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the handler is closed")

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    monkeypatch.setattr(client._connector, "give_back", fail)
    outcomes = await asyncio.gather(*(post(client, receiver.url(f"/{it}")) for it in range(3)))
    assert outcomes == [Answered(200, None, b"")] * 3


async def test_an_end_that_comes_twice_is_told_once(client: Client, receiver: Receiver) -> None:
    told: list[Ended] = []
    client.post(
        receiver.url("/a", "hang"), "", b"{}", tenant="", timeout_seconds=5.0, done=told.append
    )
    while not receiver.received:
        await asyncio.sleep(0.01)
    (exchange,) = client._under_way
    exchange.end(BROKEN_OFF)
    exchange.end(TimedOut(5.0))
    await asyncio.sleep(0.01)
    exchange.end(BROKEN_OFF)
    await asyncio.sleep(0.01)
    assert told == [TimedOut(5.0)]


def counted_errors(monkeypatch: pytest.MonkeyPatch) -> list[ssl.SSLWantReadError]:
    """Collect what is raised because nothing is there to be read."""
    errors: list[ssl.SSLWantReadError] = []
    wrap_bio = Context.wrap_bio

    def counting(self: Context, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        made: Any = wrap_bio(self, *args, **kwargs)
        read = made.read

        def counted(*args: Any) -> Any:
            try:
                return read(*args)
            except ssl.SSLWantReadError as error:
                errors.append(error)
                raise

        made.read = counted
        return made  # type: ignore[no-any-return]

    monkeypatch.setattr(Context, "wrap_bio", counting)
    return errors


async def test_over_tls_a_kept_connection_costs_one_handshake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl to make a certificate with")
    subprocess.run(
        [
            openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            "-keyout", key, "-out", certificate, "-subj", "/CN=localhost",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while not reader.at_eof():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(2)
            except asyncio.IncompleteReadError:
                break
            body = b"0123456789" * 6_000 if b"/long" in head else b"ok"
            promised = len(body) + (b"/cut" in head)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % promised + body)
            if b"/cut" in head:
                break
        writer.close()

    errors = counted_errors(monkeypatch)
    server, port = await serve(answer, ssl=context)
    client = Client(PostSettings(), LOCAL, user_agent="Tests/1")
    await client.open()
    for _ in range(10):
        assert await post(client, f"https://127.0.0.1:{port}/") == Answered(200, None, b"ok")
    assert connections == 1
    assert len(errors) <= 3  # around the handshake, and none behind each answer
    long = await post(client, f"https://127.0.0.1:{port}/long")
    assert long == Answered(200, None, b"0123456789" * 6_000)  # more than a record of TLS
    assert await post(client, f"https://127.0.0.1:{port}/cut") == Answered(200, None, b"ok")
    assert connections == 1
    assert await post(client, f"https://127.0.0.1:{port}/") == Answered(200, None, b"ok")
    assert connections == 2
    await client.close()
    server.close()


def answers_unasked(listening: socket.socket, requests: list[bytes]) -> None:
    """Answer a request with 200, and 50 ms later once more; answer the next with 500."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        with connection, contextlib.suppress(ConnectionResetError):
            while request := connection.recv(65_536):
                requests.append(request)
                status = b"200 OK" if len(requests) == 1 else b"500 No"
                connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
                if len(requests) == 1:
                    time.sleep(0.05)
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("direct", [True, False])
async def test_a_30_what_came_while_the_loop_stood_still_is_no_answer_to_the_next(
    direct: bool,
) -> None:
    """As after SIGSTOP: the unasked answer lies in the kernel, and nobody has seen it yet."""
    requests: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))
    server = threading.Thread(target=answers_unasked, args=(listening, requests), daemon=True)
    server.start()
    client = Client(PostSettings(direct=direct), LOCAL, user_agent="Tests/1")
    await client.open()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
    assert await post(client, url) == Answered(200, None, b"")
    time.sleep(0.2)  # the loop stands still
    assert await post(client, url) == Answered(500, None, b"")
    assert len(requests) == 2
    await client.close()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    server.join()
