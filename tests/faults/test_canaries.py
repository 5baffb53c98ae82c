"""Canaries: known secrets are looked for everywhere after a run in which everything goes wrong."""

import asyncio
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import pytest

from aetherflow_hooks.dev.embedded import EmbeddedPostgres
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.model import delivery_id
from aetherflow_hooks.receive import verify, verify_body
from aetherflow_hooks.rules.sealing import write_key
from aetherflow_hooks.web.api import ROUTES
from aetherflow_hooks.web.dashboard.pages import PAGES
from tests.conftest import secret_part
from tests.contract.test_cli import run
from tests.folders import roomy_folder
from tests.web.conftest import PREFIX, free_port

SECRET = "canary-signing-secret-7f3a9c21"
WHSEC = "whsec_Y2FuYXJ5LXdoc2VjLTdmM2E5YzIxLTAwMDAwMDAw"
TOKEN = "canary-header-token-7f3a9c21"
QUERY = "canary-query-7f3a9c21"
PASSWORD = "canary-password-7f3a9c21"
DATA = "canary-payload-7f3a9c21"
FORM = "application/x-www-form-urlencoded"
KEY = write_key("ours", b"canary-key-7f3a9c21-------------")
# What may stand nowhere but in the memory of the engine; what may not be logged.
SECRETS = [SECRET, WHSEC.removeprefix("whsec_"), TOKEN, KEY.split()[1]]
UNLOGGED = [*SECRETS, QUERY, DATA, PASSWORD]


def hits(text: str, canaries: list[str]) -> list[str]:
    """Name what is found, and where."""
    return [text[max(0, text.find(it) - 60) :][:160] for it in canaries if it in text]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_no_secret_is_found_anywhere(tmp_path: Path) -> None:
    folder = Path(roomy_folder(), f"aetherflow-canaries-{os.getpid()}")
    folder.mkdir(mode=0o711)
    # The server writes down every statement with what is bound to it.
    postgres = EmbeddedPostgres(
        folder,
        settings={"log_min_duration_statement": "0", "log_statement": "all", "fsync": "off"},
        initdb_args=["--no-sync"],
    )
    await postgres.start()
    try:
        opened_with = await in_a_run_where_all_goes_wrong(postgres, tmp_path)
        secrets = [*SECRETS, secret_part(opened_with)]
        dumped = await asyncio.create_subprocess_exec(
            *(str(postgres._bin_dir / "pg_dump"), "--dbname", postgres.dsn()),
            stdout=asyncio.subprocess.PIPE,
        )
        dump, _ = await dumped.communicate()
        assert b"COPY aetherflow.attempts" in dump
        assert hits(dump.decode(), secrets) == []
        logged = postgres._log.read_text("utf-8", "replace")
        assert "aetherflow.endpoints" in logged
        assert hits(logged, secrets) == []
    finally:
        await postgres.stop()
        shutil.rmtree(folder)


