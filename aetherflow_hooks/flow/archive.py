"""Archive: the rows of a day, written to a file before they are dropped.

Takes    a partition that is about to go.
Hands on a file of gzip: a line of JSON for each row, its columns as Postgres writes them.
Holds    a file that is there is whole, and is never written over; what could not be written keeps
         its day.
"""

import asyncio
import gzip
import os
import secrets
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from aetherflow_hooks.db import Database, Row

# Of a table as it is stored; as JSON it may be several times that.
BYTES_TOGETHER = 2 << 20
COMPRESSION = 5


class Archive:
    """Writes partitions into a folder."""

    def __init__(self, database: Database, folder: str) -> None:
        """Write into a folder, or nowhere where that is empty."""
        self._database = database
        self._folder = Path(folder) if folder else None
        self._kept: set[str] = set()  # of those that are there still

    async def keep(self, name: str) -> int | None:
        """Write a partition, unless this has done so; give the rows written, None: none were.

        A process that ends between this and the drop leaves it to the next, which writes it again
        beside. A row that another hand changes meanwhile may be there twice, or not at all.

        Raises:
            OSError: it cannot be written.
            DatabaseUnavailable, DatabaseUnfit: it cannot be read.
        """
        if self._folder is None or name in self._kept:
            return None
        measured = await self._database.rows("measure_partition", name)
        if not measured:
            return None  # another engine has dropped it just now
        (table,) = measured
        blocks = table["blocks"]
        together = max(1, BYTES_TOGETHER * blocks // max(1, table["bytes"]))
        whole = f"{table['database']}.{table['schema']}.{name}"
        part = self._folder / f".{whole}.{secrets.token_hex(8)}.part"
        rows = 0
        try:
            file = await asyncio.to_thread(_begin, part, f".{whole}.*.part")
            try:
                for first in range(0, blocks, together):
                    lines = await self._database.rows(
                        "read_partition", name, first, first + together
                    )
                    rows += len(lines)
                    # Compressing takes longer than reading, and is not for the loop to do.
                    await asyncio.to_thread(file.write, lines)
            finally:
                await asyncio.to_thread(file.close)
            await asyncio.to_thread(_settle, part, self._folder, whole)
        finally:
            part.unlink(missing_ok=True)
        self._kept.add(name)
        return rows


class _Part:
    """A file that is being written, which nobody else reads."""

    def __init__(self, path: Path) -> None:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._raw = os.fdopen(number, "wb")
        self._file = gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=COMPRESSION)

    def write(self, lines: Sequence[Row]) -> None:
        self._file.write("".join(row[0] for row in lines).encode())

    def close(self) -> None:
        self._file.close()
        self._raw.flush()
        os.fsync(self._raw.fileno())
        self._raw.close()


def _begin(path: Path, others: str) -> _Part:
    """Begin a file, without those that a process has left which was killed."""
    for left in path.parent.glob(others):
        left.unlink(missing_ok=True)
    return _Part(path)


def _settle(part: Path, folder: Path, name: str) -> None:
    """Give a file that is on disk its name, the first that is free, and see to that as well."""
    for number in count(1):
        mark = "" if number == 1 else f".{number}"
        try:
            (folder / f"{name}{mark}.ndjson.gz").hardlink_to(part)
            break
        except FileExistsError:
            continue
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
