"""Every setting, once: its type, default, unit, range and a sentence.

Settings come from a TOML file, and each can be overridden by an environment variable named
AETHERFLOW_HOOKS_<SECTION>__<NAME>. `config.example.toml` is made from this file by `render()`.
"""

import copy
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import annotated_types
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.fields import FieldInfo

from aetherflow_hooks.errors import ConfigInvalid, InputRefused
from aetherflow_hooks.rules.addresses import LOOPBACK, Egress, Net, parse_entry, parse_net
from aetherflow_hooks.rules.opening import Defaults
from aetherflow_hooks.rules.proxy import Proxy, parse_past, parse_proxy
from aetherflow_hooks.rules.sealing import Keyring, parse_keys

ENVIRONMENT_PREFIX = "AETHERFLOW_HOOKS_"
GIVEN_TO_HOSTS = "DATABASE_URL"  # where hosting platforms put the DSN
HIDDEN = "…"
MAY_BE_SECRET = (
    "database.dsn",
    "database.listen_dsn",
    "egress.proxy",
    "secrets.",
)  # whatever stands there is not repeated
RELOADABLE = (
    *("pace.max_in_flight", "pace.rate_per_second", "post.timeout_seconds"),
    *("retry.schedule_seconds", "retry.jitter", "retry.retry_after_max_seconds"),
    *("log.level", "log.form", "log.delivered_every"),
)
KEYS_CREDENTIAL = "aetherflow-hooks-keys"  # as systemd is to name them
DSN_CREDENTIAL = "aetherflow-hooks-dsn"


