"""Addresses: where a POST may go.

The address that is about to be connected decides, never the name; so neither a literal nor a name
that changes its mind gets by. `ipaddress.is_global` is not asked, since it calls multicast and
several forms of IPv4 inside IPv6 global, and its answers differ between Python's versions.
"""

import re
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple

from aetherflow_hooks.errors import InputRefused

PORT_MAX = 65_535

# The same for all, so that an attempt tells nothing of our side of the net.
CLOSED_REASON = "it leads to an address or port that is not open to webhooks"
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

# Names that no public server has: RFC 6761, RFC 6762 appendix G, RFC 8375, ICANN's reserved ones.
_LOCAL_SUFFIXES = frozenset(
    [
        *("localhost", "local", "internal", "intranet", "corp", "home", "lan", "private"),
        *("invalid", "test", "onion", "alt", "arpa"),
    ]
)
# https://fetch.spec.whatwg.org/#port-blocking, whose services may take a request for a command of
# theirs, and databases, caches and control planes that do not speak HTTP or should not hear ours.
_CLOSED_PORTS = frozenset(
    [
        *(1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101),
        *(102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389),
        *(427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636),
        *(989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566),
        *(6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        *(2375, 2376, 3306, 5432, 6379, 6443, 9200, 10250, 11211, 27017),
    ]
)
_NAME = re.compile(r"\.?[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*")


class Net(NamedTuple):
    """A network, with the ports that are meant (both ends count)."""

    network: IPv4Network | IPv6Network
    port_min: int = 1
    port_max: int = PORT_MAX

    def holds(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Tell whether an address is of this network, and the port one of these."""
        return (
            self.network.version == address.version
            and address in self.network
            and self.port_min <= port <= self.port_max
        )


class Closed(NamedTuple):
    """Why a POST may not go somewhere."""

    reason: str  # for whoever owns the endpoint
    detail: str  # for the operator: the address, and the rule


class Egress(NamedTuple):
    """Where POSTs may go beside public addresses, and where not."""

    https_only: bool
    allowed: tuple[Net, ...] = ()
    denied: tuple[Net, ...] = ()  # wins over all else
    names: tuple[str, ...] = ()  # of private networks: localhost; .internal for all that end so

    def knows(self, name: str) -> bool:
        """Tell whether a name of a private network may be asked for."""
        return any(
            name == known or (known.startswith(".") and name.endswith(known))
            for known in self.names
        )


def opens_closed(entry: Net | str) -> bool:
    """Tell whether what an operator lets through would be closed without it."""
    if isinstance(entry, str):
        return True  # public names have no entry
    network, port_min, port_max = entry
    closed: list[IPv4Network] | list[IPv6Network] = (
        _CLOSED_IPV4 if isinstance(network, IPv4Network) else _CLOSED_IPV6
    )
    return (
        any(network.overlaps(it) for it in closed)
        or (isinstance(network, IPv6Network) and not network.subnet_of(_OPEN_IPV6))
        or any(port_min <= port <= port_max for port in _CLOSED_PORTS)
    )


def parse_net(text: str) -> Net:
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
    return Net(network, low, high)


def nets_at(places: Iterable[tuple[str, int]]) -> tuple[Net, ...]:
    """Give the networks of numeric addresses, each with a port; one loopback means all of them."""
    nets: list[Net] = []
    for host, port in places:
        address = ip_address(host.partition("%")[0])
        networks = LOOPBACK if address.is_loopback else (ip_network(address),)
        nets += [Net(network, port, port) for network in networks]
    return tuple(dict.fromkeys(nets))


def parse_entry(text: str) -> Net | str:
    """Read what an operator lets through: a network, or a name such as localhost or .internal.

    Raises:
        InputRefused: it is neither, or a name that needs no leave.
    """
    if not _NAME.fullmatch(text) or text.rpartition(".")[2].isdigit():
        return parse_net(text)
    if not is_local(text.removeprefix(".")):
        raise InputRefused(
            f"{text!r} is a public name, which needs no entry; name the network that it leads to"
        )
    return text


def is_local(name: str) -> bool:
    """Tell whether a name is one of a private network: of one word, or with such an end."""
    return "." not in name or name.rpartition(".")[2] in _LOCAL_SUFFIXES


def is_closed_port(port: int) -> bool:
    """Tell whether a port belongs to a service that is not for webhooks."""
    return port in _CLOSED_PORTS


def why_closed(host: str, port: int, egress: Egress) -> Closed | None:
    """Say why a numeric address may not be connected to; None: it may.

    `host` is what a socket is about to connect to: digits, never a name.
    """
    address = is_address(host)
    if address is None:
        return _closed(f"{host!r} is not a numeric address")
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return _closed(f"{address} is bound to one link")
    if any(net.holds(address, port) for net in egress.denied):
        return _closed(f"{address} with port {port} is denied")
    if any(net.holds(address, port) for net in egress.allowed):
        return None
    if not is_public(address):
        return _closed(f"{address} is not a public address")
    return _closed(f"port {port} belongs to another service") if is_closed_port(port) else None


def is_address(text: str) -> IPv4Address | IPv6Address | None:
    """Read a numeric address; None: it is none."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Tell whether an address is one of the internet's."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _CLOSED_IPV4)
    return address in _OPEN_IPV6 and not any(address in network for network in _CLOSED_IPV6)


def _closed(detail: str) -> Closed:
    return Closed(CLOSED_REASON, detail)
