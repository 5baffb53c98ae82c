"""An internet of our own, in a network namespace: every address is there, and every packet is seen.

Run by `test_internet` as `unshare -nm python -m tests.faults.internet DSN`. An engine with the
rules of production sends to whatever the table of bad input names, and what the kernel was made to
send is read off the wire, so that nobody's word is taken for it.
"""

import asyncio
import collections
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import asyncpg

from aetherflow_hooks import Settings, start_engine
from aetherflow_hooks.db import Database
from aetherflow_hooks.http import names
from aetherflow_hooks.manage.endpoints import NewEndpoint, add_endpoint
from tests.conftest import settings_for, until
from tests.rules.test_urls import REFUSED

HERE = "93.184.216.34"
HERE6 = "2606:4700:4700::1111"
DEAD_PORT = 81
PORTS = (80, 443, 8443, 9001)
DNS, DNS_PORT = "127.0.0.1", 53
A, CNAME, AAAA = 1, 5, 28
SERVFAIL, NXDOMAIN = 2, 3

# What a name leads to; where it changes its mind, one answer after the other.
ZONE: dict[str, list[dict[str, Any]]] = {
    "q01": [{"a": [HERE]}],
    "q02": [{"aaaa": [HERE6]}],
    "q03": [{"a": ["10.1.2.3"]}],
    "q04": [{"a": ["169.254.169.254"]}],
    "q05": [{"aaaa": ["::ffff:10.1.2.3"]}],
    "q06": [{"aaaa": ["64:ff9b::a01:203"]}],
    "q07": [{"a": ["10.1.2.3", HERE]}],
    "q08": [{"a": [HERE], "aaaa": ["64:ff9b::5db8:d822"]}],
    "q09": [{"a": [HERE]}, {"a": ["10.1.2.3"]}],
    "q10": [{"a": [HERE]}, {"a": ["10.1.2.3"]}],
    "q11": [{"cname": "localhost", "a": ["127.0.0.1"], "aaaa": ["::1"]}],
    "q12": [{"a": [f"93.184.{n // 250}.{n % 250 + 1}" for n in range(500)]}],
    "q15-nxdomain": [{"rcode": NXDOMAIN}],
    "q15-servfail": [{"rcode": SERVFAIL}],
    "q15-silent": [{"silent": True}],
    "q15-empty": [{}],
    "q15-64kb": [{"a": [f"10.2.{n // 250}.{n % 250 + 1}" for n in range(4000)]}],
    "q18": [{"a": [HERE]}],
    "q22": [{"a": ["0.0.0.0"], "aaaa": ["::"]}],
}
DOMAIN = "table-of-bad-input.com"


class Wire:
    """Notes where each connection and each datagram was to go, whether anybody is there or not."""

    def __init__(self) -> None:
        self.asked_for: set[tuple[str, int]] = set()
        every_protocol = 3
        self._socket = socket.socket(
            socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(every_protocol)
        )
        self._socket.bind(("lo", every_protocol))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            packet = self._socket.recv(65_536)
            if packet[0] >> 4 == socket.IPPROTO_IPIP:  # the version, 4
                protocol, to = packet[9], packet[16:20]
                rest = packet[(packet[0] & 15) * 4 :]
            else:
                protocol, to, rest = packet[6], packet[24:40], packet[40:]
            is_first = protocol == socket.IPPROTO_TCP and rest[13] & 0x12 == 0x02  # SYN alone
            if is_first or protocol == socket.IPPROTO_UDP:
                from_port, port = struct.unpack("!HH", rest[:4])
                if from_port != DNS_PORT:  # our own answer
                    self.asked_for.add((str(ip_address(to)), port))