class Section(BaseModel):
    """A table of the file. Unknown names are refused, since a typo is never what was meant."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DatabaseSettings(Section):
    """Which Postgres, and how it is spoken to."""

    dsn: str = Field("", description='Where Postgres is: "postgresql://user@host/name".')
    listen_dsn: str = Field(
        "",
        description="Postgres itself, where `dsn` is a pooler: no notification passes through one.",
    )
    schema_name: str = Field(
        "aetherflow",
        pattern=r"^[a-z_][a-z0-9_]{0,55}$",
        description="The schema that holds everything of ours.",
    )
    shards: int = Field(
        16,
        ge=1,
        le=1024,
        description="Parts that engines divide among themselves. Fixed by the first `migrate`.",
    )
    migrate_at_start: bool = Field(
        False, description="Create or upgrade the schema whenever an engine starts."
    )
    connections_max: int = Field(
        7, ge=4, le=100, description="Connections of one engine, beside the one that listens."
    )
    connect_timeout_seconds: float = Field(
        5.0, gt=0, le=60, description="How long a new connection may take."
    )
    command_timeout_seconds: float = Field(
        10.0, gt=0, le=600, description="How long one statement may take before it is given up."
    )
    retry_seconds_max: float = Field(
        5.0, gt=0, le=60, description="The longest pause between tries while Postgres is away."
    )

    @field_validator("schema_name")
    @classmethod
    def _not_postgres_own(cls, name: str) -> str:
        if name.startswith("pg_"):
            raise ValueError("names that start with pg_ belong to Postgres itself")
        return name


class EmitSettings(Section):
    """Events on their way in."""

    data_max_bytes: int = Field(
        1_048_576, ge=8_192, le=16_777_216, description="The largest `data` that `emit` takes."
    )
    backlog_max: int = Field(
        0,
        ge=0,
        le=100_000_000,
        description="Refuse new events while more than this waits to be delivered; 0: never.",
    )


class FanoutSettings(Section):
    """One delivery per event and matching endpoint."""

    batch_max: int = Field(500, ge=1, le=10_000, description="Events per statement.")
    endpoints_max: int = Field(
        2_000, ge=1, le=100_000, description="Endpoints that one event reaches in one statement."
    )
    poll_seconds: float = Field(
        0.005, ge=0.001, le=10, description="How often a busy engine looks for new events."
    )
    sleep_after_seconds: float = Field(
        0.2, ge=0, le=60, description="After so long without events, `emit` wakes the engine."
    )
    poll_idle_seconds: float = Field(
        1.0, ge=0.01, le=60, description="How often a sleeping engine looks all the same."
    )


class LeaseSettings(Section):
    """Due deliveries, taken for a limited time."""

    batch_max: int = Field(500, ge=1, le=5_000, description="Deliveries per statement.")
    margin_seconds: float = Field(
        20.0,
        ge=5,
        le=3600,
        description="How much longer than its endpoint's timeout a lease lasts.",
    )
    bodies_max_bytes: int = Field(
        8_388_608,
        ge=1_048_576,
        description="Memory for bodies that are kept for the next endpoint or attempt.",
    )


class PaceSettings(Section):
    """Who goes next."""

    slots: int = Field(256, ge=1, le=10_000, description="POSTs under way at once, in all.")
    max_in_flight: int = Field(
        20, ge=1, le=10_000, description="POSTs under way at once to one endpoint, by default."
    )
    rate_per_second: float = Field(
        0.0,
        ge=0,
        le=100_000,
        description="POSTs per second to one endpoint, by default; 0: no limit.",
    )
    discover_seconds: float = Field(
        5.0, ge=0.1, le=300, description="How often all due work is looked for, as a safety net."
    )


class PostSettings(Section):
    """One signed POST."""

    timeout_seconds: float = Field(
        10.0,
        ge=0.1,
        le=300,
        description="The whole attempt, by default: resolve, connect, TLS, send, read.",
    )
    response_read_bytes: int = Field(
        65_536, ge=0, le=16_777_216, description="How much of an answer is read; then we hang up."
    )
    keep_alive_seconds: float = Field(
        15.0, ge=0, le=300, description="How long an idle connection is kept for the next POST."
    )
    connection_seconds_max: float = Field(
        300.0,
        ge=1,
        le=86_400,
        description="How long a connection is used; the next one resolves and checks anew.",
    )
    direct: bool = Field(
        True,
        description="Write straight to aiohttp's connections; false: by its session, slower.",
    )


class RetrySettings(Section):
    """What follows a failed attempt."""

    schedule_seconds: tuple[Annotated[float, Field(ge=0, le=2_592_000)], ...] = Field(
        (10.0, 60.0, 600.0),
        max_length=50,
        description="The pause before each retry, by default; their number is the retries'.",
    )
    jitter: float = Field(
        0.2, ge=0, le=1, description="Each pause is moved by up to this part of itself, at random."
    )
    retry_after_max_seconds: float = Field(
        3600.0, ge=0, le=86_400, description="The longest `Retry-After` that is obeyed."
    )


class RecordSettings(Section):
    """Results, written in batches."""

    batch_max: int = Field(500, ge=1, le=5_000, description="Results per statement.")
    waiting_max: int = Field(
        3_000, ge=1, le=100_000, description="Results not yet written at which sending stops."
    )
    response_kept_bytes: int = Field(
        1_024, ge=0, le=65_536, description="How much of a failing answer is kept with its attempt."
    )


class SweepSettings(Section):
    """What is past its time."""

    every_seconds: float = Field(60.0, ge=0.1, le=3600, description="How often it is looked for.")
    events_days: int = Field(30, ge=1, le=3650, description="How long events are kept.")
    attempts_days: int = Field(30, ge=1, le=3650, description="How long attempts are kept.")
    archive_folder: str = Field(
        "", description="Where a day's rows are written before they are dropped; empty: nowhere."
    )
    partitions_ahead_days: int = Field(
        7, ge=2, le=60, description="How far ahead the days' partitions are made."
    )
    batch_max: int = Field(1_000, ge=1, le=100_000, description="Rows per statement.")


class HealthSettings(Section):
    """Endpoints that fail and do nothing else."""

    warn_after_seconds: float = Field(
        86_400.0, ge=0, le=31_536_000, description="How long until operators are told of one."
    )
    disable_after_seconds: float = Field(
        432_000.0, ge=0, le=31_536_000, description="How long until it is disabled; 0: never."
    )


class EngineSettings(Section):
    """The process."""

    restore_guard: bool = Field(
        True, description="Send nothing from a database that was restored until that is accepted."
    )

    grace_seconds: float = Field(
        15.0, ge=0, le=600, description="How long a stop waits for POSTs under way."
    )
    shard_lease_seconds: float = Field(
        10.0, ge=2, le=300, description="A silent engine loses its shards after this."
    )
    stuck_after_seconds: float = Field(
        60.0,
        ge=0.2,
        le=3600,
        description="Due work that nobody takes for so long is a fault that /readyz tells.",
    )
    renew_seconds: float = Field(
        2.0, ge=0.1, le=60, description="How often an engine says that it lives."
    )


def _reads(parse: Callable[[str], object]) -> AfterValidator:
    def check(text: str) -> str:
        try:
            parse(text)
        except InputRefused as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(check)


class EgressSettings(Section):
    """Where POSTs may go."""

    allow: tuple[Annotated[str, _reads(parse_entry)], ...] = Field(
        (),
        description='Let through though not public: "10.1.0.0/16:8000-8100", "localhost".',
    )
    deny: tuple[Annotated[str, _reads(parse_net)], ...] = Field(
        (), description="Networks never connected to, whatever is allowed, with ports likewise."
    )
    proxy: Annotated[str, _reads(lambda text: text and parse_proxy(text))] = Field(
        "",
        repr=False,
        description='The forward proxy that POSTs go through: "http://user:password@host:3128".',
    )
    no_proxy: tuple[Annotated[str, _reads(parse_past)], ...] = Field(
        (), description='What they reach without it: "example.com", ".example.com", "10.0.0.0/8".'
    )


class SecretsSettings(Section):
    """The keys that endpoints' secrets are sealed with; without any they are stored as they are."""

    keys_file: str = Field(
        "", description="A file of keys, a line for each: see `aetherflow-hooks keys`."
    )
    keys: str = Field(
        "", repr=False, description="The lines themselves, where they come from the environment."
    )


