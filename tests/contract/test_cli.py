"""The command line: what it prints, how it ends, and that a failure is one clear line."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import asyncpg
import click
import orjson
import pytest
from click.testing import CliRunner

from aetherflow_hooks import start_engine
from aetherflow_hooks.cli import commands, main
from aetherflow_hooks.config import Settings, render
from aetherflow_hooks.db.statements import migrations
from aetherflow_hooks.dev.receiver import Receiver
from aetherflow_hooks.receive import verify
from tests.authority import Authority
from tests.conftest import settings_for, until

OURS = ("AETHERFLOW_HOOKS_", "DATABASE_URL")
URL = "https://example.com/hook"


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self.err
        return orjson.loads(self.out)


def run(*arguments: str, stdin: str | bytes = "", **environment: str) -> Said:
    """Run the command in this process, as its console script does."""
    names: dict[str, str | None] = {name: None for name in os.environ if name.startswith(OURS)}
    with (
        CliRunner().isolation(stdin, env=names | environment) as (out, err, _),
        patch.object(sys, "argv", ["aetherflow-hooks", *arguments]),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return Said(int(ended.value.code or 0), out.getvalue().decode(), err.getvalue().decode())


def process(*arguments: str, stdin: bytes = b"") -> Said:
    """Run the command as a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    ended = subprocess.run(
        [sys.executable, "-m", "aetherflow_hooks", *arguments],
        input=stdin,
        capture_output=True,
        env=environment,
        check=False,
        timeout=30,
    )
    return Said(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


def failed(said: Said) -> str:
    """Give the one line that tells why a command failed."""
    assert (said.code, said.out) == (1, "")
    assert re.fullmatch(r"error: [^\n]+\n", said.err), said.err
    return said.err.removeprefix("error: ").rstrip()


def sql(dsn: str, text: str, *values: object) -> Any:
    """Run a query on the side; give its first value."""

    async def ask() -> Any:
        connection = await asyncpg.connect(dsn)
        try:
            return await connection.fetchval(text, *values)
        finally:
            await connection.close()

    return asyncio.run(ask())


@pytest.fixture(autouse=True)
def our_log_as_it_was() -> Iterator[None]:
    """Undo what a command does to the log of its own process."""
    logger = logging.getLogger("aetherflow_hooks")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture
def hooks(dsn: str) -> Callable[..., Said]:
    """Run a command on the database of the test."""

    def run_there(*arguments: str, **options: Any) -> Said:
        return run(*arguments, "--dsn", dsn, **options)

    return run_there


Hooks = Callable[..., Said]


def every_command(command: click.Command, *path: str) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from every_command(inner, *path, name)


# Before any database.


@pytest.mark.parametrize("path", list(every_command(commands)), ids=" ".join)
def test_every_command_explains_itself(path: tuple[str, ...]) -> None:
    said = run(*path, "--help")
    assert said.code == 0
    assert said.out.startswith(" ".join(["Usage: aetherflow-hooks", *path]))
    sentence = said.out.split("\n\n")[1].strip()
    assert sentence[0].isupper()
    assert "." in sentence


def test_the_commands_of_the_contract_are_there() -> None:
    assert {
        *("demo", "run", "migrate", "endpoint", "emit", "event", "delivery", "status", "config"),
        "numbers",
    } <= set(commands.commands)
    endpoint = commands.commands["endpoint"]
    assert isinstance(endpoint, click.Group)
    assert {
        *("add", "list", "show", "delete", "pause", "resume", "enable", "disable", "rotate-secret"),
        *("promote-secret", "set-certificate", "update", "test"),
    } <= set(endpoint.commands)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["endpoint", "nonsense"],
        ["emit"],
        ["emit", "a.b", "{}", "more"],
        ["status", "--nonsense"],
        ["endpoint", "add", URL, "--rate", "fast"],
        ["delivery", "list", "--state", "lost"],
        ["delivery", "list", "--limit", "0"],
        ["status", "--config", "/"],
    ],
    ids=" ".join,
)
def test_a_wrong_use_ends_with_2(arguments: list[str]) -> None:
    said = run(*arguments)
    assert (said.code, said.out) == (2, "")
    assert "Usage: aetherflow-hooks" in said.err
    assert "Error: " in said.err


def test_the_module_is_the_command() -> None:
    said = process("--version")
    assert (said.code, said.err) == (0, "")
    assert re.fullmatch(r"aetherflow-hooks, version \d+\.\d+\.\d+\S*\n", said.out)


def test_postgres_out_of_reach_is_one_clear_line() -> None:
    line = failed(process("status", "--dsn", "postgresql://x@127.0.0.1:1/x"))
    assert line.startswith("Postgres cannot be reached: ")
    assert "127.0.0.1" in line


@pytest.mark.parametrize(
    "dsn", ["nonsense", "mysql://u@h/db", "postgresql://h:port/db"], ids=["text", "other", "port"]
)
def test_a_dsn_that_is_none_is_one_clear_line(dsn: str) -> None:
    failed(run("status", "--dsn", dsn))


def test_the_settings_in_force_are_shown(tmp_path: Path) -> None:
    assert run("config", "show").out == render(Settings())
    file = tmp_path / "hooks.toml"
    file.write_text("[pace]\nslots = 3\n")
    said = run(
        *("config", "show", "--no-comments", "--config", str(file)),
        AETHERFLOW_HOOKS_PACE__MAX_IN_FLIGHT="4",
        DATABASE_URL="postgresql://u:s3cret@h/db",
    )
    assert (said.code, said.err) == (0, "")
    assert "slots = 3\nmax_in_flight = 4\n" in said.out
    assert 'dsn = "postgresql://u:…@h/db"' in said.out
    assert "#" not in said.out


def test_a_settings_file_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "hooks.toml"
    file.write_text('[egress]\nallow = ["10.0.0.0/8:80-90"]\n')
    assert run("config", "check", str(file)) == (0, f"{file}: no problem\n", "")
    file.write_text("[pace]\nslots = 0\nslot = 1\n[log]\nlevel = 5\n")
    said = run("config", "check", str(file))
    assert (said.code, said.out) == (1, "")
    first, *lines = said.err.splitlines()
    assert first == f"error: {file}: 3 problems"
    assert [line.split()[0] for line in lines] == ["pace.slots", "pace.slot", "log.level"]
    assert "is no network" in failed_check(tmp_path, '[egress]\nallow = ["localhost:80"]\n')
    assert "No such file" in run("config", "check", str(tmp_path / "none")).err


def failed_check(folder: Path, text: str) -> str:
    file = folder / "hooks.toml"
    file.write_text(text)
    return failed(run("config", "check", str(file)))


# The schema.


def test_migrate_tells_what_it_does(empty_dsn: str) -> None:
    names = [f"{name}\n" for _, name, _ in migrations()]
    assert process("migrate", "--dsn", empty_dsn) == (0, "".join(names), "")
    assert run("migrate", DATABASE_URL=empty_dsn) == (0, "nothing to do\n", "")


@pytest.mark.parametrize("arguments", [["status"], ["emit", "a.b"], ["endpoint", "list"], ["run"]])
def test_a_database_that_was_never_migrated_says_what_to_do(
    empty_dsn: str, arguments: list[str]
) -> None:
    said = run(*arguments, "--dsn", empty_dsn, AETHERFLOW_HOOKS_LOG__LEVEL="error")
    assert "run `aetherflow-hooks migrate`" in failed(said)


