"""Doctor: what is wrong with a database, a machine and the endpoints, and what cures it.

Each check looks at one thing and gives the faults that it has found, none where all is well. It
changes nothing, and asks for nothing that takes long.
"""

import asyncio
import resource
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import NamedTuple

from aetherflow_hooks.config import Settings
from aetherflow_hooks.db import Database, check_schema, definition_of, indexes_walked
from aetherflow_hooks.errors import (
    DatabaseUnfit,
    HooksError,
    KeyMissing,
    NotFound,
    SchemaMissing,
    SchemaTooNew,
    SchemaTooOld,
)
from aetherflow_hooks.manage.endpoints import open_endpoint
from aetherflow_hooks.manage.keys import check_keys
from aetherflow_hooks.manage.restore import seems_held
from aetherflow_hooks.manage.status import overview
from aetherflow_hooks.manage.vitals import Vitals, vitals
from aetherflow_hooks.model import Endpoint

CLOCK_SECONDS_MAX = 2.0  # receivers refuse a signature that is 300 s off
OLD_TRANSACTION_SECONDS = 300.0
DEAD_ROWS_MAX = 5_000_000  # of a table
INDEX_BYTES_MAX = 1 << 30  # from here on an index that is too large for its rows is told of
INDEX_BYTES_PER_ROW_MAX = 1_000
PARTITION_DAYS_MIN = 2
CONNECTIONS_PART_MAX = 0.9
OTHER_FILES = 64  # beside connections
ENDPOINTS_MAX = 200  # that are connected to
AT_ONCE_MAX = 20

Reach = Callable[[Endpoint], Awaitable[str | None]]  # why an endpoint is not reached; None: it is


class Fault(NamedTuple):
    """Something that is not as it should be."""

    check: str
    is_serious: bool  # events are late, lost or refused, or soon will be
    found: str
    cure: str


class Patient(NamedTuple):
    """What is looked at."""

    database: Database
    settings: Settings
    vitals: Vitals
    server: Mapping[str, str]  # how Postgres is set up
    reach: Reach


Faults = AsyncIterator[Fault]
Check = Callable[[Patient], Faults]

# What a setting of Postgres may be, best first, and what anything else does.
_SETTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "autovacuum": (("on",), "tables grow without end, and get slow"),
    "track_counts": (("on",), "autovacuum does not know what to do"),
    "fsync": (("on",), "a crash of the machine can destroy the database"),
    "full_page_writes": (("on",), "a crash of the machine can destroy the database"),
    "synchronous_commit": (
        ("on", "local", "remote_write", "remote_apply"),
        "a crash of Postgres can take back events that are committed",
    ),
    "session_replication_role": (
        ("origin",),
        "triggers do not fire, so watched tables are silent",
    ),
    "default_transaction_read_only": (("off",), "nothing can be emitted or delivered"),
}


async def diagnose(settings: Settings, *, reach: Reach) -> list[Fault]:
    """Look at everything; give the faults, serious ones first.

    `reach` connects to an endpoint and sends nothing.

    Raises:
        DatabaseUnavailable: Postgres cannot be reached.
    """
    try:
        await check_schema(settings.database)
    except (SchemaMissing, SchemaTooOld) as error:
        return [Fault("schema", True, str(error), "aetherflow-hooks migrate")]
    except SchemaTooNew as error:
        return [Fault("schema", True, str(error), "pip install --upgrade aetherflow-hooks")]
    async with Database(settings.database) as database:
        try:
            seen = await vitals(database, settings.engine.shard_lease_seconds)
            rows = await database.rows("examine_settings")
            server = {row["name"]: row["value"] for row in rows}
            patient = Patient(database, settings, seen, server, reach)
        except DatabaseUnfit as error:
            return [_unable("rights", error)]
        faults = [fault for name in CHECKS for fault in await _faults(name, patient)]
    return sorted(faults, key=lambda fault: not fault.is_serious)


async def _faults(name: str, patient: Patient) -> list[Fault]:
    faults = []
    try:
        async for fault in CHECKS[name](patient):
            faults.append(fault)  # noqa: PERF401  those before one that fails are told too
    except DatabaseUnfit as error:
        faults.append(_unable(name, error))
    except HooksError as error:
        faults.append(Fault(name, True, str(error), "see to that, and look again"))
    return faults


def _unable(name: str, error: DatabaseUnfit) -> Fault:
    cure = "use the role of the engine: see `aetherflow-hooks roles`"
    return Fault(name, True, f"it cannot be looked at: {error}", cure)