def _is_address(text: str) -> str:
    if text != "localhost":
        ip_address(text)
    return text


class WebSettings(Section):
    """The HTTP server of an engine: API, and whether it is well."""

    host: Annotated[str, AfterValidator(_is_address)] = Field(
        "127.0.0.1", description="The address that it listens at."
    )
    port: int = Field(0, ge=0, le=65_535, description="The port; 0: there is no server.")
    hosts: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9.:\[\]-]{1,255}$")], ...] = Field(
        (), description='Names it goes by beside its address: "hooks.example.com".'
    )
    certificate_file: str = Field("", description="A PEM of certificates; empty: no TLS here.")
    key_file: str = Field("", description="Its private key, where that is in another file.")
    behind_proxy: bool = Field(
        False,
        description="Listen without TLS beyond this machine, for a proxy that speaks it.",
    )
    embed_origins: tuple[
        Annotated[str, Field(pattern=r"^https?://[A-Za-z0-9.:\[\]-]{1,255}$")], ...
    ] = Field((), description='Whose pages may show a link in a frame: "https://app.example.com".')
    connections_max: int = Field(
        4,
        ge=1,
        le=100,
        description="Its connections to Postgres, beside the engine's and one to know tokens by.",
    )


class MetricsSettings(Section):
    """What Prometheus is told at /metrics."""

    without_token: bool = Field(
        False, description="Tell whoever asks; else it takes a token that reads, of no tenant."
    )
    endpoints_max: int = Field(
        100,
        ge=0,
        le=10_000,
        description="Endpoints that have series of their own; the others share one.",
    )


class TracesSettings(Section):
    """What OpenTelemetry is told."""

    enabled: bool = Field(
        False, description="Make a span of each attempt; it takes the extra `otel`."
    )


