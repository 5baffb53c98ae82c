"""Settings: each declared once, from three places, with every problem told at once."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic.fields import FieldInfo

from aetherflow_hooks.config import Section, Settings, load, render, shown
from aetherflow_hooks.errors import ConfigInvalid
from aetherflow_hooks.rules.sealing import write_key

EXAMPLE = Path(__file__).parents[2] / "config.example.toml"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "hooks.toml"


def read(file: Path, text: str = "", **environment: str) -> Settings:
    """Load a file of this text, in an environment of AETHERFLOW_HOOKS_ and these names alone."""
    file.write_text(text, encoding="utf-8")
    names = {f"AETHERFLOW_HOOKS_{name}": value for name, value in environment.items()}
    return load(file, environment=names)


def problems(file: Path, text: str = "", **environment: str) -> list[str]:
    """Give what is wrong, one line each, as a user reads it under the file's name."""
    with pytest.raises(ConfigInvalid) as invalid:
        read(file, text, **environment)
    told = list(invalid.value.problems)
    if len(told) == 1:
        assert str(invalid.value) == f"{file}: {told[0]}"
    else:
        first, *lines = str(invalid.value).splitlines()
        assert first == f"{file}: {len(told)} problems"
        assert [line.strip() for line in lines] == told
    return told


def every_field() -> Iterator[tuple[str, FieldInfo]]:
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, Section):
            for inner, inner_field in type(field.default).model_fields.items():
                yield f"{name}.{inner}", inner_field
        else:
            yield name, field


# Declared once.


def test_the_example_is_made_from_the_code() -> None:
    assert EXAMPLE.read_text(encoding="utf-8") == render(Settings())


def test_the_example_loads_to_the_defaults() -> None:
    assert load(EXAMPLE, environment={}) == Settings() == load(environment={})


@pytest.mark.parametrize("comments", [True, False])
def test_what_is_rendered_reads_back_the_same(file: Path, comments: bool) -> None:
    odd = read(
        file,
        'profile = "development"\n[database]\ndsn = "postgresql://h/\\"ö\\\\"\n'
        '[retry]\nschedule_seconds = []\n[egress]\nallow = ["10.0.0.0/8:80-90", "::1"]\n'
        "[post]\ntimeout_seconds = 0.125\n",
    )
    assert read(file, render(odd, comments=comments)) == odd


FIELDS = dict(every_field())


@pytest.mark.parametrize("path", FIELDS)
def test_a_setting_says_what_it_is(path: str) -> None:
    field = FIELDS[path]
    assert field.description
    assert field.description.endswith(".")
    assert len(field.description) <= 100
    assert not field.is_required()


def test_a_name_that_measures_carries_its_unit() -> None:
    units = ("_seconds", "_bytes", "_days", "_max", "_seconds_max", "_bytes_max", "_per_second")
    bare = {"database.shards", "pace.slots", "retry.jitter", "pace.max_in_flight", "web.port"}
    bare |= {"log.delivered_every"}
    measures = {path for path, field in FIELDS.items() if field.annotation in (int, float)}
    assert {path for path in measures if not path.endswith(units)} == bare


# From the file, the environment and the caller.


def test_the_environment_stands_over_the_file_and_the_caller_over_both(file: Path) -> None:
    file.write_text("[pace]\nslots = 1\nmax_in_flight = 1\ndiscover_seconds = 1\n")
    environment = {
        "AETHERFLOW_HOOKS_PACE__SLOTS": "2",
        "AETHERFLOW_HOOKS_PACE__MAX_IN_FLIGHT": "2",
        "HOME": "/",
    }
    pace = load(file, environment=environment, given={"pace": {"slots": 3}}).pace
    assert (pace.slots, pace.max_in_flight, pace.discover_seconds) == (3, 2, 1)


def test_the_environment_reaches_every_kind_of_setting(file: Path) -> None:
    settings = read(
        file,
        PROFILE="development",
        DATABASE__MIGRATE_AT_START="true",
        DATABASE__DSN="postgresql://h/db",
        RETRY__SCHEDULE_SECONDS="1, 2.5,3 ",
        EGRESS__ALLOW="10.0.0.0/8:80-90,::1",
        LOG__LEVEL="debug",
        pace__slots="7",
    )
    assert settings.profile == "development"
    assert settings.database.migrate_at_start
    assert settings.database.dsn == "postgresql://h/db"
    assert settings.retry.schedule_seconds == (1.0, 2.5, 3.0)
    assert settings.egress.allow == ("10.0.0.0/8:80-90", "::1")
    assert settings.log.level == "debug"