@pytest.mark.parametrize("arguments", [["migrate"], ["status"], ["emit", "a.b"]], ids=" ".join)
def test_a_role_without_rights_is_one_clear_line(dsn: str, arguments: list[str]) -> None:
    sql(dsn, "do $$ begin create role nobody_much login; exception when others then end $$")
    weak = dsn.replace("postgres@", "nobody_much@", 1)
    assert weak != dsn
    assert "permission denied" in failed(run(*arguments, "--dsn", weak))


# Endpoints.


def test_an_endpoint_is_added_for_people(hooks: Hooks) -> None:
    said = hooks("endpoint", "add", URL)
    assert said.code == 0
    assert re.fullmatch(r"id      ep_[0-9a-f]{12}\nsecret  whsec_[A-Za-z0-9+/]{43}=\n", said.out)
    assert "not shown again" in said.err
    assert "stored as it is, since there are no keys" in said.err


def test_keys_are_made_listed_and_replaced(hooks: Hooks, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys"
    with_keys = {"AETHERFLOW_HOOKS_SECRETS__KEYS_FILE": str(keys_file)}

    def use(*lines: str) -> None:
        keys_file.write_text("".join(lines), encoding="ascii")
        keys_file.chmod(0o600)

    def listed() -> list[tuple[str, int, str]]:
        rows = hooks("keys", "list", "--json", **with_keys).json
        return [(row["key"], row["secrets"], row["state"]) for row in rows]

    assert hooks("endpoint", "add", URL).code == 0
    old, new = run("keys", "new").out, run("keys", "new").out
    old_id, new_id = old.split()[0], new.split()[0]
    use(old)
    added = hooks("endpoint", "add", URL, "--json", **with_keys)
    assert "no keys" not in added.err
    assert listed() == [(old_id, 1, "seals"), ("-", 1, "not sealed")]
    rotated = hooks("endpoint", "rotate-secret", added.json["id"], **with_keys)
    assert "no keys" not in rotated.err
    use(new, old)
    assert listed() == [(new_id, 0, "seals"), (old_id, 2, "opens"), ("-", 1, "not sealed")]
    said = hooks("keys", "rotate", **with_keys)
    assert said.out == f"3 secrets sealed anew with {new_id}\n"
    use(new)
    assert listed() == [(new_id, 3, "seals")]
    use(old)
    assert listed() == [(old_id, 0, "seals"), (new_id, 3, "missing")]
    said = hooks("keys", "rotate", **with_keys)
    assert (said.code, said.out) == (1, f"0 secrets sealed anew with {old_id}\n")
    assert said.err.startswith("error: 3 stay as they are:\nthe secret of ep_")
    assert said.err.count(f"sealed with the key {new_id}") == 3
    assert "there are no keys to seal with" in failed(hooks("keys", "rotate"))


def test_roles_are_made_and_made_again(hooks: Hooks) -> None:
    roles = ["aetherflow_emit", "aetherflow_engine", "aetherflow_read"]
    assert hooks("roles").out.split() == roles
    assert hooks("roles", "--row-security", "--json").json == [*roles, "aetherflow_tenant"]
    assert hooks("roles", "--json").json == roles


def test_secrets_need_not_stand_in_the_command(hooks: Hooks, dsn: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("Bearer canary\n", "ascii")
    said = hooks(
        *("endpoint", "add", URL, "--secret", "-", "--header", f"Authorization=@{file}", "--json"),
        stdin="correct horse battery staple\n",
    )
    assert said.json["secret"] == "correct horse battery staple"
    assert sql(dsn, "select array_agg(value) from aetherflow.headers") == ["Bearer canary"]
    said = hooks(
        *("endpoint", "rotate-secret", said.json["id"], "--secret", "-", "--json"),
        stdin="another horse battery staple",
    )
    assert said.json["secret"] == "another horse battery staple"
    for header in ("Authorization: Bearer canary", "X=1"):
        said = hooks("endpoint", "add", URL, "--header", header, "--header", "X=canary")
        assert "NAME=@FILE" in failed(said)
        assert "canary" not in said.err
    assert "cannot be read" in failed(hooks("endpoint", "add", URL, "--header", "X=@/nowhere"))
    assert "cannot be read" in failed(hooks("endpoint", "add", URL, "--certificate", "/nowhere"))


def test_a_certificate_is_given_renewed_and_taken(
    hooks: Hooks, authority: Authority, tmp_path: Path
) -> None:
    file = authority.issue("hooks.example")
    added = hooks("endpoint", "add", URL, "--certificate", str(file), "--json").json
    assert added["certificate"] == "CN=hooks.example"
    own = added["id"]
    renewed = authority.issue("other.example")
    said = hooks("endpoint", "set-certificate", own, str(renewed))
    assert said.out == f"{own} is shown its certificate\n"
    assert hooks("endpoint", "show", own, "--json").json["certificate"] == "CN=other.example"
    assert hooks("endpoint", "set-certificate", own).out == f"{own} is shown no certificate\n"
    assert hooks("endpoint", "show", own, "--json").json["certificate"] is None
    told = failed(hooks("endpoint", "set-certificate", own, str(authority.file)))
    assert told.startswith("a client's certificate is a PEM file")


OPTIONS = {
    "--events": "user.*, billing.updated",
    "--tenant": "acme",
    "--description": "Größe 7",
    "--secret": "correct horse battery staple",
    "--rate": "2.5",
    "--burst": "5",
    "--max-in-flight": "3",
    "--timeout": "4",
    "--retries": "1,2.5",
    "--header": "Authorization=Bearer a=b",
}


def test_an_endpoint_is_added_for_programs_and_then_keeps_its_secret(hooks: Hooks) -> None:
    options = [text for option in OPTIONS.items() for text in option]
    added = hooks("endpoint", "add", URL, *options, "--json").json
    assert added["secret"] == "correct horse battery staple"
    assert added["url"] == URL
    shown = hooks("endpoint", "show", added["id"], "--json").json
    assert shown == {name: value for name, value in added.items() if name != "secret"}
    given = {
        "events": ["billing.updated", "user.*"],
        "tenant": "acme",
        "description": "Größe 7",
        "state": "active",
        "rate_per_second": 2.5,
        "burst": 5,
        "max_in_flight": 3,
        "timeout_seconds": 4.0,
        "retry_schedule_seconds": [1.0, 2.5],
    }
    assert {name: shown[name] for name in given} == given
    assert hooks("endpoint", "list", "--json").json == [shown]
    for said in (hooks("endpoint", "list"), hooks("endpoint", "show", added["id"])):
        assert URL in said.out
        assert "billing.updated, user.*" in said.out
        assert "correct horse" not in said.out + said.err
        assert "secret" not in said.out.replace("secret_waits            False", "")


def test_an_endpoint_has_a_filter_labels_and_metadata(hooks: Hooks) -> None:
    notes = ["--label", "eu", "--label", "team:a", "--metadata", '{"plan": "gold", "seats": 12}']
    added = hooks("endpoint", "add", URL, "--filter", "$.n > 1", *notes, "--json").json
    own, metadata = added["id"], {"plan": "gold", "seats": 12}
    assert added["filter"] == '($."n" > 1)'
    assert (added["labels"], added["metadata"]) == (["eu", "team:a"], metadata)
    hooks("endpoint", "add", URL, "--label", "eu")
    assert len(hooks("endpoint", "list", "--label", "eu", "--json").json) == 2
    one = hooks("endpoint", "list", "--label", "eu", "--label", "team:a", "--json").json
    assert [it["id"] for it in one] == [own]
    shown = hooks("endpoint", "show", own).out
    for told in ('($."n" > 1)', "eu, team:a", '{"plan": "gold", "seats": 12}'):
        assert told in shown

    def updated(*arguments: str) -> tuple[object, ...]:
        after = hooks("endpoint", "update", own, *arguments, "--json").json
        return after["filter"], after["labels"], after["metadata"]

    kept = ('($."n" < 1)', ["eu", "team:a"], metadata)
    assert updated("--filter", "$.n < 1") == kept
    assert updated("--label", "us", "--metadata", '{"a":1}') == (kept[0], ["us"], {"a": 1})
    assert updated("--reset", "filter", "--reset", "label") == (None, [], {"a": 1})
    assert updated("--reset", "metadata") == (None, [], {})


def test_a_type_has_versions_and_an_endpoint_asks_for_one(hooks: Hooks) -> None:
    name = "order.paid"
    hooks("event-type", "add", name, "--example", "-", stdin='{"n": 1}')

    def version(*given: str, **more: str) -> Said:
        return hooks("event-type", "version", *given, **more)

    added = version("add", name, "2024-06-01", "data - 'n'", "--description", "n", "--json").json
    assert (added["made"], added["description"]) == ("{}", "n")
    told = version("add", name, "2024-09-01", "-", stdin="data || '{\"m\": 1}'\n").out
    assert '{"m": 1, "n": 1}' in told
    assert [it["version"] for it in version("list", name, "--json").json] == [
        "2024-06-01",
        "2024-09-01",
    ]
    assert "2024-09-01" in version("list", name).out
    shown = hooks("event-type", "show", name, "--json").json
    assert shown["versions"] == ["2024-06-01", "2024-09-01"]
    assert "not immutable" in failed(version("add", name, "x", "now()::text::jsonb"))
    assert "has versions" in failed(hooks("event-type", "delete", name))
    for gone in ("2024-06-01", "2024-09-01"):
        assert gone in version("delete", name, gone).out
    assert "there is no version" in failed(version("delete", name, "2024-06-01"))

    pinned = hooks("endpoint", "add", URL, "--payload-version", "2024-01-01", "--json").json
    assert pinned["payload_version"] == "2024-01-01"

    def updated(*given: str) -> Said:
        return hooks("endpoint", "update", pinned["id"], *given, "--json")

    assert updated("--payload-version", "2024-02-01").json["payload_version"] == "2024-02-01"
    assert updated("--description", "x").json["payload_version"] == "2024-02-01"
    assert updated("--reset", "payload-version").json["payload_version"] is None
    assert "is no version" in failed(updated("--payload-version", "a b"))


def test_an_endpoint_and_an_event_have_channels(hooks: Hooks) -> None:
    added = hooks("endpoint", "add", URL, "--channels", "eu, us", "--json").json
    own = added["id"]
    assert added["channels"] == ["eu", "us"]
    assert "eu, us" in hooks("endpoint", "show", own).out
    assert "eu, us" in hooks("endpoint", "list").out

    def updated(*arguments: str) -> Said:
        return hooks("endpoint", "update", own, *arguments, "--json")

    assert updated("--channels", "asia").json["channels"] == ["asia"]
    assert updated("--description", "x").json["channels"] == ["asia"]
    assert updated("--reset", "channels").json["channels"] == []
    first = hooks("emit", "a.b", "--channel", "eu", "--channel", "us").out.strip()
    second = hooks("emit", "a.b").out.strip()
    assert hooks("event", "show", first, "--json").json["channels"] == ["eu", "us"]
    listed = hooks("event", "list", "--json").json
    assert [(it["id"], it["channels"]) for it in listed] == [(second, []), (first, ["eu", "us"])]
    for said in (hooks("event", "show", first), hooks("event", "list")):
        assert "eu, us" in said.out
    of_one = hooks("event", "list", "--channel", "us", "--json").json
    assert [it["id"] for it in of_one] == [first]

    told = "is no channel: 1 to 64 of A-Z a-z 0-9 _ . : -"
    assert told in failed(hooks("emit", "a.b", "--channel", "a b"))
    assert told in failed(hooks("endpoint", "add", URL, "--channels", "eu,,us"))
    assert told in failed(updated("--channels", ""))
    assert "given and reset" in failed(updated("--channels", "a", "--reset", "channels"))


def test_without_events_an_endpoint_takes_all_and_without_retries_none(hooks: Hooks) -> None:
    added = hooks("endpoint", "add", URL, "--retries", "", "--json").json
    assert added["events"] == ["*"]
    assert added["retry_schedule_seconds"] == []
    assert added["rate_per_second"] is None


def test_an_endpoint_is_changed_where_it_is_said_and_nowhere_else(hooks: Hooks) -> None:
    options = [text for option in OPTIONS.items() for text in option]
    before = hooks("endpoint", "add", URL, *options, "--json").json
    own = before["id"]
    changes = ["--events", "user.*", "--rate", "9", "--retries", "standard", "--reset", "timeout"]
    changes += ["--header", "X-Team=a", "--remove-header", "authorization", "--url", f"{URL}/new"]
    after = hooks("endpoint", "update", own, *changes, "--json").json
    assert {name: after[name] for name in after if after[name] != before[name]} == {
        "url": f"{URL}/new",
        "events": ["user.*"],
        "rate_per_second": 9.0,
        "timeout_seconds": None,
        "retry_schedule_seconds": [5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400],
        "headers": ["X-Team"],
        "version": 2,
        "updated_at": after["updated_at"],
    }
    assert hooks("endpoint", "show", own, "--json").json == after
    said = hooks("endpoint", "update", own, "--description", "for people")
    assert "for people" in said.out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ([], "nothing is to be changed"),
        (["--rate", "5", "--reset", "rate"], "--rate is given and reset at once"),
        (["--retries", "often"], "nor one of default, standard, none"),
        (["--filter", "$.n > 1", "--reset", "filter"], "--filter is given and reset at once"),
        (["--label", "a", "--reset", "label"], "--label is given and reset at once"),
        (["--metadata", "[1]"], "--metadata is an object"),
        (["--metadata", "{"], "--metadata is no JSON"),
        (["--ordering", "block"], "chosen when it is added"),
        (["--url", "http://example.com/"], "does not start with https://"),
    ],
)
def test_a_bad_change_is_refused(hooks: Hooks, arguments: list[str], why: str) -> None:
    own = hooks("endpoint", "add", URL, "--json").json["id"]
    assert why in failed(hooks("endpoint", "update", own, *arguments))
    assert hooks("endpoint", "show", own, "--json").json["version"] == 1


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["http://example.com/"], "does not start with https://"),
        (["https://10.0.0.1/"], "10.0.0.1 is not a public address"),
        (["https://user:pass@example.com/"], "carries no user or password"),
        ([URL, "--events", "us*"], "'us*' chooses no events"),
        ([URL, "--events", "user.*,"], "'' chooses no events"),
        ([URL, "--secret", "too short"], "a secret is 16 to 256 printable characters"),
        ([URL, "--rate", "0"], "the rate is 0, and must be 0.001 to 100,000"),
        ([URL, "--rate", "nan"], "the rate is nan"),
        ([URL, "--burst", "0"], "the burst is 0"),
        ([URL, "--max-in-flight", "0"], "max-in-flight is 0"),
        ([URL, "--timeout", "301"], "the timeout is 301"),
        ([URL, "--retries", "1,soon"], "'1,soon' is not a list of seconds"),
        ([URL, "--retries", "1,-1"], "a pause before a retry is -1"),
        ([URL, "--retries", ",".join(["1"] * 51)], "the number of retries is 51"),
        ([URL, "--filter", "$.n"], "what stands there is no condition"),
        ([URL, "--filter", "n > 1"], "the filter cannot be read: syntax error"),
        ([URL, "--label", "a b"], "'a b' is no label"),
        ([URL, "--metadata", '{"a": null}'], "metadata holds strings and numbers"),
        ([URL, "--tenant", "a\x1b[2J"], "the tenant is at most 256 printable characters"),
        ([URL, "--description", "x" * 257], "the description is at most 256"),
    ],
)
def test_a_bad_endpoint_is_refused(hooks: Hooks, arguments: list[str], why: str) -> None:
    assert why in failed(hooks("endpoint", "add", *arguments))