class LogSettings(Section):
    """What the process writes to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least that is written; at info there is a line per attempt."
    )
    form: Literal["auto", "json", "text"] = Field(
        "auto", description="Lines for machines or for eyes; auto: text on a terminal."
    )
    delivered_every: int = Field(
        1,
        ge=0,
        le=1_000_000,
        description="Of attempts that deliver, one in so many has its line; 0: none has.",
    )


class Settings(Section):
    """All of them."""

    profile: Literal["production", "development"] = Field(
        "production",
        description="production: https to public addresses. development: http and loopback too.",
    )
    database: DatabaseSettings = DatabaseSettings()
    emit: EmitSettings = EmitSettings()
    fanout: FanoutSettings = FanoutSettings()
    lease: LeaseSettings = LeaseSettings()
    pace: PaceSettings = PaceSettings()
    post: PostSettings = PostSettings()
    retry: RetrySettings = RetrySettings()
    record: RecordSettings = RecordSettings()
    health: HealthSettings = HealthSettings()
    sweep: SweepSettings = SweepSettings()
    engine: EngineSettings = EngineSettings()
    egress: EgressSettings = EgressSettings()
    secrets: SecretsSettings = SecretsSettings()
    web: WebSettings = WebSettings()
    metrics: MetricsSettings = MetricsSettings()
    traces: TracesSettings = TracesSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _know_each_other(self) -> Self:
        problems = []
        if (
            self.web.port
            and not (self.web.certificate_file or self.web.behind_proxy)
            and not (self.web.host == "localhost" or ip_address(self.web.host).is_loopback)
        ):
            problems.append(
                f"web.host = {self.web.host} is reached from other machines, and tokens would go "
                "there in the clear: set web.certificate_file, or web.behind_proxy where a proxy "
                "speaks TLS"
            )
        if self.engine.renew_seconds * 3 > self.engine.shard_lease_seconds:
            problems.append(
                f"engine.renew_seconds = {self.engine.renew_seconds} must be at most a third of "
                f"engine.shard_lease_seconds (= {self.engine.shard_lease_seconds}): "
                "a late renewal must not cost the shards"
            )
        if self.database.command_timeout_seconds > self.lease.margin_seconds:
            problems.append(
                f"lease.margin_seconds = {self.lease.margin_seconds} must be at least "
                f"database.command_timeout_seconds (= {self.database.command_timeout_seconds}): "
                "a lease must outlive the writing of its result"
            )
        if self.record.response_kept_bytes > self.post.response_read_bytes:
            problems.append(
                f"record.response_kept_bytes = {self.record.response_kept_bytes} must be at most "
                f"post.response_read_bytes (= {self.post.response_read_bytes}): "
                "only what was read can be kept"
            )
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def egress_rules(self) -> Egress:
        """Say where POSTs may go, by the profile and by `egress`."""
        entries = [parse_entry(text) for text in self.egress.allow]
        if self.profile == "development":
            entries += [*map(Net, LOOPBACK), "localhost", ".localhost"]
        return Egress(
            https_only=self.profile == "production",
            allowed=tuple(entry for entry in entries if isinstance(entry, Net)),
            denied=tuple(map(parse_net, self.egress.deny)),
            names=tuple(entry for entry in entries if isinstance(entry, str)),
        )

    def proxy(self) -> Proxy | None:
        """Give the proxy that POSTs go through, if there is one."""
        return parse_proxy(self.egress.proxy, self.egress.no_proxy) if self.egress.proxy else None

    def endpoint_defaults(self) -> Defaults:
        """Give what holds for endpoints that say nothing else."""
        return Defaults(
            self.pace.max_in_flight,
            self.post.timeout_seconds,
            tuple(self.retry.schedule_seconds),
            self.pace.rate_per_second or None,
        )

    def keyring(self) -> Keyring:
        """Read the keys: of `secrets`, or else of the systemd credential that bears them.

        Raises:
            ConfigInvalid: they cannot be read, others can read or change them, a line is no key, or
            there is none in the place that is named.
        """
        source, text = "secrets.keys", self.secrets.keys
        credential = _credential(KEYS_CREDENTIAL, os.environ)
        if not text and (self.secrets.keys_file or credential):
            source = self.secrets.keys_file or str(credential)
            text = _private(Path(source))
        try:
            keys = parse_keys(text)
        except InputRefused as error:
            raise ConfigInvalid(source, [str(error)]) from None
        if not keys and (text or self.secrets.keys_file):
            # Who names a place for keys does not want secrets to be stored as they are.
            raise ConfigInvalid(source, ["it holds no key: `aetherflow-hooks keys new` makes one"])
        return Keyring(keys)

    def differing(self, others: "Settings") -> list[str]:
        """Name the settings that differ from others', such as pace.slots."""
        return [
            f"{section}.{name}"
            for section, _, mine in _fields(self)
            if isinstance(mine, Section)
            for name, _, value in _fields(mine)
            if value != getattr(getattr(others, section), name)
        ] + ["profile"] * (self.profile != others.profile)

    def with_reloadable(self, others: "Settings") -> Self:
        """Give these settings with those of others that can change while an engine runs."""
        sections: dict[str, Section] = {}
        for path in RELOADABLE:
            section, _, name = path.partition(".")
            mine = sections.get(section, getattr(self, section))
            value = getattr(getattr(others, section), name)
            sections[section] = mine.model_copy(update={name: value})
        return self.model_copy(update=sections)

    def completing(self, others: "Settings") -> "Settings":
        """Give others' settings, with the Postgres of these where those name none."""
        return others if others.database.dsn else others.with_dsn(self.database.dsn)

    def with_dsn(self, dsn: str) -> Self:
        """Give these settings another Postgres."""
        return self.model_copy(update={"database": self.database.model_copy(update={"dsn": dsn})})


