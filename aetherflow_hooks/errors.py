"""Every error that this package raises on purpose.

HooksError
├── ConfigInvalid            settings that cannot be used, all of them at once
├── InputRefused             a value from outside that breaks a rule: a URL, a secret, a type
├── SecretUnreadable         a stored secret that none of the keys opens
├── KeyMissing               secrets are sealed with keys that are not here
├── NotFound                 no such endpoint, event or delivery
├── AlreadyThere             a row that is to be made exists
├── NotNow                   as things stand, what is asked for cannot be done
├── DatabaseUnavailable      Postgres cannot be reached now; the engine waits and tries again
│   └── TookTooLong          a statement was cancelled, mostly since it took too long
├── SchemaMissing            the database was never migrated
├── SchemaTooOld             the database is older than this program
├── SchemaTooNew             the database is newer than this program can work on
├── DatabaseUnfit            the server can never serve us: too old, or not UTF-8
├── EmbeddedPostgresError    the private Postgres cannot be used here
├── BadSignature             a request that was not signed with the expected secret
└── NotAWebhook              a request that was, and has nothing that can be read
"""

from collections.abc import Mapping, Sequence


class HooksError(Exception):
    """Base of all errors raised by AetherFlow Hooks."""


class ConfigInvalid(HooksError):
    """Settings that cannot be used. Each problem names its path and what would be right."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        """Keep `problems`, one line each, found in `source` (a file's name or "settings")."""
        self.source = source
        self.problems = tuple(problems)
        if len(problems) == 1:
            super().__init__(f"{source}: {problems[0]}")
        else:
            head = f"{source}: {len(problems)} problems"
            super().__init__("\n".join([head, *(f"  {line}" for line in problems)]))


class InputRefused(HooksError):
    """A value from outside breaks a rule. The message says which value and which rule."""


class SecretUnreadable(HooksError):
    """A stored secret cannot be opened, so nothing can be signed with it."""

    def __init__(self, owner: str, why: str) -> None:
        """Name the endpoint that owns it, and say why."""
        super().__init__(f"the secret of {owner} cannot be read: {why}")


class KeyMissing(HooksError):
    """Stored secrets are sealed with keys that are not here."""

    def __init__(self, secrets_by_key: Mapping[str, int]) -> None:
        """Tell how many secrets each of the missing keys seals."""
        told = ", ".join(f"{key} ({count} secrets)" for key, count in secrets_by_key.items())
        super().__init__(
            f"secrets are sealed with keys that are not here, or not as they were: {told}. Add "
            "them to the keys of `secrets.keys_file`; `aetherflow-hooks keys list` shows which are "
            "needed"
        )


class NotFound(HooksError):
    """There is no such thing."""

    def __init__(self, kind: str, name: str) -> None:
        """Say that no `kind` ("endpoint") is called `name`."""
        super().__init__(f"there is no {kind} {name}")


class AlreadyThere(HooksError):
    """A row that is to be made exists; nothing was changed."""


class NotNow(HooksError):
    """As things stand, what is asked for cannot be done. The message says why."""


class DatabaseUnavailable(HooksError):
    """Postgres cannot be reached or does not answer; trying again later can help."""


class TookTooLong(DatabaseUnavailable):
    """A statement was cancelled, mostly since it took longer than it may."""


class SchemaMissing(HooksError):
    """The database was never migrated."""

    def __init__(self, schema: str) -> None:
        """Name the `schema` that is not there."""
        super().__init__(
            f'the database has no AetherFlow Hooks in schema "{schema}": '
            "run `aetherflow-hooks migrate`"
        )


class SchemaTooOld(HooksError):
    """The database is older than this program."""

    def __init__(self, found: int, needed: int) -> None:
        """Tell the migration `found` and the one `needed`."""
        super().__init__(
            f"the database is at migration {found}, this program needs {needed}: "
            "run `aetherflow-hooks migrate`"
        )


class SchemaTooNew(HooksError):
    """The database is newer than this program can work on."""

    def __init__(self, found: int, known: int) -> None:
        """Tell the migration `found` and the last one `known` here."""
        super().__init__(
            f"the database is at migration {found}, this program knows only {known}: "
            "install a newer aetherflow-hooks"
        )


class DatabaseUnfit(HooksError):
    """The server cannot serve AetherFlow Hooks, however often it is asked."""


class EmbeddedPostgresError(HooksError):
    """The private Postgres cannot be used here; the message says what to do."""


class BadSignature(HooksError):
    """A request whose signature does not fit its body, its secret or the time."""


class NotAWebhook(HooksError):
    """A request that was signed with the expected secret, and whose body is no webhook."""