@pytest.mark.parametrize("empty", ["", " ", ","])
def test_an_empty_list_in_the_environment_is_an_empty_list(file: Path, empty: str) -> None:
    assert read(file, RETRY__SCHEDULE_SECONDS=empty).retry.schedule_seconds == ()


URL = {"DATABASE_URL": "postgresql://last/db"}
OURS = {"AETHERFLOW_HOOKS_DATABASE__DSN": "postgresql://environment/db"}


@pytest.mark.parametrize(
    ("text", "environment", "given", "host"),
    [
        ("", {}, None, ""),
        ("", URL, None, "postgresql://last/db"),
        ("", URL, {"pace": {"slots": 1}}, "postgresql://last/db"),
        ('[database]\ndsn = "postgresql://file/db"', URL, None, "postgresql://file/db"),
        (
            '[database]\ndsn = "postgresql://file/db"',
            URL | OURS,
            None,
            "postgresql://file/db",
        ),
        ("", URL | OURS, None, "postgresql://environment/db"),
        ("", URL | OURS, {"database": {"dsn": "postgresql://given/db"}}, "postgresql://given/db"),
    ],
)
def test_database_url_comes_last(
    file: Path, text: str, environment: dict[str, str], given: Mapping[str, Any] | None, host: str
) -> None:
    file.write_text(text)
    assert load(file, environment=environment, given=given).database.dsn == host


def test_the_process_has_an_environment_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AETHERFLOW_HOOKS_PACE__SLOTS", "9")
    assert load().pace.slots == 9
    assert load(environment={}).pace.slots == 256


# Problems.


def test_all_problems_are_told_at_once_each_with_its_path(file: Path) -> None:
    text = """
        profil = "development"
        [pace]
        slots = 0
        slot = 3
        discover_seconds = nan
        [paces]
        slots = 1
        [post]
        timeout_seconds = "soon"
        [database]
        schema_name = "Hooks"
        migrate_at_start = 2
        [log]
        level = "loud"
    """
    told = problems(file, text, RETRY__JITTER="2", RETRY__SCHEDULE_SECONDS="1,x", POST__TIMEOUT="1")
    paths = [line.split()[0].removesuffix(":") for line in told]
    assert sorted(paths) == [
        "AETHERFLOW_HOOKS_POST__TIMEOUT",
        "database.migrate_at_start",
        "database.schema_name",
        "log.level",
        "pace.discover_seconds",
        "pace.slot",
        "pace.slots",
        "paces",
        "post.timeout_seconds",
        "profil",
        "retry.jitter",
        "retry.schedule_seconds.1",
    ]
    assert "pace.slots = 0: input should be greater than or equal to 1" in told
    assert "pace.slot is no setting (`aetherflow-hooks config show` lists them)" in told


@pytest.mark.parametrize("name", ["FOO", "PACE", "PACE__SLOT", "PACE__SLOTS__X", "", "__"])
def test_a_typo_in_the_environment_is_told(file: Path, name: str) -> None:
    (told,) = problems(file, **{name: "1"})
    assert told.startswith(f"AETHERFLOW_HOOKS_{name} is no setting")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        *[(name, True) for name in ("aetherflow", "select", "_x", "a" * 56, "x1")],
        *[(name, False) for name in ("", "a" * 57, "1x", "X", "a-b", 'a"b', "a.b", "ä", "a\n")],
        *[(name, False) for name in ("pg_hooks", "pg_catalog")],
    ],
)
def test_a_schema_has_a_plain_name(name: str, good: bool) -> None:
    given = {"database": {"schema_name": name}}
    if good:
        assert load(environment={}, given=given).database.schema_name == name
    else:
        with pytest.raises(ConfigInvalid, match=r"database\.schema_name = "):
            load(environment={}, given=given)


def test_a_file_that_cannot_be_read_is_told(file: Path) -> None:
    with pytest.raises(ConfigInvalid, match="cannot be read: No such file"):
        load(file, environment={})
    with pytest.raises(ConfigInvalid, match="cannot be read: Is a directory"):
        load(file.parent, environment={})
    file.write_bytes(b'profile = "\xff"')
    with pytest.raises(ConfigInvalid, match="it is not TOML"):
        load(file, environment={})
    (told,) = problems(file, "[pace\nslots = 1")
    assert told.startswith("it is not TOML: ")


CROSSED = """
[engine]
renew_seconds = 9
[database]
command_timeout_seconds = 100
[record]
response_kept_bytes = 60000
[post]
response_read_bytes = 10
"""