def test_the_development_profile_lets_loopback_through(hooks: Hooks) -> None:
    added = hooks(
        "endpoint", "add", "http://127.0.0.1:9/", "--json", AETHERFLOW_HOOKS_PROFILE="development"
    )
    assert added.json["url"] == "http://127.0.0.1:9/"


def test_the_life_of_an_endpoint(hooks: Hooks, dsn: str) -> None:
    added = hooks("endpoint", "add", URL, "--json").json
    own = added["id"]
    for command, state in [
        ("pause", "paused"),
        ("resume", "active"),
        ("disable", "disabled"),
        ("enable", "active"),
    ]:
        assert hooks("endpoint", command, own) == (0, f"{own} {state}\n", "")
        assert hooks("endpoint", "show", own, "--json").json["state"] == state
    said = hooks("endpoint", "rotate-secret", own, "--overlap", "60")
    (new,) = re.findall(r"^secret  (whsec_\S+)\n$", said.out)
    assert new != added["secret"]
    secrets = sql(dsn, "select array_agg(secret order by made_at) from aetherflow.secrets")
    assert secrets == [added["secret"], new]
    pair = hooks("endpoint", "rotate-secret", own, "--ed25519", "--wait", "--json").json
    assert pair["secret"] is None
    assert hooks("endpoint", "show", own, "--json").json["public_keys"] == [pair["public_key"]]
    assert "waits to be promoted" in failed(hooks("endpoint", "rotate-secret", own, "--wait"))
    assert hooks("endpoint", "promote-secret", own).out == f"{own} signs with its new secret\n"
    assert "no secret waits" in failed(hooks("endpoint", "promote-secret", own))
    other = hooks("endpoint", "add", URL, "--ed25519")
    assert re.fullmatch(r"id      ep_\S+\npublic  whpk_\S+\n", other.out)
    assert "not both" in failed(
        hooks("endpoint", "add", URL, "--ed25519", "--secret", "my own, sixteen characters")
    )
    hooks("endpoint", "delete", other.out.split()[1])
    hooks("endpoint", "rotate-secret", own, "--secret", "my own, sixteen characters")
    assert "my own" not in hooks("endpoint", "show", own).out
    assert "0 to 2,592,000" in failed(hooks("endpoint", "rotate-secret", own, "--overlap", "-1"))
    assert hooks("endpoint", "delete", own) == (0, f"{own} deleted\n", "")
    assert hooks("endpoint", "list", "--json").json == []
    for command in ("show", "pause", "resume", "rotate-secret", "promote-secret", "delete"):
        assert failed(hooks("endpoint", command, own)) == f"there is no endpoint {own}"