def load(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    given: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings: `given` before the environment before the file before the defaults.

    `environment` is the process's own unless given; `given` is shaped like the file. The DSN of a
    file comes before that of the environment; where nothing names one, a systemd credential is
    asked, and then DATABASE_URL.

    Raises:
        ConfigInvalid: with every problem of the file and the environment at once.
    """
    environment = os.environ if environment is None else environment
    source = str(file) if file else "settings"
    values = _read(file) if file else {}
    problems = _merge_environment(values, environment)
    for section, names in (given or {}).items():
        before = values.get(section, {})
        if not isinstance(names, dict):
            values[section] = names
        elif isinstance(before, dict):
            values[section] = {**before, **names}
    problems += _problems(values)
    if problems:
        raise ConfigInvalid(source, problems)
    settings = Settings.model_validate(values)
    if settings.database.dsn:
        return settings
    credential = _credential(DSN_CREDENTIAL, environment)
    if credential:
        return settings.with_dsn(_private(credential).strip())
    return settings.with_dsn(environment.get(GIVEN_TO_HOSTS, ""))


def render(settings: Settings, *, comments: bool = True) -> str:
    """Write settings as TOML, with what each one means where `comments` are wanted."""
    lines = []
    if comments:
        lines = [
            "# Every setting of AetherFlow Hooks with its default. A file needs only what differs.",
            f"# Any of them can come from the environment: {ENVIRONMENT_PREFIX}<SECTION>__<NAME>,",
            f"# {ENVIRONMENT_PREFIX}PACE__SLOTS=64; {ENVIRONMENT_PREFIX}PROFILE has no section.",
            "",
        ]
    for name, field, value in _fields(settings):
        if isinstance(value, Section):
            lines += ["", f"[{name}]"]
            if comments:
                lines[-1] += f"  # {_first_line(value)}"
            for inner_name, inner_field, inner_value in _fields(value):
                lines += _setting(inner_name, inner_field, inner_value, comments=comments)
        else:
            lines += _setting(name, field, value, comments=comments)
    return "\n".join(lines) + "\n"


def shown(settings: Settings) -> Settings:
    """Hide what nobody may read over a shoulder: passwords inside URLs, and keys."""
    database = settings.database
    dsns = {"dsn": _hidden(database.dsn), "listen_dsn": _hidden(database.listen_dsn)}
    keys = HIDDEN if settings.secrets.keys else ""
    proxy = _without_password(settings.egress.proxy)
    return settings.model_copy(
        update={
            "database": database.model_copy(update=dsns),
            "secrets": settings.secrets.model_copy(update={"keys": keys}),
            "egress": settings.egress.model_copy(update={"proxy": proxy}),
        }
    )


def _hidden(dsn: str) -> str:
    """Give a DSN without its password, wherever that stands."""
    address, mark, query = dsn.partition("?")
    query = re.sub(r"(?<![^&])(password=)[^&]*", rf"\1{HIDDEN}", query)
    return f"{_without_password(address)}{mark}{query}"


def _without_password(url: str) -> str:
    user, at, host = url.rpartition("@")
    scheme, slashes, user = user.rpartition("//")
    name, colon, _ = user.partition(":")
    return f"{scheme}{slashes}{name}:{HIDDEN}@{host}" if at and colon else url


def _credential(name: str, environment: Mapping[str, str]) -> Path | None:
    """Find what systemd hands over; None: it does not."""
    folder = environment.get("CREDENTIALS_DIRECTORY")
    return file if folder and (file := Path(folder, name)).is_file() else None


def _private(file: Path) -> str:
    """Read a file that holds a secret."""
    try:
        with file.open(encoding="ascii") as opened:
            if os.fstat(opened.fileno()).st_mode & (stat.S_IWGRP | stat.S_IRWXO):
                raise ConfigInvalid(str(file), ["others can read or change it: chmod 600"])
            return opened.read()
    except OSError as error:
        raise ConfigInvalid(str(file), [f"it cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigInvalid(str(file), ["it is not written in ASCII"]) from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigInvalid(str(file), [f"it cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigInvalid(str(file), [f"it is not TOML: {error}"]) from None


def _merge_environment(values: dict[str, Any], environment: Mapping[str, str]) -> list[str]:
    """Put the environment's settings over the file's; tell of names that are no setting."""
    problems = []
    for variable in sorted(environment):
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        path = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        field = _field_at(path)
        if field is None:
            problems.append(f"{variable} is no setting (`aetherflow-hooks config show` lists them)")
            continue
        text = environment[variable]
        value: Any = text
        if "tuple" in str(field.annotation):
            value = [item.strip() for item in text.split(",") if item.strip()]
        table = values
        for part in path[:-1]:
            table = table.setdefault(part, {})
        if path == ["database", "dsn"] and isinstance(table, dict) and table.get("dsn"):
            continue  # which Postgres: there the file comes first
        if isinstance(table, dict):  # where it is none, that is told as a problem of the file
            table[path[-1]] = value
    return problems


def _field_at(path: list[str]) -> FieldInfo | None:
    model: type[BaseModel] = Settings
    for part in path[:-1]:
        field = model.model_fields.get(part)
        if field is None or not isinstance(field.default, Section):
            return None
        model = type(field.default)
    field = model.model_fields.get(path[-1])
    return None if field is None or isinstance(field.default, Section) else field


def _problems(values: dict[str, Any]) -> list[str]:
    """Tell every problem: of single settings first, then of those that do not fit each other.

    pydantic compares settings only where each is right by itself, so those that are not are left
    out for a second look.
    """
    told: list[str] = []
    values = copy.deepcopy(values)
    while True:
        try:
            Settings.model_validate(values)
        except ValidationError as error:
            told += _told(error)
            wrong = [problem["loc"] for problem in error.errors() if problem["loc"]]
            if not wrong:
                return told
            for path in wrong:
                _leave_out(values, path)
        else:
            return told


def _leave_out(values: dict[str, Any], path: tuple[int | str, ...]) -> None:
    for length in range(len(path), 0, -1):
        table: Any = values
        for part in path[: length - 1]:
            table = table.get(part) if isinstance(table, dict) else None
        if isinstance(table, dict) and path[length - 1] in table:
            del table[path[length - 1]]
            return


def _told(error: ValidationError) -> Iterator[str]:
    for problem in error.errors():
        path = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            yield f"{path} is no setting (`aetherflow-hooks config show` lists them)"
        elif problem["type"] == "model_type":
            yield f"{path} is a table of settings, and not one setting"
        elif path == "":
            yield from message.splitlines()
        else:
            hidden = path.startswith(MAY_BE_SECRET)
            value = HIDDEN if hidden else json.dumps(problem["input"], default=str)
            yield f"{path} = {value}: {message[:1].lower()}{message[1:]}"


def _fields(section: Section) -> Iterator[tuple[str, FieldInfo, Any]]:
    for name, field in type(section).model_fields.items():
        yield name, field, getattr(section, name)


def _setting(name: str, field: FieldInfo, value: Any, *, comments: bool) -> list[str]:
    line = f"{name} = {json.dumps(value, ensure_ascii=False)}"
    if not comments:
        return [line]
    bounds = _range(field)
    return [f"# {field.description}{f' {bounds}.' if bounds else ''}", line]


def _range(field: FieldInfo) -> str:
    low = high = ""
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            low = f"{bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            low = f"more than {bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            high = f"{bound.le}"
    if low and high:
        return f"{low} to {high}".capitalize()
    return f"{low} or more" if low else ""


def _first_line(section: Section) -> str:
    return (type(section).__doc__ or "").splitlines()[0]
