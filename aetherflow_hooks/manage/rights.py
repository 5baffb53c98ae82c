"""Rights: roles that can do one thing each."""

from aetherflow_hooks.db import Database
from aetherflow_hooks.manage.audit import audited


async def make_roles(database: Database, *, row_security: bool = False) -> list[str]:
    """Make roles, to be granted to those who log in; give their names. Safe to run again.

    `…_emit` can emit and nothing else, `…_engine` does what an engine and whoever manages endpoints
    does, `…_read` sees all but secrets. With `row_security`, `…_tenant` sees the rows of the
    tenants that `aetherflow.let_read(role, tenant)` names.

    Raises:
        DatabaseUnfit: whoever is connected may not make roles, or owns none of the tables.
    """
    async with audited(database, "roles.make", "row security" if row_security else "") as bound:
        return [row["role"] for row in await bound.rows("make_roles", row_security)]