async def test_an_endpoint_is_tried_out(dsn: str, receiver: Receiver) -> None:
    async def hooks(*arguments: str) -> Said:
        return await asyncio.to_thread(
            run, *arguments, "--dsn", dsn, AETHERFLOW_HOOKS_PROFILE="development"
        )

    for script, code in [("200", 0), ("500", 1)]:
        url = receiver.url(f"/{script}", script)
        added = (await hooks("endpoint", "add", url, "--header", "X-Key=canary", "--json")).json
        said = await hooks("endpoint", "test", added["id"], "--type", "user.joined")
        (request,) = receiver.at(f"/{script}")
        assert (said.code, said.err) == (code, "")
        assert said.out.startswith(f"POST {url}\n")
        assert f"webhook-id: {request.headers['webhook-id']}\n" in said.out
        assert request.body.decode() in said.out
        assert f"answered {script} after " in said.out
        assert "X-Key: (not shown)" in said.out
        assert "canary" not in said.out
        told = await hooks("endpoint", "test", added["id"], "--json")
        assert orjson.loads(told.out)["status"] == int(script)
        assert told.code == code
    nobody = (await hooks("endpoint", "add", "http://127.0.0.1:1/", "--json")).json
    said = await hooks("endpoint", "test", nobody["id"])
    assert said.code == 1
    assert "not_reached after" in said.out
    assert "no connection" in said.out


def test_endpoints_are_listed_by_tenant(hooks: Hooks) -> None:
    ids = {t: hooks("endpoint", "add", URL, "--tenant", t, "--json").json["id"] for t in "ab"}
    assert [row["id"] for row in hooks("endpoint", "list", "--json").json] == list(ids.values())
    assert [row["id"] for row in hooks("endpoint", "list", "--tenant", "b", "--json").json] == [
        ids["b"]
    ]
    assert [row["id"] for row in hooks("status", "--tenant", "a", "--json").json] == [ids["a"]]


# Events and deliveries.


def test_emit_prints_the_id_and_reads_what_it_is_given(hooks: Hooks, dsn: str) -> None:
    for arguments, stdin, data in [
        ([], "", "{}"),
        (['{"n": 1.10, "ü": []}'], "", '{"n": 1.10, "ü": []}'),
        (["-"], '{"from": "stdin"}\n', '{"from": "stdin"}\n'),
    ]:
        said = hooks("emit", "user.joined", *arguments, stdin=stdin)
        assert re.fullmatch(r"evt_[0-9a-f]{24}\n", said.out), said.err
        kept = "select type || ' ' || data from aetherflow.events where id = $1"
        assert sql(dsn, kept, said.out.strip()) == f"user.joined {data}"


def test_emit_takes_the_options_of_the_function(hooks: Hooks, dsn: str) -> None:
    said = hooks(
        *("emit", "a.b", "--tenant", "acme"),
        *("--deliver-at", "2199-01-31T12:00:00Z", "--expires-at", "2199-01-31T13:00:00+01:00"),
    )
    assert "deliver_at is later than events are kept" in failed(said)
    soon = sql(dsn, "select to_char(now() + interval '1 day', 'YYYY-MM-DD')")
    event_id = hooks(
        *("emit", "a.b", "--tenant", "acme"),
        *("--deliver-at", f"{soon}T12:00:00Z", "--expires-at", f"{soon}T14:30:00+01:00"),
    ).out.strip()
    kept = sql(
        dsn,
        "select concat_ws(' ', tenant, timezone('UTC', deliver_at), timezone('UTC', expires_at))"
        " from aetherflow.events where id = $1",
        event_id,
    )
    assert kept == f"acme {soon} 12:00:00 {soon} 13:30:00"