async def _rights(patient: Patient) -> Faults:
    lacking: dict[str, list[str]] = {}
    for row in await patient.database.rows("examine_rights"):
        lacking.setdefault(row["object"], []).append(row["privilege"])
    for table, privileges in lacking.items():
        yield Fault(
            "rights",
            True,
            f"the role of the DSN may not {', '.join(privileges)}: {table}",
            "`aetherflow-hooks roles` makes a role for engines; use it, or grant that by hand",
        )


async def _indexes(patient: Patient) -> Faults:
    schema = patient.settings.database.schema_name
    rows = {row["name"]: row for row in await patient.database.rows("examine_indexes")}
    for name in sorted(indexes_walked() - rows.keys()):
        cure = definition_of(name, schema)
        yield Fault("indexes", True, f"{name} is missing", cure)
    for name, row in rows.items():
        if not row["is_valid"]:
            yield Fault("indexes", True, f"{name} is not valid", f"reindex index {schema}.{name}")
        elif row["bytes"] > max(INDEX_BYTES_MAX, INDEX_BYTES_PER_ROW_MAX * row["rows"]):
            yield Fault(
                "indexes",
                False,
                f"{name} takes {row['bytes'] >> 20} MB for {row['rows']} rows",
                f"reindex index concurrently {schema}.{name}",
            )


async def _tables(patient: Patient) -> Faults:
    schema = patient.settings.database.schema_name
    for row in await patient.database.rows("examine_tables"):
        name = f"{schema}.{row['name']}"
        if row["is_unlogged"]:
            yield Fault(
                "tables",
                True,
                f"{name} is unlogged: after a crash of Postgres it is empty",
                f"alter table {name} set logged",
            )
        if not row["is_vacuumed"]:
            yield Fault(
                "tables",
                True,
                f"autovacuum is off for {name}",
                f"alter table {name} reset (autovacuum_enabled)",
            )
        elif row["dead_rows"] > max(DEAD_ROWS_MAX, row["rows"]):
            yield Fault(
                "tables",
                False,
                f"{row['dead_rows']} dead rows wait for vacuum in {name}",
                f"vacuum {name}; and see that nothing holds it up: `holders` below, if any",
            )


async def _holders(patient: Patient) -> Faults:
    for row in await patient.database.rows("examine_holders", OLD_TRANSACTION_SECONDS):
        name = row["name"]
        match row["kind"]:
            case "slot":
                found = f"the replication slot {name} ({row['detail']}) has no reader"
                cure = f"select pg_drop_replication_slot('{name}'), if nobody will come back to it"
            case "prepared":
                found = f"the prepared transaction {name} of {row['detail']} is"
                cure = f"commit prepared '{name}', or rollback prepared"
            case _:
                found = f"a transaction of process {name} ({row['detail']}) is"
                cure = (
                    f"select pg_terminate_backend({name}); set idle_in_transaction_session_timeout"
                )
        age = row["age_seconds"]
        what = f"{found} {age:.0f} s old" if age is not None else found
        yield Fault("holders", False, f"{what}: vacuum removes nothing newer", cure)


async def _server(patient: Patient) -> Faults:
    found = patient.server
    for name, (allowed, harm) in _SETTINGS.items():
        if found[name] not in allowed:
            wanted = f"{name} = {allowed[0]}"
            cure = f"set {wanted}, for the server, the database or the role that has it so"
            yield Fault("postgres", True, f"{name} is {found[name]}: {harm}", cure)
    if _is_standby(patient):
        cure = "name the primary in database.dsn, or add target_session_attrs=read-write to it"
        yield Fault("postgres", True, "it is a standby: nothing can be written there", cure)
    used, most = int(found["connections"]), int(found["max_connections"])
    if used > CONNECTIONS_PART_MAX * most:
        cure = "raise max_connections, or let applications share connections by a pooler"
        yield Fault("postgres", False, f"{used} of {most} connections are taken", cure)


def _is_standby(patient: Patient) -> bool:
    return patient.server["in_recovery"] == "true"


async def _triggers(patient: Patient) -> Faults:
    for row in await patient.database.rows("examine_triggers"):
        name, table = row["name"], row["table_name"]
        yield Fault(
            "triggers",
            True,
            f"{name} is switched off: changes of {table} are not told of",
            f"alter table {table} enable trigger {name}",
        )


async def _clock(patient: Patient) -> Faults:
    before = time.time()
    now = (await patient.database.value("clock")).timestamp()
    after = time.time()
    off_seconds = max(before - now, now - after)
    if off_seconds > CLOCK_SECONDS_MAX:
        yield Fault(
            "clock",
            off_seconds > CLOCK_SECONDS_MAX * 30,
            f"this machine and Postgres are {off_seconds:.1f} s apart",
            "run NTP on both: receivers refuse signatures that are five minutes off",
        )