async def answers_of_the_api(port: int, token: str, endpoint_id: str) -> list[str]:
    """Ask the API for everything that can be looked at, and have a secret replaced."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    told = []
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=headers) as session:
        events = await (await session.get(f"{PREFIX}/events?type=a.b")).json()
        event_id = events["items"][-1]["id"]
        ids = {
            "endpoint_id": endpoint_id,
            "event_id": event_id,
            "delivery_id": delivery_id(event_id, endpoint_id),
            "type": "user.joined",
        }
        body = f'{{"url": "http://127.0.0.1/", "headers": {{"X": "{TOKEN}\\n"}}}}'
        for wrong in (body, body[:-1]):
            async with session.post(f"{PREFIX}/endpoints", data=wrong) as answer:
                assert answer.status in (400, 422)
                told.append(await answer.text())
        polled = f'{{"polled": true, "secret": "{SECRET}"}}'
        async with session.post(f"{PREFIX}/endpoints", data=polled) as answer:
            polled_id = (await answer.json())["id"]
        event = '{"type": "a.b", "data": {}}'
        assert (await session.post(f"{PREFIX}/events", data=event)).status == 201
        for route in ROUTES:
            query = {"endpoint_id": polled_id, "wait_seconds": "10"}
            params = query if route.path.endswith("/poll") else {}
            if route.method != "GET" or route.is_stream or "replay_id" in route.path:
                continue
            async with session.get(route.path.format(**ids), params=params) as answer:
                assert answer.status == 200, (route.path, await answer.text())
                told.append(await answer.text())
        told += await pages_of_the_dashboard(session, token, ids)
    assert len(told) > 30
    return told


async def pages_of_the_dashboard(
    session: aiohttp.ClientSession, token: str, ids: dict[str, str]
) -> list[str]:
    """Log in, and look at every page."""
    ours = {"Sec-Fetch-Site": "same-origin", "Authorization": "", "Content-Type": FORM}
    options: dict[str, Any] = {"headers": ours, "allow_redirects": False}
    async with session.post("/login", data=f"token={token}", **options) as answer:
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
    told = []
    for page in PAGES:
        if page.method != "GET" or page.path == "/live" or "replay_id" in page.path:
            continue
        async with session.get(
            page.path.format(**ids), headers={"Cookie": cookie}, allow_redirects=False
        ) as answer:
            assert answer.status in (200, 303), (page.path, await answer.text())
            told.append(await answer.text())
    return told


async def in_a_run_where_all_goes_wrong(postgres: EmbeddedPostgres, tmp_path: Path) -> str:
    """Let everything go wrong; give the token that opened the API."""
    port = free_port()
    keys, token = tmp_path / "keys", tmp_path / "token"
    keys.write_text(KEY, "ascii")
    keys.chmod(0o600)
    token.write_text(f"Bearer {TOKEN}", "ascii")
    settings = {
        "AETHERFLOW_HOOKS_PROFILE": "development",
        "AETHERFLOW_HOOKS_DATABASE__DSN": postgres.dsn().replace("@", f":{PASSWORD}@", 1),
        "AETHERFLOW_HOOKS_SECRETS__KEYS_FILE": str(keys),
        "AETHERFLOW_HOOKS_LOG__LEVEL": "debug",
        "AETHERFLOW_HOOKS_LOG__FORM": "json",
        "AETHERFLOW_HOOKS_ENGINE__GRACE_SECONDS": "0.5",
        "AETHERFLOW_HOOKS_WEB__PORT": str(port),
    }

    async def hooks(*arguments: str, stdin: str = "") -> str:
        """Run a command; give all that it says but for the secret that it is to say once."""
        said = await asyncio.to_thread(run, *arguments, stdin=stdin, **settings)
        return said.out + said.err

    await hooks("migrate")
    async with Receiver() as receiver:
        scripts = ["200", "500", "hang", "garbage", "close", "many-headers", "302", "410"]
        urls = [f"{receiver.url(f'/{n}', script)}&q={QUERY}" for n, script in enumerate(scripts)]
        urls += [f"http://no-such-name.localhost:1/?{QUERY}", f"https://127.0.0.1:{receiver.port}/"]
        ids = []
        for url in urls:
            said = await hooks(
                *("endpoint", "add", url, "--secret", "-", "--timeout", "0.5", "--retries", "0.1"),
                *("--header", f"Authorization=@{token}"),
                stdin=SECRET,
            )
            ids.append(said.split()[1])
        rotated = await hooks("endpoint", "rotate-secret", ids[0], "--secret", "-", stdin=WHSEC)
        assert WHSEC in rotated
        daemon = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "aetherflow_hooks", "run"),
            env={"PATH": os.environ["PATH"], **settings},
            stderr=asyncio.subprocess.PIPE,
        )
        assert daemon.stderr is not None
        connection = await asyncpg.connect(postgres.dsn())
        for _ in range(3):
            await connection.execute(f"""select aetherflow.emit('a.b', '{{"x": "{DATA}"}}')""")
        async with asyncio.timeout(30):
            while await connection.fetchval("select count(*) from aetherflow.attempts") < 40:
                await asyncio.sleep(0.05)
        status = Path("/proc", str(daemon.pid))
        assert hits((status / "cmdline").read_text(), UNLOGGED) == []
        assert hits((status / "environ").read_text(), SECRETS) == []
        # A spoilt row, and one of a key that is not there.
        await connection.execute(
            "update aetherflow.secrets set secret = 'sealed:1:ours:' || md5(secret)"
            " where endpoint_id = $1",
            ids[1],
        )
        await connection.execute("select aetherflow.emit('a.b', '{}')")
        await connection.close()
        told = [
            await hooks("endpoint", "list", "--json"),
            *[await hooks("endpoint", "show", endpoint_id) for endpoint_id in ids],
            await hooks("delivery", "list", "--json"),
            await hooks("status", "--json"),
            await hooks("keys", "list"),
            await hooks("keys", "rotate"),
            await hooks("config", "show"),
            await hooks("endpoint", "add", f"http://127.0.0.1/#{QUERY}"),
            await hooks("endpoint", "add", "http://127.0.0.1/", "--header", f"X{TOKEN}"),
            await hooks("endpoint", "add", "http://127.0.0.1/", "--header", f"X={TOKEN}\n"),
        ]
        opened_with = (await hooks("token", "add", "ops", "--scope", "admin")).strip()
        answers = await answers_of_the_api(port, opened_with, ids[0])
        told += [await hooks("token", "list"), await hooks("audit", "--json")]
        daemon.terminate()
        logs = (await daemon.stderr.read()).decode()
        assert await daemon.wait() == 0
    for request in receiver.at("/0"):  # so they were really used
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        verify_body(request.body, request.headers["x-aetherflow-signature"], WHSEC)
        verify(request.body, request.headers, SECRET)
    assert logs.count("post.done") >= 40
    assert "Traceback" not in logs
    assert hits(logs, [*UNLOGGED, secret_part(opened_with)]) == []
    for text in answers:
        assert hits(text, [*SECRETS, PASSWORD, opened_with]) == []
    for text in told:
        assert hits(text, [*SECRETS, DATA, PASSWORD, opened_with]) == []
    return opened_with