class NameServer:
    """Answers for every name of the zone, by UDP, and by TCP where that is too short."""

    def __init__(self) -> None:
        self.questions: collections.Counter[str] = collections.Counter()
        for kind, serve in ((socket.SOCK_DGRAM, self._udp), (socket.SOCK_STREAM, self._tcp)):
            server = socket.socket(socket.AF_INET, kind)
            server.bind((DNS, DNS_PORT))
            threading.Thread(target=serve, args=(server,), daemon=True).start()

    def _udp(self, server: socket.socket) -> None:
        while True:
            query, asker = server.recvfrom(4096)
            reply = self._reply(query)
            if reply is not None:
                if len(reply) > 512:
                    head = reply[:2] + bytes([reply[2] | 2]) + reply[3:4] + query[4:6] + bytes(6)
                    reply = head + query[12:]
                server.sendto(reply, asker)

    def _tcp(self, server: socket.socket) -> None:
        server.listen(8)
        while True:
            connection, _ = server.accept()
            with connection, suppress(OSError, struct.error):
                while True:
                    (length,) = struct.unpack("!H", connection.recv(2))
                    reply = self._reply(connection.recv(length)) or b""
                    connection.sendall(struct.pack("!H", len(reply)) + reply)

    def _reply(self, query: bytes) -> bytes | None:
        labels, place = [], 12
        while query[place]:
            labels.append(query[place + 1 : place + 1 + query[place]].decode())
            place += 1 + query[place]
        kind = struct.unpack("!H", query[place + 1 : place + 3])[0]
        question = query[12 : place + 5]
        name = labels[0].lower()
        answers = ZONE.get(name, [{"rcode": NXDOMAIN}])
        if kind == A:
            self.questions[name] += 1
        asked = max(self.questions[name], 1)
        answer = answers[min(asked, len(answers)) - 1]
        if answer.get("silent"):
            return None
        records = []
        if "cname" in answer:
            target = b"".join(bytes([len(it)]) + it.encode() for it in answer["cname"].split("."))
            records.append((b"\xc0\x0c", CNAME, target + b"\0"))
        addresses = answer.get({A: "a", AAAA: "aaaa"}.get(kind, ""), [])
        owner = b"\xc0\x0c"
        if records:
            owner = records[0][2]
        records += [(owner, kind, ip_address(it).packed) for it in addresses]
        head = query[:2] + struct.pack(
            "!HHHHH", 0x8180 | answer.get("rcode", 0), 1, len(records), 0, 0
        )
        return (
            head
            + question
            + b"".join(
                owner + struct.pack("!HHIH", of_kind, 1, 0, len(data)) + data
                for owner, of_kind, data in records
            )
        )


class Everyone:
    """Listens on every address there is, and counts the requests of each name and address."""

    def __init__(self) -> None:
        self.requests: collections.Counter[str] = collections.Counter()

    async def open(self) -> None:
        """Listen."""
        for port in PORTS:
            for host in ("0.0.0.0", "::"):
                await asyncio.start_server(self._serve, host, port)

    async def _serve(self, reader: Any, writer: Any) -> None:
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
                host = head.partition("\r\nhost: ")[2].partition("\r\n")[0]
                self.requests[host] += 1
                close = b"" if host.startswith("q18") else b"Connection: close\r\n"
                writer.write(b"HTTP/1.1 200 OK\r\n" + close + b"Content-Length: 0\r\n\r\n")
                if close:
                    break
        writer.close()


def make_internet(folder: Path) -> None:
    """Let every address be one of this namespace, and its names come from us alone."""
    for command in (
        "ip link set lo up",
        "ip route add local 0.0.0.0/0 dev lo",
        "ip -6 route add local ::/0 dev lo",
        f"ip addr add {HERE}/32 dev lo",  # else the system takes it that nobody has such addresses
        f"ip addr add {HERE6}/128 dev lo nodad",
    ):
        subprocess.run(command.split(), check=True)
    resolv = folder / "resolv.conf"
    resolv.write_text(f"nameserver {DNS}\nsearch {DOMAIN}\noptions timeout:1 attempts:1\n")
    subprocess.run(["mount", "--bind", resolv, Path("/etc/resolv.conf").resolve()], check=True)


def rules(dsn: str, **sections: Any) -> Settings:
    """Settings of the strict profile, but for http, which would be refused before all else."""
    settings = settings_for(dsn, **sections)
    egress = settings.model_copy(update={"profile": "production"}).egress_rules()
    object.__setattr__(settings, "egress_rules", lambda: egress._replace(https_only=False))
    return settings


