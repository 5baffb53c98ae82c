"""Opening: an endpoint as an engine works with it, its secrets opened, every default filled in."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from aetherflow_hooks.errors import InputRefused, SecretUnreadable
from aetherflow_hooks.model import Endpoint, Secret
from aetherflow_hooks.rules.headers import header_lines
from aetherflow_hooks.rules.sealing import CERTIFICATE, Keyring, owner_of


class Defaults(NamedTuple):
    """What holds for endpoints that say nothing else."""

    max_in_flight: int
    timeout_seconds: float
    retry_schedule_seconds: tuple[float, ...]
    rate_per_second: float | None = None  # None: no limit


def endpoint_of(
    row: Mapping[str, Any], defaults: Defaults, *, keyring: Keyring, asked_at: float
) -> Endpoint:
    """Make an endpoint of its row, which was asked for at `asked_at` in monotonic seconds."""
    secrets, headers, certificate, unsignable = _opened(row, keyring, asked_at)
    schedule = row["retry_schedule_seconds"]
    return Endpoint(
        id=row["id"],
        tenant=row["tenant"],
        shard=row["shard"],
        version=row["version"],
        url=row["url"],
        secrets=secrets,
        headers=headers,
        certificate=certificate,
        unsignable=unsignable,
        rate_per_second=row["rate_per_second"] or defaults.rate_per_second,
        burst=row["burst"],
        max_in_flight=row["max_in_flight"] or defaults.max_in_flight,
        timeout_seconds=row["timeout_seconds"] or defaults.timeout_seconds,
        retry_schedule_seconds=(
            defaults.retry_schedule_seconds if schedule is None else tuple(schedule)
        ),
        ordering=row["ordering"],
        payload_version=row["payload_version"],
        traced=row["traced"],
        is_failing=row["is_failing"],
        has_answered=row["has_answered"],
    )


def _opened(
    row: Mapping[str, Any], keyring: Keyring, asked_at: float
) -> tuple[tuple[Secret, ...], str, str, str]:
    """Open an endpoint's secrets; none is used where one cannot be, and the last tells why."""
    stored = zip(row["secrets"] or (), row["secrets_end_in_seconds"] or (), strict=True)
    named = zip(row["header_names"] or (), row["header_values"] or (), strict=True)
    try:
        secrets = tuple(
            Secret(
                value=keyring.open(secret, row["id"]),
                until=None if ends is None else asked_at + ends,
            )
            for secret, ends in stored
        )
        headers = {
            name: keyring.open(value, owner_of(row["id"], header=name)) for name, value in named
        }
        certificate = ""
        if row["certificate"] is not None:
            owner = owner_of(row["id"], header=CERTIFICATE)
            certificate = keyring.open(row["certificate"], owner)
        why = "" if secrets else "it has no secret in force"
        return secrets, header_lines(headers), certificate, why
    except (SecretUnreadable, InputRefused) as error:
        return (), "", "", str(error)
