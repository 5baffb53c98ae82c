"""Archive: the rows of a day, written to a file before they are dropped.

Takes    a partition that is about to go.
Hands on a file of gzip: a line of JSON for each row, its columns as Postgres writes them.
Holds    a file that is there is whole; what could not be written keeps its day.
"""

import asyncio
import gzip
import os
from pathlib import Path

from aetherflow_hooks.db import Database

BLOCKS_TOGETHER = 256  # 2 MB of a table; so no statement holds a snapshot for long
COMPRESSION = 5


class Archive:
    """Writes partitions into a folder."""

    def __init__(self, database: Database, folder: str) -> None:
        """Write into a folder, or nowhere where that is empty."""
        self._database = database
        self._folder = Path(folder) if folder else None

    async def keep(self, name: str) -> int | None:
        """Write a partition, unless it is there already; give the rows written, None: none were.

        Rows that another hand changes meanwhile may be there as they were or as they are.

        Raises:
            OSError: it cannot be written.
            DatabaseUnavailable: it cannot be read.
        """
        if self._folder is None:
            return None
        whole = self._folder / f"{name}.ndjson.gz"
        if whole.exists():
            return None
        part = whole.with_suffix(".part")
        rows = 0
        # Compressing takes longer than reading, and is not for the loop to do.
        opened = await asyncio.to_thread(gzip.open, part, "wb", COMPRESSION)
        try:
            async for lines in self._database.lines_of(name, BLOCKS_TOGETHER):
                rows += len(lines)
                await asyncio.to_thread(opened.write, "".join(lines).encode())
        finally:
            await asyncio.to_thread(opened.close)
        await asyncio.to_thread(_settle, part, whole)
        return rows


def _settle(part: Path, whole: Path) -> None:
    """Give a file its name when it is on disk; then that is on disk as well."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(whole)
    folder = os.open(whole.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