def test_a_used_idempotency_key_gives_the_same_id(hooks: Hooks) -> None:
    first, again, other = (
        hooks("emit", "a.b", "--idempotency-key", key, "--tenant", tenant).out
        for key, tenant in [("k", ""), ("k", ""), ("k", "acme")]
    )
    assert first == again != other


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["a.b", '{"a":'], "data must be a JSON object"),
        (["a.b", "[]"], "this is a JSON array"),
        (["a.b", ""], "data must be a JSON object"),
        (["a b"], "the type 'a b' is not 1 to 128 characters"),
        (["a.b", "--deliver-at", "2030-01-31T12:00:00"], "has no time zone"),
        (["a.b", "--expires-at", "2030-01-31"], "has no time zone"),
        (["a.b", "--deliver-at", "tomorrow"], "'tomorrow' is not a time such as"),
        (["a.b", "--idempotency-key", ""], "idempotency_key is not 1 to 256 characters"),
    ],
)
def test_a_bad_event_is_refused(hooks: Hooks, arguments: list[str], why: str) -> None:
    assert why in failed(hooks("emit", *arguments))


def test_a_refusal_is_no_traceback(dsn: str) -> None:
    line = failed(process("emit", "a.b", "-", "--dsn", dsn, stdin=b'{\n"a": nonsense\n}'))
    assert "data must be a JSON object" in line


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["emit", "a.b", "-"], b'{"a": "\xff"}'),
        (["emit", "a.b", "-"], b'{"a": "\x00"}'),
        (["endpoint", "show", "\udcff"], b""),  # so Python reads a byte that is no UTF-8
        (["emit", "a.b", "--deliver-at", "9999-12-31T23:59:59-23:00"], b""),
    ],
    ids=["not UTF-8", "NUL", "argument", "end of time"],
)
def test_what_postgres_cannot_hold_is_one_clear_line(
    hooks: Hooks, arguments: list[str], stdin: bytes
) -> None:
    failed(hooks(*arguments, stdin=stdin))


def test_deliveries_are_listed_by_state(hooks: Hooks, dsn: str) -> None:
    own = hooks("endpoint", "add", URL, "--json").json["id"]
    states = ("pending", "leased", "dead", "delivered")
    for n, state in enumerate(states):
        sql(dsn, ROWS[state], own, f"evt_{n:024}")
    named = {state: f"dlv_{n:024}_{own[3:]}" for n, state in enumerate(states)}
    work = hooks("delivery", "list", "--json").json
    assert [(row["state"], row["id"]) for row in work] == [
        (state, named[state]) for state in ("pending", "leased")
    ]
    for state, name in named.items():
        (row,) = hooks("delivery", "list", "--state", state, "--json").json
        assert (row["id"], row["state"]) == (name, state)
    assert hooks("delivery", "list", "--endpoint", own, "--json").json == work
    said = hooks("delivery", "list", "--limit", "1", "--json")
    assert (said.json, said.err) == (work[:1], f"There may be more: --before {named['pending']}\n")
    told = hooks("delivery", "list", "--before", named["pending"], "--json")
    assert told.json == work[1:]
    table = hooks("delivery", "list", "--state", "dead").out.splitlines()
    assert table[0].split() == ["id", "state", "attempts", "due_at", "ended_at", "reason"]
    assert [line.split()[:4] for line in table[2:]] == [[named["dead"], "dead", "4", "-"]]
    assert table[2].split()[-1] == "gone"

    (row,) = hooks("attempt", "list", "--json").json
    assert (row["delivery_id"], row["status"], row["attempt"]) == (named["delivered"], 200, 2)
    assert hooks("attempt", "list", "--only-failed", "--json").json == []
    assert hooks("attempt", "list", "--status", "2xx", "--endpoint", own, "--json").json == [row]
    assert hooks("attempt", "list", "--after", row["id"], "--json").json == []
    assert named["delivered"] in hooks("attempt", "list", "--since", "2026-01-31").out
    assert "no status" in failed(hooks("attempt", "list", "--status", "none"))


WAITING = """
    insert into aetherflow.deliveries
        (shard, event_shard, endpoint_id, event_id, due_at, attempt, leased_until)
    values (aetherflow.shard_of($1), 0, $1, $2, now() - interval '5 minutes', """
ROWS = {
    "pending": WAITING + "0, '-infinity')",
    "leased": WAITING + "1, now() + interval '1 hour')",
    "dead": """
        insert into aetherflow.dead (shard, event_shard, endpoint_id, event_id, attempts, reason)
        values (aetherflow.shard_of($1), 0, $1, $2, 4, 'gone')""",
    "delivered": """
        insert into aetherflow.attempts (shard, endpoint_id, event_id, attempt, started_at,
            duration_ms, outcome, verdict, status)
        values (aetherflow.shard_of($1), $1, $2, 2, now(), 40, 'answered', 'delivered', 200)""",
}


COUNTED = """
    insert into aetherflow.tallies (shard, span, starts_at, part, subject, attempts, delivered,
        answered_429, answered_4xx, answered_5xx, answered_other, timed_out, not_reached, blocked,
        late, buckets, counts)
    values (case when $1 like 'ep%' then aetherflow.shard_of($1) else 0 end, 60,
        date_trunc('minute', now()), 1, $1, 4, 3, 0, 0, 1, 0, 0, 0, 0, 0,
        array[14], array[4])"""  # 39 to 46 ms


def test_events_and_their_deliveries_are_listed_and_shown(hooks: Hooks, dsn: str) -> None:
    own = hooks("endpoint", "add", URL, "--json").json["id"]
    first = hooks("emit", "user.joined", '{"n": 1}', "--tenant", "acme").out.strip()
    second, third = (hooks("emit", "a.b").out.strip() for _ in range(2))
    listed = hooks("event", "list", "--json").json
    assert [row["id"] for row in listed] == [third, second, first]
    assert (listed[2]["type"], listed[2]["tenant"], listed[2]["data_bytes"]) == (
        *("user.joined", "acme"),
        8,
    )
    for filters in (["--type", "user.*"], ["--tenant", "acme"], ["--before", second]):
        assert hooks("event", "list", *filters, "--json").json == [listed[2]]
    said = hooks("event", "list", "--limit", "2")
    assert said.err == f"There may be more: --before {second}\n"
    assert len(said.out.splitlines()) == 4
    assert hooks("event", "list", "--until", "2000-01-31", "--json").json == []
    assert len(hooks("event", "list", "--since", "2000-01-31T12:00:00Z", "--json").json) == 3

    sql(dsn, ROWS["delivered"], own, third)
    shown = hooks("event", "show", third, "--json").json
    assert (shown["data"], shown["deliveries"][0]["state"]) == ("{}", "delivered")
    (named,) = (row["id"] for row in shown["deliveries"])
    told = hooks("event", "show", third).out
    assert named in told
    answer = "update aetherflow.attempts set verdict = 'retry', response = $1"
    sql(dsn, answer, b"\x1b]52;c;\xff<b>")
    sql(dsn, ROWS["pending"], own, third)
    shown = hooks("delivery", "show", named, "--json").json
    assert (shown["url"], shown["type"], shown["state"]) == (URL, "a.b", "pending")
    assert shown["history"][0]["response"] == "\x1b]52;c;\\xff<b>"
    told = hooks("delivery", "show", named).out
    assert '"data":{}}' in told  # the body as it was sent
    assert "\x1b" not in told
    assert "\\x1b]52;c;" in told
    for command in (["event", "show", "evt_x"], ["delivery", "show", "dlv_x"]):
        assert "there is no" in failed(hooks(*command))


