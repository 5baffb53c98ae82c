"""keys: the keys that endpoints' secrets are sealed with."""

import click

from aetherflow_hooks.cli.session import as_json, connected, print_rows, with_database
from aetherflow_hooks.config import Settings
from aetherflow_hooks.errors import HooksError
from aetherflow_hooks.manage.keys import new_key, seal_anew, secrets_by_key
from aetherflow_hooks.rules.sealing import Keyring


@click.group()
def keys() -> None:
    """The keys that endpoints' secrets are sealed with.

    They are lines of a file that `secrets.keys_file` names, of the systemd credential
    `aetherflow-hooks-keys`, or of AETHERFLOW_HOOKS_SECRETS__KEYS. The first one seals, all of them
    open. To replace a key, add a new one behind it, for all engines and wherever endpoints are
    added; then put it in front, run `keys rotate`, and take the old one away once `keys list`
    counts nothing for it. Engines read the file again when they meet a key that they do not have.
    """


@keys.command()
def new() -> None:
    """Print a new key: a line of the keys file, which only the engine's account may read."""
    click.echo(new_key())


@keys.command("list")
@as_json
@connected
def list_(settings: Settings, as_json: bool) -> None:
    """Count the stored secrets by the key that opens them, and say which key is missing."""
    keyring = settings.keyring()
    rows = with_database(settings, lambda db, _: secrets_by_key(db))
    counts = {row["key"]: row["secrets"] for row in rows}
    told = [
        {
            "key": key_id or "-",
            "secrets": counts.get(key_id, 0),
            "state": _state(keyring, key_id),
        }
        for key_id in dict.fromkeys([*keyring, *counts])
    ]
    print_rows(told, ["key", "secrets", "state"], as_json=as_json)


@keys.command()
@connected
def rotate(settings: Settings) -> None:
    """Seal every stored secret with the first key; it may be broken off and run again."""
    keyring = settings.keyring()
    sealed = with_database(settings, lambda db, _: seal_anew(db, keyring))
    click.echo(f"{sealed.done} secrets sealed anew with {keyring.first}")
    if sealed.unreadable:
        told = "\n".join(sealed.unreadable)
        raise HooksError(f"{len(sealed.unreadable)} stay as they are:\n{told}")


def _state(keyring: Keyring, key_id: str) -> str:
    if not key_id:
        return "not sealed"
    if key_id not in keyring:
        return "missing"
    return "seals" if key_id == keyring.first else "opens"