def test_settings_know_each_other(file: Path) -> None:
    told = [line.partition(" must be ") for line in problems(file, CROSSED)]
    assert [(left, right.partition(":")[0]) for left, _, right in told] == [
        ("engine.renew_seconds = 9.0", "at most a third of engine.shard_lease_seconds (= 10.0)"),
        (
            "lease.margin_seconds = 20.0",
            "at least database.command_timeout_seconds (= 100.0)",
        ),
        ("record.response_kept_bytes = 60000", "at most post.response_read_bytes (= 10)"),
    ]


def test_settings_know_each_other_even_if_one_elsewhere_is_wrong(file: Path) -> None:
    assert len(problems(file, CROSSED + "[pace]\nslots = 0\n")) == 4


def test_a_pause_out_of_range_is_told_with_its_own_path(file: Path) -> None:
    (told,) = problems(file, "[retry]\nschedule_seconds = [10, -1]\n")
    assert told.startswith("retry.schedule_seconds")


def test_a_network_that_is_none_is_told_with_its_path(file: Path) -> None:
    told = problems(file, '[egress]\nallow = ["10.0.0.0/8", "example.com", "10.0.0.1/8"]\n')
    assert len(told) == 2
    assert all(line.startswith("egress.allow") for line in told)


NO_TABLE = 'database = "postgresql://u:s3cret@h/db"\n'


def test_a_section_that_is_no_table_is_told(file: Path) -> None:
    (told,) = problems(file, NO_TABLE)
    assert told.startswith("database")


def test_a_dsn_in_the_wrong_place_does_not_show_its_password(file: Path) -> None:
    (told,) = problems(file, NO_TABLE)
    assert "s3cret" not in told


def test_a_section_that_is_no_table_is_told_beside_an_environment(file: Path) -> None:
    (told,) = problems(file, NO_TABLE, DATABASE__SHARDS="4")
    assert told.startswith("database")


def test_a_section_that_is_no_table_is_told_beside_a_caller(file: Path) -> None:
    file.write_text(NO_TABLE)
    with pytest.raises(ConfigInvalid, match="database"):
        load(file, environment={}, given={"database": {"dsn": "postgresql://h/db"}})


# What may be seen.


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("postgresql://u:s3cret@h/db", "postgresql://u:…@h/db"),
        ("postgresql://u:s3@cret@h/db", "postgresql://u:…@h/db"),
        ("postgres://u:s3cret@[::1]:5432/db?sslmode=require", None),
        ("postgresql://:s3cret@h/db", "postgresql://:…@h/db"),
        ("postgresql://u:s3cret@h1:1,h2:2/db", "postgresql://u:…@h1:1,h2:2/db"),
        ("postgresql://u:s3cret@/db?host=/run/postgresql", None),
        ("postgresql://u:%2F%2Fs3cret@h/db", "postgresql://u:…@h/db"),
    ],
)
def test_a_password_is_not_shown(dsn: str, expected: str | None) -> None:
    hidden = shown(Settings().with_dsn(dsn)).database.dsn
    assert hidden == (expected or dsn.replace("s3cret", "…"))
    assert "s3" not in hidden


@pytest.mark.parametrize(
    "dsn",
    [
        "postgresql://h/db?user=u&password=s3cret",
        "postgresql:///db?password=s3cret",
        "postgresql://u:s3cret:word@h/db",
    ],
)
def test_a_password_is_not_shown_wherever_it_stands(dsn: str) -> None:
    assert "s3cret" not in shown(Settings().with_dsn(dsn)).database.dsn


@pytest.mark.parametrize(
    "dsn",
    [
        *("", "postgresql://h/db", "postgresql://u@h/db", "postgresql://u@[::1]:5432/db"),
        *("postgresql://h:5432/db", "postgresql:///db?host=/run/postgresql&port=5433"),
    ],
)
def test_a_dsn_without_password_is_shown_as_it_is(dsn: str) -> None:
    settings = Settings().with_dsn(dsn)
    assert shown(settings) == settings


def test_what_is_shown_can_be_read(file: Path) -> None:
    settings = read(file, '[database]\ndsn = "postgresql://u:s3cret@h/db"\n[pace]\nslots = 3\n')
    values = tomllib.loads(render(shown(settings)))
    assert values["database"]["dsn"] == "postgresql://u:…@h/db"
    assert values["pace"]["slots"] == 3
    assert settings.database.dsn == "postgresql://u:s3cret@h/db"


