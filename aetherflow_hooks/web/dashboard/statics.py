"""Statics: what pages ask for beside themselves, as it is in the package."""

import hashlib
from functools import cache
from importlib.resources import files

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@cache
def statics() -> dict[str, bytes]:
    """Give each such file by its name."""
    folder = files("aetherflow_hooks.web.dashboard") / "static"
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@cache
def static_path(name: str) -> str:
    """Give the address of such a file, which changes with what is in it."""
    return f"/static/{name}?{hashlib.sha256(statics()[name]).hexdigest()[:12]}"
