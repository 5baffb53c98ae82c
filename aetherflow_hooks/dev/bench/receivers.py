"""Receivers: nginx where there is one, since it is never the bottleneck; else our own `sink`."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

from aetherflow_hooks.dev.bench import BenchFailed
from aetherflow_hooks.dev.bench.process import Child
from aetherflow_hooks.dev.bench.sink import has_uvloop

HOST = "127.0.0.1"
START_SECONDS_MAX = 10.0

# Requests without end on one connection, since each new one would be a cost of the contenders'.
# The body is read into memory and dropped; nothing is written but at the start.
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 8192; }}
http {{
  access_log off; server_tokens off; etag off;
  keepalive_requests 1000000000; keepalive_timeout 3600s;
  client_body_buffer_size 64k; client_max_body_size 32m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {host}:{port} backlog=4096;
    location / {{ return 200; }}
    location = /count {{ stub_status; }}
  }}
  {tls}
}}
"""
NGINX_TLS = """
  server {{
    listen {host}:{port} ssl backlog=4096;
    ssl_certificate {certificate}; ssl_certificate_key {key};
    location / {{ return 200; }}
  }}
"""


class Receiver(Protocol):
    """Something that answers 200."""

    kind: str
    url: str
    https_url: str | None
    certificate: Path | None

    async def count(self) -> int:
        """Tell how many requests have come so far."""


class OwnSink:
    """Our own, in a process of its own."""

    def __init__(self, child: Child, told: dict[str, object], certificate: Path | None) -> None:
        """Take what the child `told` of itself."""
        ports = told["ports"]
        assert isinstance(ports, list)
        self._child = child
        self.kind = str(told["kind"])
        self.url = f"http://{HOST}:{ports[0]}/"
        self.https_url = f"https://{HOST}:{ports[1]}/" if len(ports) > 1 else None
        self.certificate = certificate

    async def count(self) -> int:
        """Tell how many requests have come so far."""
        counted: int = await self._child.ask("count")
        return counted

    async def notes(self) -> dict[str, float]:
        """Give when each webhook-id came first, in seconds of CLOCK_MONOTONIC; and forget it."""
        noted: dict[str, float] = await self._child.ask("notes")
        return noted


class Nginx:
    """nginx with one worker."""

    def __init__(self, kind: str, port: int, tls_port: int, certificate: Path | None) -> None:
        """Name one that runs."""
        self.kind = kind
        self.url = f"http://{HOST}:{port}/"
        self.https_url = f"https://{HOST}:{tls_port}/" if certificate else None
        self.certificate = certificate
        self._port = port
        self._asked = 0
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def count(self) -> int:
        """Tell how many requests have come so far; our own questions are not among them."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(b"GET /count HTTP/1.1\r\nHost: bench\r\n\r\n")
        self._asked += 1
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split()[0])
        page = (await reader.readexactly(length)).decode()
        # "server accepts handled requests\n 16 16 31070 \n"
        return int(page.partition("requests")[2].split()[2]) - self._asked

    def close(self) -> None:
        """Leave it."""
        if self._streams is not None:
            self._streams[1].close()


@asynccontextmanager
async def own_sink(
    *, notes: bool = False, hang: bool = False, keys: tuple[Path, Path] | None = None
) -> AsyncIterator[OwnSink]:
    """Run our own receiver; `keys` are a certificate and its key, where it shall speak TLS too."""
    async with Child("sink") as child:
        told = await child.ask(
            {
                "notes": notes,
                "hang": hang,
                "certificate": str(keys[0]) if keys else "",
                "key": str(keys[1]) if keys else "",
                "uvloop": has_uvloop(),
            }
        )
        yield OwnSink(child, told, keys[0] if keys else None)


@asynccontextmanager
async def receiver(folder: Path, *, own: bool = False) -> AsyncIterator[Receiver]:
    """Run nginx, or our own receiver where there is none or `own` is wanted."""
    keys = _make_keys(folder)
    program = None if own else _nginx()
    if program is None:
        async with own_sink(keys=keys) as ours:
            yield ours
        return
    port, tls_port = _free_ports(2)
    tls = ""
    if keys:
        tls = NGINX_TLS.format(host=HOST, port=tls_port, certificate=keys[0], key=keys[1])
    file = folder / "nginx.conf"
    file.write_text(NGINX.format(folder=folder, host=HOST, port=port, tls=tls))
    command = (program, "-p", str(folder), "-c", str(file))
    async with Child.leashed("nginx", *command) as child:
        sink = Nginx(_version(program), port, tls_port, keys[0] if keys else None)
        await _answers(sink, child)
        try:
            yield sink
        finally:
            sink.close()


async def _answers(sink: Nginx, child: Child) -> None:
    give_up_at = time.monotonic() + START_SECONDS_MAX
    while True:
        try:
            await sink.count()
        except (OSError, asyncio.IncompleteReadError) as problem:
            child.check()
            if time.monotonic() > give_up_at:
                raise BenchFailed(f"nginx does not answer: {child.complaint()}") from problem
            await asyncio.sleep(0.02)
        else:
            return


def closed_port() -> int:
    """Name a port where nobody listens."""
    return _free_ports(1)[0]


def _free_ports(count: int) -> list[int]:
    # Nobody else is likely to take one in the moment between.
    with contextlib.ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            taken = open_sockets.enter_context(socket.socket())
            taken.bind((HOST, 0))
            ports.append(taken.getsockname()[1])
        return ports


def _nginx() -> str | None:
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def _version(program: str) -> str:
    told = subprocess.run([program, "-v"], capture_output=True, text=True, check=False).stderr  # noqa: S603  found by us
    return told.strip().rpartition(": ")[2].replace("/", " ") + ", 1 worker"


def _make_keys(folder: Path) -> tuple[Path, Path] | None:
    """Make a certificate for this machine's loopback, and its key; None without openssl."""
    program = shutil.which("openssl")
    if program is None:
        return None
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    command = [
        program,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"]
    command += ["-addext", f"subjectAltName=IP:{HOST},DNS:localhost"]
    done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603  found by us
    return None if done.returncode else (certificate, key)
