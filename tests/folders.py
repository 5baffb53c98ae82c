"""Where tests keep what is large."""

import os
import shutil
from pathlib import Path


def roomy_folder() -> str:
    """Name a folder that every user can reach, in memory where there is enough of it."""
    shm = Path("/dev/shm")
    if os.access(shm, os.W_OK) and shutil.disk_usage(shm).free > 1 << 30:
        return str(shm)
    return "/tmp"