async def _partitions(patient: Patient) -> Faults:
    days = patient.vitals.partitions_ahead_days
    if days < PARTITION_DAYS_MIN:
        found = f"there are partitions for {days} more days: after that, emit fails"
        cure = (
            "aetherflow-hooks migrate; and see in an engine's log why its sweep does not make them"
        )
        yield Fault("partitions", True, found, cure)


async def _pooler(patient: Patient) -> Faults:
    if _is_standby(patient):
        return  # nothing can be listened for there
    pooler = await patient.database.look_for_pooler()
    if pooler.is_there and not pooler.tells:
        yield Fault(
            "pooler",
            False,
            "a pooler between us and Postgres lets no notification through, so an idle engine "
            f"looks every {patient.settings.fanout.poll_idle_seconds:g} s",
            "name Postgres itself in database.listen_dsn; all else works as it is",
        )


async def _work(patient: Patient) -> Faults:
    seen = patient.vitals
    waits = seen.outbox_events + seen.deliveries_waiting
    if await seems_held(patient.database, guards=patient.settings.engine.restore_guard):
        cure = "`aetherflow-hooks restore show` what is due, then `restore accept`"
        yield Fault("work", True, "the database was restored, so nothing is sent", cure)
    if waits and not seen.engines:
        cure = "start one: `aetherflow-hooks run`, or start_engine() in the application"
        yield Fault("work", True, f"no engine lives, and {waits} events or deliveries wait", cure)
    if seen.backlog_full:
        cure = "see `aetherflow-hooks status` for what waits; emit.backlog_max is the limit"
        yield Fault("work", True, "so much waits that emit refuses events", cure)


async def _keys(patient: Patient) -> Faults:
    try:
        plain = await check_keys(patient.database, patient.settings.keyring())
    except KeyMissing as error:
        cure = "put the key back where secrets.keys_file or the credential names it"
        yield Fault("keys", True, str(error), cure)
        return
    if plain and patient.settings.profile == "production":
        cure = "`aetherflow-hooks keys new`, then `keys rotate`"
        yield Fault("keys", False, f"{plain} secrets are stored as they are", cure)


async def _files(patient: Patient) -> Faults:
    settings = patient.settings
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = settings.pace.slots + settings.database.connections_max + OTHER_FILES
    if limit != resource.RLIM_INFINITY and limit < needed:
        yield Fault(
            "files",
            True,
            f"a process may have {limit} files open, and an engine needs {needed}",
            "raise it: LimitNOFILE= of the unit, or `ulimit -n`; or lower pace.slots",
        )


async def _endpoints(patient: Patient) -> Faults:
    database = patient.database
    for row in (await overview(database))["needy"]:
        if row["why"] != "behind":
            found = f"{row['id']} is {row['why']} since {row['since']:%Y-%m-%d %H:%M} UTC"
            yield Fault(
                "endpoints",
                False,
                f"{found}: {row['reason']}" if row["reason"] else found,
                f"`aetherflow-hooks attempt list --endpoint {row['id']}`, and ask its owner",
            )
    listed = await database.rows("list_endpoints", None, None, None, None, None, ENDPOINTS_MAX)
    waiting = asyncio.Semaphore(AT_ONCE_MAX)

    async def reach(endpoint_id: str) -> tuple[str, str | None]:
        async with waiting:
            try:
                endpoint = await open_endpoint(database, endpoint_id, patient.settings)
            except HooksError as error:  # it was deleted just now, or a secret cannot be read
                return "", None if isinstance(error, NotFound) else str(error)
            return endpoint.url, await patient.reach(endpoint)

    ids = [row["id"] for row in listed if row["state"] == "active" and row["url"]]
    for endpoint_id, (url, why) in zip(ids, await asyncio.gather(*map(reach, ids)), strict=True):
        if why is not None:
            yield Fault(
                "endpoints",
                False,
                f"{endpoint_id} at {url} is not reached: {why}",
                f"`aetherflow-hooks endpoint test {endpoint_id}`, and ask its owner",
            )


CHECKS: dict[str, Check] = {
    "rights": _rights,
    "indexes": _indexes,
    "tables": _tables,
    "holders": _holders,
    "postgres": _server,
    "triggers": _triggers,
    "clock": _clock,
    "partitions": _partitions,
    "pooler": _pooler,
    "work": _work,
    "keys": _keys,
    "files": _files,
    "endpoints": _endpoints,
}
