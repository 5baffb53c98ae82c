"""Report: what was measured as tables for people, or as JSON for programs."""

from typing import Any

import orjson
import tabulate

from aetherflow_hooks.dev.bench.figures import Leg

HEADS = {
    "per_second": "a second",
    "per_second_min": "least",
    "per_second_max": "most",
    "cpu_us": "CPU µs",
    "postgres_cpu_us": "Postgres µs",
    "statements_per_1000": "statements /1,000",
    "wal_bytes_per_1000": "WAL KB /1,000",
    "connections_max": "connections",
    "memory_max_mib": "MiB",
}
AS_KILO = {"wal_bytes_per_1000"}


def as_text(measured: dict[str, Any]) -> str:
    """Write tables; costs are per delivery unless their head says otherwise."""
    machine = measured["machine"]
    postgres = machine["postgres"]
    parts = [
        (
            f"{machine['cores']} cores ({machine['processor']}), {machine['system']}, "
            f"Python {machine['python']}, Postgres {postgres['version']} ({postgres['server']}, "
            f"fsync {postgres['fsync']}, synchronous_commit {postgres['synchronous_commit']}), "
            f"receiver {machine['receiver']}"
        ),
        ", ".join(f"{name} {number}" for name, number in machine["versions"].items()),
    ]
    parts += [_leg(leg) for leg in measured["legs"]]
    return "\n\n".join(parts)


def as_json(measured: dict[str, Any]) -> str:
    """Write everything; `legs` is a list of {name, title, rows, notes, series}."""
    return orjson.dumps(measured, option=orjson.OPT_INDENT_2).decode()


def _leg(leg: Leg) -> str:
    rows = [{_head(name): _cell(name, value) for name, value in row.items()} for row in leg.rows]
    rows = _without_empty(rows)
    table = tabulate.tabulate(rows, headers="keys", disable_numparse=True, stralign="right")
    return "\n".join([leg.title, "", table, "", *leg.notes])


def _without_empty(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    used = {head for row in rows for head, cell in row.items() if cell}
    return [{head: cell for head, cell in row.items() if head in used} for row in rows]


def _head(name: str) -> str:
    return HEADS.get(name) or name.replace("_ms", " ms").replace("_", " ")


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in AS_KILO:
        value /= 1000
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"  # noqa: PLR2004  three digits