class Round:
    """Engines and their endpoints, on a database of the outside."""

    def __init__(self, dsn: str, connection: Any, database: Database) -> None:
        self._dsn = dsn
        self._connection = connection
        self._database = database
        self._rows: dict[str, str] = {}  # of endpoints, by their ids

    async def endpoint(self, row: str, url: str) -> bool:
        """Add an endpoint as somebody would who can write the table; tell whether that let him."""
        new = NewEndpoint(url="http://example.com/", retry_schedule_seconds=[], timeout_seconds=3)
        added = await add_endpoint(self._database, new, settings=rules(self._dsn))
        try:
            await self._connection.execute(
                "update aetherflow.endpoints set url = $1 where id = $2", url, added["id"]
            )
        except (asyncpg.PostgresError, asyncpg.DataError, UnicodeError):
            await self._connection.execute(
                "delete from aetherflow.endpoints where id = $1", added["id"]
            )
            return False
        self._rows[added["id"]] = row
        return True

    async def outcomes(self, *, events: int = 1, **sections: Any) -> dict[str, list[str]]:
        """Let an engine send events, one after the other; give what came of each by row."""
        await self._connection.execute("delete from aetherflow.attempts")
        settled = (
            "select not exists (select from aetherflow.outbox)"
            " and not exists (select from aetherflow.deliveries)"
        )
        async with start_engine(rules(self._dsn, **sections)):
            for _ in range(events):
                await self._connection.execute("select aetherflow.emit('a.b', '{}')")
                await until(lambda: self._connection.fetchval(settled), timeout_seconds=30)
        found = await self._connection.fetch(
            "select endpoint_id, outcome, error from aetherflow.attempts order by started_at"
        )
        outcomes: dict[str, list[str]] = {}
        for row in found:
            told = f"{row['outcome']}: {row['error']}" if row["error"] else row["outcome"]
            outcomes.setdefault(self._rows[row["endpoint_id"]], []).append(told)
        return outcomes

    async def forget(self) -> None:
        """Begin anew, without endpoints."""
        await self._connection.execute(
            "delete from aetherflow.attempts; delete from aetherflow.endpoints"
        )


async def report(dsn: str) -> dict[str, Any]:
    """Send to all that the table names; give what was recorded and what was on the wire."""
    names.FOUND_SECONDS = 0.0  # every attempt asks anew
    wire, name_server, everyone = Wire(), NameServer(), Everyone()
    await everyone.open()
    connection = await asyncpg.connect(dsn)
    told: dict[str, Any] = {}
    async with Database(settings_for(dsn).database) as database:
        do = Round(dsn, connection, database)
        told["stored"] = 0
        for problem, urls in REFUSED.items():
            for url in urls:
                told["stored"] += await do.endpoint(f"{problem}: {url}", url)
        told["urls"] = await do.outcomes()
        told["urls_asked_for"] = sorted(wire.asked_for)
        await do.forget()

        wire.asked_for.clear()
        for name in ZONE:
            port = DEAD_PORT if name == "q12" else 80
            await do.endpoint(name, f"http://{name}.{DOMAIN}:{port}/")
        await do.endpoint("q17", "http://[fe80::1%lo]/")
        told["names"] = await do.outcomes(events=2)
        told["questions"] = dict(name_server.questions)
        told["names_asked_for"] = sorted(wire.asked_for)
        await do.forget()

        wire.asked_for.clear()
        await do.endpoint("q14-9001", "http://127.0.0.1:9001/")
        await do.endpoint("q14-5432", "http://127.0.0.1:5432/")
        await do.endpoint("q18", f"http://q18.{DOMAIN}/")
        told["settings"] = await do.outcomes(
            egress={"allow": ["127.0.0.1/32:9000-9100"], "deny": [f"{HERE}/32"]}
        )
        told["settings_asked_for"] = sorted(wire.asked_for)
    told["requests"] = dict(everyone.requests)
    await connection.close()
    return told


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        make_internet(Path(folder))
        json.dump(asyncio.run(report(sys.argv[1])), sys.stdout)
        sys.stdout.flush()
        os._exit(0)  # threads that serve have no end