# Keys.

ONE, TWO = (write_key(name, name.encode() * 8) for name in ("ones", "twos"))


def test_keys_come_from_a_file(file: Path, tmp_path: Path) -> None:
    keys_file = tmp_path / "keys"
    keys_file.write_text(f"# ours\n{TWO}\n{ONE}\n", encoding="ascii")
    keys_file.chmod(0o600)
    ring = read(file, f'[secrets]\nkeys_file = "{keys_file}"\n').keyring()
    assert (list(ring), ring.first) == (["twos", "ones"], "twos")


def test_keys_come_from_the_environment_and_are_not_shown(file: Path) -> None:
    settings = read(file, SECRETS__KEYS=f"{ONE}\n{TWO}\n")
    assert list(settings.keyring()) == ["ones", "twos"]
    assert tomllib.loads(render(shown(settings)))["secrets"]["keys"] == "…"
    assert read(file, render(settings)) == settings
    for told in (repr(settings), render(shown(settings))):
        assert ONE.split()[1] not in told


def test_keys_come_as_a_credential_of_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert list(Settings().keyring()) == []
    (tmp_path / "aetherflow-hooks-keys").write_text(ONE, encoding="ascii")
    (tmp_path / "aetherflow-hooks-keys").chmod(0o400)
    assert list(Settings().keyring()) == ["ones"]


def test_without_any_there_are_none() -> None:
    assert Settings().keyring().first is None


@pytest.mark.parametrize(
    ("mode", "content", "why"),
    [
        (0o604, ONE, "others can read or change it: chmod 600"),
        (0o600, f"{ONE}\n{ONE}", "line 2 of the keys is not an id of its own"),
        (0o600, "schlüssel", "it is not written in ASCII"),
        (0o600, None, "it cannot be read: No such file"),
    ],
)
def test_a_file_without_good_keys_is_one_clear_line(
    file: Path, tmp_path: Path, mode: int, content: str | None, why: str
) -> None:
    keys_file = tmp_path / "keys"
    if content is not None:
        keys_file.write_text(content, encoding="utf-8")
        keys_file.chmod(mode)
    with pytest.raises(ConfigInvalid, match=f"^{keys_file}: {why}") as invalid:
        read(file, f'[secrets]\nkeys_file = "{keys_file}"\n').keyring()
    assert ONE.split()[1] not in str(invalid.value)


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o604, 0o666])
def test_keys_that_others_can_read_or_change_are_not_used(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "keys"
    file.write_text(write_key("ours", bytes(32)), "ascii")
    for right in (0o600, 0o400, 0o640):
        file.chmod(right)
        assert "ours" in load(environment={}, given={"secrets": {"keys_file": str(file)}}).keyring()
    file.chmod(mode)
    with pytest.raises(ConfigInvalid, match="others can read or change it"):
        load(environment={}, given={"secrets": {"keys_file": str(file)}}).keyring()


def test_a_place_for_keys_without_any_is_no_leave_to_store_secrets_as_they_are(
    tmp_path: Path,
) -> None:
    file = tmp_path / "keys"
    file.write_text("# to come\n", "ascii")
    file.chmod(0o600)
    for given in ({"keys_file": str(file)}, {"keys": "# to come"}):
        with pytest.raises(ConfigInvalid, match="it holds no key"):
            load(environment={}, given={"secrets": given}).keyring()


def test_problems_of_secrets_do_not_repeat_them() -> None:
    for given in (["key_1 CANARY"], {"key_1": "CANARY"}, 7):
        with pytest.raises(ConfigInvalid) as invalid:
            load(environment={}, given={"secrets": {"keys": given, "keys_file": ["CANARY"]}})
        assert "CANARY" not in str(invalid.value)
        assert "secrets.keys = …" in str(invalid.value)


def test_the_password_of_a_proxy_is_not_shown() -> None:
    proxy = "http://hooks:CANARY@127.0.0.1:3128"
    settings = load(environment={}, given={"egress": {"proxy": proxy}})
    assert "http://hooks:…@127.0.0.1:3128" in render(shown(settings))
    assert "CANARY" not in render(shown(settings)) + repr(settings)
    for bad in ("ftp://hooks:CANARY@a:1", "http://hooks:CANARY@a:x", "CANARY", "http://a/CANARY"):
        with pytest.raises(ConfigInvalid, match="a proxy is written as") as invalid:
            load(environment={}, given={"egress": {"proxy": bad}})
        assert "CANARY" not in str(invalid.value)
