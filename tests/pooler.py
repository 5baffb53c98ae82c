"""A PgBouncer in transaction mode, before a Postgres of the tests."""

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

from tests.folders import roomy_folder

NAME = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
SERVER_IDLE_SECONDS = 1  # so that a test's database can be dropped soon after it


@contextmanager
def pgbouncer(dsn: str) -> Iterator[str]:
    """Start one before the server of a DSN; give the DSN of the same database through it."""
    assert NAME is not None
    there = urlsplit(dsn)
    query = parse_qs(there.query)
    (host,), (port,) = query["host"], query["port"]
    with tempfile.TemporaryDirectory(dir=roomy_folder()) as name:
        folder = Path(name)
        folder.chmod(0o777)
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={port}\n"
            "[pgbouncer]\n"
            "pool_mode = transaction\n"
            f"unix_socket_dir = {folder}\n"
            "listen_port = 6432\n"
            "auth_type = trust\n"
            f"auth_user = {there.username}\n"
            "default_pool_size = 20\n"
            "max_client_conn = 1000\n"
            f"server_idle_timeout = {SERVER_IDLE_SECONDS}\n"
            "log_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n"
        )
        command = [NAME, str(folder / "pgbouncer.ini")]
        if os.geteuid() == 0:  # it refuses to be root, and has to reach the socket
            command[1:1] = ["-u", pwd.getpwuid(Path(host).stat().st_uid).pw_name]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            give_up_at = time.monotonic() + 10
            while not (folder / ".s.PGSQL.6432").exists():
                assert process.poll() is None, "PgBouncer has ended"
                assert time.monotonic() < give_up_at, "PgBouncer does not listen"
                time.sleep(0.02)
            yield f"postgresql://{there.username}@{there.path}?host={folder}&port=6432"
        finally:
            process.terminate()
            process.wait(10)


def through(server: str, dsn: str) -> str:
    """Give the DSN of the same database at another server."""
    way, database = urlsplit(server), urlsplit(dsn)
    return urlunsplit(way._replace(path=database.path))