def test_a_filter_that_is_no_id_is_refused(hooks: Hooks) -> None:
    told = failed(hooks("delivery", "list", "--endpoint", "nonsense"))
    assert "there is no endpoint nonsense" in told


def test_status_has_a_row_per_endpoint(hooks: Hooks, dsn: str) -> None:
    busy, idle = (hooks("endpoint", "add", URL, "--json").json["id"] for _ in range(2))
    for n, state in enumerate(["pending", "pending", "leased"]):
        sql(dsn, ROWS[state], busy, f"evt_{n:024}")
    sql(dsn, COUNTED, busy)
    first, second = hooks("status", "--json").json
    assert 300 <= first.pop("oldest_seconds") < 330
    assert first == {
        "id": busy,
        "tenant": "",
        "url": URL,
        "state": "active",
        "waiting": 2,
        "in_flight": 1,
        "is_exact": True,
        "attempts": 4,
        "success_rate": 0.75,
        **dict.fromkeys(("p50_ms", "p95_ms", "p99_ms"), pytest.approx(40, rel=0.1)),
    }
    assert (second["id"], second["waiting"], second["success_rate"]) == (idle, 0, None)
    whole, table = (part.splitlines() for part in hooks("status").out.split("\n\n"))
    assert [line.split()[0] for line in whole[:3]] == ["waiting", "minute", "hour"]
    assert len(table) == 4
    assert table[3].split() == [idle, "active", "0", "0", "-", "0", "-", "-", "-", URL]
    said = hooks("status", "--limit", "1")
    assert said.err == f"There may be more: --after {busy}\n"
    assert hooks("status", "--after", busy, "--json").json == [second | {"oldest_seconds": None}]
    assert [row["id"] for row in hooks("status", "--endpoint", idle, "--json").json] == [idle]


def test_numbers_have_a_line_for_each_minute_or_hour(hooks: Hooks, dsn: str) -> None:
    busy = hooks("endpoint", "add", URL, "--tenant", "acme", "--json").json["id"]
    for subject in (busy, "tenant:acme", "all"):
        sql(dsn, COUNTED, subject)
    for some in ([], ["--endpoint", busy], ["--tenant", "acme"]):
        points = hooks("numbers", *some, "--json").json
        assert len(points) == 60
        assert [it["attempts"] for it in points if it["attempts"]] == [4]
    assert not any(it["attempts"] for it in hooks("numbers", "--tenant", "x", "--json").json)
    hours = hooks("numbers", "--by", "hour", "--since", "2026-01-31", "--until", "2026-02-02")
    lines = hours.out.splitlines()
    assert lines[0].split()[:4] == ["starts_at", "attempts", "delivered", "success_rate"]
    assert len(lines) == 2 + 48
    assert lines[2].split() == ["2026-01-31", "00:00:00+00:00", "0", "0", *"----", "0", "0"]
    assert "ask for what is older by the hour" in failed(hooks("numbers", "--since", "2026-01-31"))


# Text of others on the terminal.

NASTY = "\x1b[2J\x1b]52;c;x\x07\r\x9b31m\x7f\u202e\u200b"


@pytest.fixture
def nasty(hooks: Hooks, dsn: str) -> str:
    """An endpoint that somebody wrote past all checks."""
    own: str = hooks("endpoint", "add", URL, "--json").json["id"]
    sql(dsn, "update aetherflow.endpoints set url = url || $1, description = $1", NASTY)
    return own


def test_no_control_character_reaches_the_terminal(hooks: Hooks, nasty: str) -> None:
    for arguments in (["endpoint", "list"], ["endpoint", "show", nasty], ["status"]):
        said = hooks(*arguments)
        assert "\\x1b[2J" in said.out
        assert said.out.replace("\n", "").isprintable()


def test_no_control_character_reaches_the_terminal_as_json(hooks: Hooks, nasty: str) -> None:
    said = hooks("endpoint", "show", nasty, "--json")
    assert said.json["description"] == NASTY
    assert {unicodedata.category(letter) for letter in set(said.out) - {"\n"}} <= {
        *("Ll", "Lu", "Nd", "Pc", "Pd", "Pe", "Po", "Ps", "Sc", "Sk", "Sm", "Zs"),
    }


def test_a_bad_url_is_repeated_without_its_control_characters(hooks: Hooks) -> None:
    assert failed(hooks("endpoint", "add", URL + NASTY)).isprintable()


@pytest.mark.parametrize("arguments", [["endpoint", "show"], ["emit"]], ids=" ".join)
def test_a_bad_argument_is_repeated_without_its_control_characters(
    hooks: Hooks, arguments: list[str]
) -> None:
    assert failed(hooks(*arguments, "x\x1b]0;x\x07")).isprintable()


def test_an_endpoint_with_an_order_gets_keys(hooks: Hooks, dsn: str) -> None:
    own = hooks("endpoint", "add", URL, "--ordering", "block", "--json").json
    assert own["ordering"] == "block"
    event_id = hooks("emit", "a.b", "--ordering-key", "usr_1").out.strip()
    key = sql(dsn, "select ordering_key from aetherflow.events where id = $1", event_id)
    assert key == "usr_1"
    assert hooks("endpoint", "add", URL, "--ordering", "fifo").code == 2
    assert "256 characters" in failed(hooks("emit", "a.b", "--ordering-key", "x" * 257))


def test_a_delivery_is_retried_and_cancelled_by_hand(hooks: Hooks, dsn: str) -> None:
    own = hooks("endpoint", "add", URL, "--ordering", "block", "--json").json["id"]
    event_id = hooks("emit", "a.b").out.strip()
    named = f"dlv_{event_id[4:]}_{own[3:]}"
    sql(
        dsn,
        "insert into aetherflow.deliveries (shard, event_shard, endpoint_id, event_id, due_at)"
        " select aetherflow.shard_of($1), shard, $1, id, 'infinity' from aetherflow.events",
        own,
    )
    assert hooks("delivery", "list", "--state", "halted", "--json").json[0]["id"] == named
    assert hooks("delivery", "retry", named).out == f"{named} is due\n"
    assert sql(dsn, "select due_at <= now() from aetherflow.deliveries")
    assert hooks("delivery", "cancel", named).out == f"{named} cancelled\n"
    dead = hooks("delivery", "list", "--state", "dead", "--json").json[0]
    assert (dead["id"], dead["reason"]) == (named, "cancelled")
    assert "no waiting delivery" in failed(hooks("delivery", "cancel", named))
    assert hooks("delivery", "retry", named).code == 0
    assert sql(dsn, "select count(*) from aetherflow.dead") == 0
    assert sql(dsn, "select count(*) from aetherflow.deliveries") == 1
    hooks("endpoint", "disable", own)
    assert "its endpoint is disabled" in failed(hooks("delivery", "retry", named))
    for command in ("retry", "cancel"):
        assert "delivery" in failed(hooks("delivery", command, "dlv_x"))


def test_a_restore_is_shown_held_and_accepted(hooks: Hooks, dsn: str) -> None:
    hooks("emit", "a.b")
    assert "engines work on this database" in hooks("restore", "show").out
    assert "send nothing" in hooks("restore", "hold").out
    said = hooks("restore", "show").out
    assert "this database was restored" in said
    assert "waiting: 1 events, 0 deliveries" in said
    assert hooks("restore", "show", "--json").json["is_restored"] is True
    assert "given up: 1 events" in hooks("restore", "accept", "--cancel-waiting").out
    assert hooks("restore", "show", "--json").json["events"] == 0
    assert sql(dsn, "select count(*) from aetherflow.outbox") == 0


