"""Proxy: the way out that an operator names, and what goes past it."""

import base64
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.addresses import Net, is_address, parse_net

DEFAULT_PORTS = {"http": 80, "https": 443}


class Proxy(NamedTuple):
    """A forward proxy, and the hosts that are reached without it."""

    url: str  # without a user
    host: str
    port: int
    authorization: str = ""  # the value of Proxy-Authorization; nothing where it asks for none
    past: tuple[Net | str, ...] = ()

    def serves(self, host: str, port: int) -> bool:
        """Tell whether a host, as it stands in a URL, is reached by this proxy."""
        name = host.strip("[]")
        address = is_address(name)
        for entry in self.past:
            if isinstance(entry, Net):
                if address is not None and entry.holds(address, port):
                    return False
            elif name == entry or (entry.startswith(".") and name.endswith(entry)):
                return False
        return True


def parse_proxy(text: str, past: tuple[str, ...] = ()) -> Proxy:
    """Read `http://user:password@host:3128`, or the same with https.

    Raises:
        InputRefused: it is none. The message does not hold it, since it may hold a password.
    """
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme, parts.hostname, parts.port
    except ValueError:
        scheme, host, port = "", None, None
    if scheme not in DEFAULT_PORTS or not host or parts.path not in ("", "/") or parts.query:
        raise InputRefused("a proxy is written as http://host:port or https://host:port")
    port = port or DEFAULT_PORTS[scheme]
    shown = f"[{host}]" if ":" in host else host
    user = ""
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        user = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return Proxy(f"{scheme}://{shown}:{port}", host, port, user, tuple(map(parse_past, past)))


def parse_past(text: str) -> Net | str:
    """Read what goes past the proxy: a name, `.example.com` for all that end so, or a network.

    Raises:
        InputRefused: it is neither.
    """
    if text.isascii() and text.replace(".", "").replace("-", "").replace("_", "").isalnum():
        last = text.rpartition(".")[2]
        if not last.isdigit() and last:
            return text.lower()
    return parse_net(text)
