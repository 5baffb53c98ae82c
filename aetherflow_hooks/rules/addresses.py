"""Addresses: where a POST may go.

The address that is about to be connected decides, never the name; so neither a literal nor a name
that changes its mind gets by. `ipaddress.is_global` is not asked, since it calls multicast and
several forms of IPv4 inside IPv6 global, and its answers differ between Python's versions.
"""

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aetherflow_hooks.errors import InputRefused

PORT_MAX = 65_535

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))

# IANA's special-purpose registry for IPv4, multicast, reserved space, and Azure's host endpoint.
_CLOSED_IPV4 = [
    IPv4Network("0.0.0.0/8"),
    IPv4Network("10.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("127.0.0.0/8"),
    IPv4Network("168.63.129.16/32"),
    IPv4Network("169.254.0.0/16"),
    IPv4Network("172.16.0.0/12"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.0.2.0/24"),
    IPv4Network("192.31.196.0/24"),
    IPv4Network("192.52.193.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("192.168.0.0/16"),
    IPv4Network("192.175.48.0/24"),
    IPv4Network("198.18.0.0/15"),
    IPv4Network("198.51.100.0/24"),
    IPv4Network("203.0.113.0/24"),
    IPv4Network("224.0.0.0/4"),
    IPv4Network("240.0.0.0/4"),
]
# Of IPv6 only global unicast is open, less its special parts (Teredo, 6to4, documentation, AS112).
_OPEN_IPV6 = IPv6Network("2000::/3")
_CLOSED_IPV6 = [
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("2002::/16"),
    IPv6Network("2620:4f:8000::/48"),
    IPv6Network("3fff::/20"),
]


class Allowed(NamedTuple):
    """A network that an operator lets through, with the ports (both ends count)."""

    network: IPv4Network | IPv6Network
    port_min: int = 1
    port_max: int = PORT_MAX


class Egress(NamedTuple):
    """Where POSTs may go beside public addresses."""

    https_only: bool
    allowed: tuple[Allowed, ...] = ()


def parse_allowed(text: str) -> Allowed:
    """Read `10.1.0.0/16`, `10.1.2.3:8080`, `10.0.0.0/8:8000-8100` or `[fd00::]/8:443`.

    Raises:
        InputRefused: it is none of these.
    """
    found = re.fullmatch(
        r"(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|(?P<four>[0-9.]+)|(?P<bare>[0-9A-Fa-f:.]+))"
        r"(?P<prefix>/\d{1,3})?(?::(?P<low>\d{1,5})(?:-(?P<high>\d{1,5}))?)?",
        text,
        re.ASCII,
    )
    try:
        if found is None:
            raise ValueError("not a network")  # noqa: TRY301
        address = found["six"] or found["four"] or found["bare"]
        network = ip_network(address + (found["prefix"] or ""))
        low = int(found["low"]) if found["low"] else 1
        high = int(found["high"] or found["low"] or PORT_MAX)
        if not 1 <= low <= high <= PORT_MAX:
            raise ValueError(f"ports go from 1 to {PORT_MAX}")  # noqa: TRY301
    except ValueError as problem:
        raise InputRefused(
            f"{text!r} is no network with ports, such as 10.0.0.0/8:8000-8100: {problem}"
        ) from None
    return Allowed(network, low, high)


def why_closed(host: str, port: int, allowed: Sequence[Allowed]) -> str | None:
    """Say why a numeric address may not be connected to; None: it may.

    `host` is what a socket is about to connect to: digits, never a name.
    """
    try:
        address = ip_address(host)
    except ValueError:
        return f"{host!r} is not a numeric address"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return f"{address} is bound to one link"
    for entry in allowed:
        if (
            entry.network.version == address.version
            and address in entry.network
            and entry.port_min <= port <= entry.port_max
        ):
            return None
    if isinstance(address, IPv4Address):
        closed = any(address in network for network in _CLOSED_IPV4)
    else:
        closed = address not in _OPEN_IPV6 or any(address in network for network in _CLOSED_IPV6)
    return f"{address} is not a public address" if closed else None