def test_a_replay_is_counted_asked_for_shown_and_cancelled(hooks: Hooks, dsn: str) -> None:
    added = hooks("endpoint", "add", URL, "--json").json["id"]
    for _ in range(3):
        hooks("emit", "a.b", "{}")
    sql(dsn, "delete from aetherflow.outbox")  # as if they had been delivered
    chosen = ("--endpoint", added, "--type", "a.*", "--since", "2026-01-31")
    dry = hooks("replay", *chosen, "--dry-run")
    assert (dry.code, dry.out) == (0, "3 deliveries, at 1 endpoints\n")
    assert hooks("replay", *chosen, "--dry-run", "--json").json == {
        "deliveries": 3,
        "endpoints": 1,
        "is_whole": True,
    }
    said = hooks("replay", *chosen, stdin="n\n")
    assert (said.code, "Send them?" in said.err) == (1, True)
    assert hooks("replay", "list", "--json").json == []
    made = hooks("replay", *chosen, "--rate", "5", "--yes", "--json").json
    assert (made["state"], made["pattern"], made["rate_per_second"]) == ("running", "a.*", 5)
    assert hooks("replay", *chosen, stdin="y\n").out.splitlines()[-1].startswith("rpl_")
    listed = hooks("replay", "list", "--json").json
    assert [row["id"] for row in listed][1:] == [made["id"]]
    assert hooks("replay", "list", "--limit", "1").err == (
        f"There may be more: --before {listed[0]['id']}\n"
    )
    assert made["id"] in hooks("replay", "show", made["id"]).out
    assert hooks("replay", "cancel", made["id"]).code == 0
    assert hooks("replay", "show", made["id"], "--json").json["state"] == "cancelled"
    sql(dsn, "update aetherflow.replays set state = 'done', made = 3, ended_at = now()")
    assert "say which endpoint" in failed(hooks("replay", "--dry-run"))
    assert "no endpoint" in failed(hooks("replay", "--endpoint", "ep_000000000000", "--dry-run"))


async def test_a_replay_is_followed_to_its_end(dsn: str, receiver: Receiver) -> None:
    url = receiver.url("/a")
    environment = {"AETHERFLOW_HOOKS_PROFILE": "development"}

    def hooks(*arguments: str) -> Said:
        return run(*arguments, "--dsn", dsn, **environment)

    async with start_engine(settings_for(dsn)):
        for _ in range(5):
            await asyncio.to_thread(hooks, "emit", "a.b", "{}")
        added = (await asyncio.to_thread(hooks, "endpoint", "add", url, "--json")).json["id"]
        said = await asyncio.to_thread(
            hooks, "replay", "--endpoint", added, "--yes", "--follow", "--json"
        )
        assert (said.json["state"], said.json["made"]) == ("done", 5)
        assert "rpl_" in said.err
        await receiver.wait_for(5)


def test_tokens_are_made_listed_and_revoked_and_it_is_on_record(hooks: Hooks) -> None:
    said = hooks("token", "add", "ci", "--scope", "write", "--tenant", "acme")
    assert re.fullmatch(r"af_[0-9a-f]{12}_[\w-]{43}\n", said.out)
    (listed,) = hooks("token", "list", "--json").json
    assert (listed["name"], listed["scope"], listed["tenant"]) == ("ci", "write", "acme")
    assert said.out.strip() not in hooks("token", "list").out
    made = hooks("token", "add", "ops", "--expires-at", "2999-12-31", "--json").json
    assert made["token"].startswith(f"af_{made['id']}_")
    assert hooks("token", "revoke", listed["id"]).out == f"{listed['id']} revoked\n"
    assert "no token" in failed(hooks("token", "revoke", listed["id"]))
    assert "would have expired" in failed(hooks("token", "add", "x", "--expires-at", "2000-12-31"))
    assert "ask for write" in failed(
        hooks("token", "add", "x", "--scope", "admin", "--tenant", "a")
    )
    changes = hooks("audit", "--json").json
    assert [it["action"] for it in changes] == ["token.revoke", "token.add", "token.add"]
    assert all(it["actor"].startswith("cli:") for it in changes)
    assert len(hooks("audit", "--of", made["id"], "--json").json) == 1
    said = hooks("audit", "--limit", "1")
    assert said.err == f"There may be more: --before {changes[0]['id']}\n"
    assert "revoked" in said.out


# Endpoints that are polled.


async def fan_out(dsn: str) -> None:
    """Run an engine until nothing is left to be fanned out."""
    connection = await asyncpg.connect(dsn)
    async with start_engine(settings_for(dsn)):
        while await connection.fetchval("select exists (select from aetherflow.outbox)"):
            await asyncio.sleep(0.01)
    await connection.close()


def test_an_endpoint_is_polled_and_what_was_given_acknowledged(hooks: Hooks, dsn: str) -> None:
    added = hooks("endpoint", "add", "--poll", "--events", "a.*", "--json").json
    assert (added["url"], added["polled"]) == ("", True)
    assert added["secret"].startswith("whsec_")
    assert "(polled)" in hooks("endpoint", "list").out
    assert "(polled)" in hooks("status").out
    assert hooks("endpoint", "list", "--json").json[0]["url"] == ""
    poll = ("endpoint", "poll", added["id"])
    assert hooks(*poll, "--json").json == {"items": [], "cursor": None, "is_more": False}
    event_id = hooks("emit", "a.b", '{"n": 1}').out.strip()
    asyncio.run(fan_out(dsn))
    said = hooks(*poll)
    assert event_id in said.out
    found = re.search(r"--ack (cur_\S+)", said.err)
    assert found
    ack = ("--ack", found[1], "--json")
    assert hooks(*poll, "--json").json["items"] == []
    assert hooks(*poll, *ack).json["items"] == []
    (delivered,) = hooks("delivery", "list", "--state", "delivered", "--json").json
    assert delivered["event_id"] == event_id
    points = hooks("numbers", "--endpoint", added["id"], "--json").json
    assert sum(it["delivered"] for it in points) == 1
    other = hooks("endpoint", "add", "--poll", "--json").json["id"]
    assert "of another endpoint" in failed(hooks("endpoint", "poll", other, *ack))

    hooks("restore", "hold")
    assert "was restored" in failed(hooks(*poll))


def test_what_an_endpoint_that_is_polled_cannot_have_is_refused(
    hooks: Hooks, tmp_path: Path
) -> None:
    assert "has no URL" in failed(hooks("endpoint", "add", URL, "--poll"))
    assert "has no rate" in failed(hooks("endpoint", "add", "--poll", "--rate", "1"))
    file = tmp_path / "client.pem"
    file.write_text("of it")
    told = failed(hooks("endpoint", "add", "--poll", "--certificate", str(file)))
    assert "has no certificate" in told
    assert "has a URL" in failed(hooks("endpoint", "add"))
    posted = hooks("endpoint", "add", URL, "--json").json["id"]
    assert "is not polled" in failed(hooks("endpoint", "poll", posted))
    polled = hooks("endpoint", "add", "--poll", "--json").json["id"]
    assert "is polled" in failed(hooks("endpoint", "test", polled))
    assert "has no timeout" in failed(hooks("endpoint", "update", polled, "--timeout", "5"))


# All of it, beside an engine that runs.


async def test_whatever_is_to_be_done_is_done_by_commands(dsn: str, receiver: Receiver) -> None:  # noqa: PLR0915  one story
    async def said(*arguments: str, stdin: str = "") -> Said:
        return await asyncio.to_thread(
            run, *arguments, "--dsn", dsn, stdin=stdin, AETHERFLOW_HOOKS_PROFILE="development"
        )

    async def told(*arguments: str, stdin: str = "") -> Any:
        return (await said(*arguments, "--json", stdin=stdin)).json

    async def done(*arguments: str, stdin: str = "") -> str:
        answer = await said(*arguments, stdin=stdin)
        assert answer.code == 0, answer.err
        return answer.out

    async def find(count: int, *arguments: str) -> list[Any]:
        """Give rows as soon as there are just so many."""
        found: list[Any] = []

        async def are_there() -> bool:
            found[:] = await told(*arguments)
            return len(found) == count

        await until(are_there, " ".join(arguments))
        return found

    schema = '{"required": ["amount"], "properties": {"amount": {"type": "number"}}}'
    async with start_engine(settings_for(dsn)):
        # The catalogue, and a version of a type.
        await done("event-type", "add", "order.paid", "--schema", "-", stdin=schema)
        await done("event-type", "change", "order.paid", "--example", "-", stdin='{"amount": 1}')
        doubled = "jsonb_set(data, '{amount}', ((data->>'amount')::numeric * 2)::text::jsonb)"
        await done("event-type", "version", "add", "order.paid", "2024-01-01", doubled)
        assert {row["type"] for row in await told("event-type", "list")} >= {"order.paid"}

        # Endpoints: one with all that can be asked for, one that breaks, one that polls.
        choosing = ["--events", "order.*", "--filter", "$.amount > 10", "--channels", "eu"]
        limits = ["--rate", "100", "--burst", "10", "--max-in-flight", "5", "--timeout", "5"]
        notes = ["--label", "gold", "--metadata", '{"plan": 1}', "--description", "theirs"]
        own = await told(
            *("endpoint", "add", receiver.url("/own"), "--tenant", "acme", "--retries", "none"),
            *("--payload-version", "2024-01-01", "--header", "X-Own=1", *choosing, *limits, *notes),
        )
        broken = await told(
            *("endpoint", "add", receiver.url("/broken", "500,500,200"), "--tenant", "acme"),
            *("--retries", "none", "--events", "user.*"),
        )
        polled = await told("endpoint", "add", "--poll", "--tenant", "acme", "--events", "user.*")
        assert "gold" in str(await told("endpoint", "list", "--label", "gold"))
        tried = "endpoint", "test", own["id"], "--type", "order.paid", "--data", '{"amount": 1}'
        assert "answered 200" in await done(*tried)

        # What it chooses comes, as the version has it; nothing else does.
        order = ["emit", "order.paid", "--tenant", "acme", "--channel", "eu", "--validate"]
        assert "amount" in failed(await said(*order[:2], "{}", *order[2:]))
        first = (await done(*order[:2], '{"amount": 20}', *order[2:])).strip()
        await done(*order[:2], '{"amount": 5}', *order[2:])
        await done(*order[:2], '{"amount": 30}', "--tenant", "acme")
        (attempt,) = await find(1, "attempt", "list", "--type", "order.paid")
        assert (attempt["event_id"], attempt["status"]) == (first, 200)
        request = receiver.at("/own")[-1]
        assert orjson.loads(request.body)["data"] == {"amount": 40}
        assert request.headers["x-own"] == "1"
        verify(request.body, request.headers, own["secret"])

        # Paused, it waits; a later event is cancelled; the content of one is deleted.
        await done("endpoint", "pause", own["id"])
        second = (await done(*order[:2], '{"amount": 50}', *order[2:])).strip()
        (waiting,) = await find(1, "delivery", "list", "--endpoint", own["id"])
        assert waiting["event_id"] == second
        await done("endpoint", "resume", own["id"])
        await find(2, "attempt", "list", "--type", "order.paid", "--verdict", "delivered")
        tomorrow = f"{datetime.now(UTC) + timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
        later = await done(*order[:2], '{"amount": 60}', *order[2:], "--deliver-at", tomorrow)
        await done("event", "cancel", later.strip())
        await done("event", "expunge", second, stdin="y\n")
        assert (await told("event", "show", second))["data"] is None

        # What fails is seen, retried by hand, and replayed after it was counted.
        for n in range(2):
            await done("emit", "user.joined", f'{{"n": {n}}}', "--tenant", "acme")
        dead = await find(2, "delivery", "list", "--state", "dead")
        await find(2, "attempt", "list", "--only-failed", "--status", "5xx")
        assert {own["id"], broken["id"], polled["id"]} <= set((await done("status")).split())
        shown = await done("delivery", "show", dead[0]["id"])
        assert "X-AetherFlow-Signature" in shown
        assert "answered 500" in shown
        await done("delivery", "retry", dead[0]["id"])
        await find(1, "delivery", "list", "--state", "dead")
        counting = ["replay", "--endpoint", broken["id"], "--only-failed"]
        assert "1 " in await done(*counting, "--dry-run")
        replayed = await told(*counting, "--yes", "--follow")
        assert (replayed["state"], replayed["made"]) == ("done", 1)
        await find(0, "delivery", "list", "--state", "dead")
        assert (await told("replay", "list"))[0]["id"] == replayed["id"]

        # The consumer that polls was given both, and acknowledges them.
        given = await told("endpoint", "poll", polled["id"])
        assert len(given["items"]) == 2
        for item in given["items"]:
            verify(item["body"].encode(), item["headers"], polled["secret"])
        await done("endpoint", "poll", polled["id"], "--ack", given["cursor"])

        # It is changed, gets a new secret, and all that there is: also from before.
        new = await told("endpoint", "rotate-secret", own["id"])
        await done("endpoint", "update", own["id"], "--reset", "filter", "--reset", "channels")
        await done("endpoint", "update", own["id"], "--reset", "payload-version", "--rate", "50")
        filled = await told("replay", "--endpoint", own["id"], "--yes", "--follow")
        assert filled["made"] == 3  # what was cancelled or expunged is not among them
        await find(0, "delivery", "list", "--endpoint", own["id"])
        last = receiver.at("/own")[-1]
        for secret in (own["secret"], new["secret"]):
            verify(last.body, last.headers, secret)

        async def is_counted() -> bool:
            points = await told("numbers", "--endpoint", own["id"])
            return bool(sum(point["delivered"] for point in points) == 2 + filled["made"])

        await until(is_counted)

        # Who may look, and what was done.
        token = await told("token", "add", "ci", "--scope", "read", "--tenant", "acme")
        await done("token", "revoke", token["id"])
        link = await told("link", "add", "acme")
        await done("link", "revoke", link["id"])
        await done("endpoint", "disable", broken["id"])
        await done("endpoint", "enable", broken["id"])
        await done("endpoint", "delete", broken["id"])
        assert "there is no endpoint" in failed(await said("endpoint", "show", broken["id"]))
        actions = {row["action"] for row in await told("audit", "--limit", "100")}
        assert actions >= {
            *("endpoint.add", "endpoint.change", "endpoint.delete", "version.add"),
            *("delivery.retry", "replay.start", "event.cancel", "event.expunge"),
            *("endpoint.rotate_secret", "endpoint.set_state", "token.revoke", "link.revoke"),
        }
