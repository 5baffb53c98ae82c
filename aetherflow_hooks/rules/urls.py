"""URLs: which an endpoint may have, and the one way in which they are read.

Parsers disagree about odd URLs: one sees a public host where another connects to an inner one. So
a URL is taken apart here, by rules that leave nothing to guess, and put together anew; only the
result is stored and handed to the HTTP client, which then has nothing left to interpret. No name is
resolved. Where a name leads is decided by `addresses`, at the moment of connecting.
"""

import re
from enum import StrEnum
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import NamedTuple
from urllib.parse import quote

import idna

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.addresses import PORT_MAX, Egress, why_closed

URL_MAX_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?P<port>:[0-9]*)?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x.*")  # a resolver would take such a name for an address
_NAME_MAX_CHARACTERS = 253
# What a path and a query may hold as it is: RFC 3986, and %, which says that something is encoded.
_AS_IT_IS = "/?%:@!$&'()*+,;=-._~"

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


class UrlProblem(StrEnum):
    """Which rule a URL breaks; the first one, in this order."""

    LENGTH = "length"
    CHARACTERS = "characters"
    SCHEME = "scheme"
    USERINFO = "userinfo"
    FRAGMENT = "fragment"
    AUTHORITY = "authority"
    HOST = "host"
    PORT = "port"
    ADDRESS = "address"


class UrlRefused(InputRefused):
    """A URL that an endpoint may not have."""

    def __init__(self, problem: UrlProblem, message: str) -> None:
        """Keep the `problem` for programs beside the `message` for people."""
        self.problem = problem
        super().__init__(message)


class Url(NamedTuple):
    """A URL that was taken apart; `str` puts it together in its one form."""

    scheme: str  # http or https
    host: str  # in ASCII and lower case; an IPv6 address in brackets
    port: int
    path: str  # with the query, percent-encoded; begins with /

    def __str__(self) -> str:
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}{self.path}"


def parse_url(text: str, egress: Egress) -> Url:
    """Take apart a URL that an endpoint may have.

    Names of private networks, addresses and ports that are closed can be used only where an
    operator has allowed some network for them.

    Raises:
        UrlRefused: the message names the rule that the URL breaks, and holds nothing unprintable.
    """
    if not 1 <= len(text) <= URL_MAX_CHARACTERS:
        raise UrlRefused(UrlProblem.LENGTH, f"a URL has 1 to {URL_MAX_CHARACTERS} characters")
    if not text.isprintable() or " " in text or "\\" in text:
        raise UrlRefused(
            UrlProblem.CHARACTERS,
            f"the URL {text!a} holds a blank, a backslash or a character that cannot be seen",
        )
    written_scheme, separator, rest = text.partition("://")
    scheme = written_scheme.lower()
    schemes = ("https",) if egress.https_only else ("https", "http")
    if not separator or scheme not in schemes:
        hint = "; http:// is for the development profile" if scheme == "http" else ""
        raise UrlRefused(
            UrlProblem.SCHEME, f"the URL {text!r} does not start with {schemes[0]}://{hint}"
        )
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in authority:
        raise UrlRefused(
            UrlProblem.USERINFO, "a URL carries no user or password; the signature says who calls"
        )
    if "#" in path:
        raise UrlRefused(
            UrlProblem.FRAGMENT, f"the URL {text!r} has a fragment, which is never sent"
        )
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise UrlRefused(
            UrlProblem.AUTHORITY, f"{authority!r} is not a host, or a host and a port in digits"
        )
    host, address = _host(found["host"], egress)
    port = _port(found["port"], egress) if found["port"] else DEFAULT_PORTS[scheme]
    closed = why_closed(address, port, egress.allowed) if address else None
    if closed:
        raise UrlRefused(
            UrlProblem.ADDRESS,
            f"{closed}: webhooks do not go there unless `egress.allow` names its network",
        )
    path = quote(path, safe=_AS_IT_IS)
    if path.find("?") == len(path) - 1:
        path = path.removesuffix("?")  # the client would not send an empty query
    return Url(scheme, host, port, path if path.startswith("/") else f"/{path}")


def _host(text: str, egress: Egress) -> tuple[str, str | None]:
    """Give a host as it stands in a URL, and the address that it is, if it is one."""
    if text.startswith("["):
        try:
            six = IPv6Address(text[1:-1])
        except AddressValueError:
            raise _no_host(text, "is not an IPv6 address") from None
        if six.scope_id is not None:
            raise _no_host(text, "is bound to one link of one machine")
        return f"[{six}]", str(six)
    name = _ascii(text)
    labels = name.split(".")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        try:
            four = IPv4Address(name)
        except AddressValueError:
            raise _no_host(text, "is not an IPv4 address as it is written usually") from None
        return str(four), str(four)
    if len(name) > _NAME_MAX_CHARACTERS or not all(map(_LABEL.fullmatch, labels)):
        raise _no_host(text, "is not a host's name")
    if (len(labels) == 1 or labels[-1] in _LOCAL_SUFFIXES) and not egress.allowed:
        raise _no_host(text, "is a name of a private network, and `egress.allow` names no network")
    return name, None


def _ascii(text: str) -> str:
    """Write a name in ASCII and lower case, without the dot that may end it (UTS #46)."""
    try:
        name = idna.uts46_remap(text, std3_rules=False, transitional=False)
        labels = [
            _alabel(label) if label.startswith("xn--") or not label.isascii() else label
            for label in name.removesuffix(".").split(".")
        ]
    except UnicodeError:  # of which idna's error is one
        raise _no_host(text, "is not a host's name") from None
    return ".".join(labels)


def _alabel(label: str) -> str:
    """Write one label in ASCII; what is so already must be what its characters give."""
    return idna.alabel(idna.ulabel(label)).decode()


def _port(text: str, egress: Egress) -> int:
    """Read a port with the colon before it."""
    if not _PORT.fullmatch(text[1:]) or (port := int(text[1:])) > PORT_MAX:
        raise UrlRefused(UrlProblem.PORT, f"{text!r} is not a port from 1 to {PORT_MAX}")
    if port in _CLOSED_PORTS and not any(
        it.port_min <= port <= it.port_max for it in egress.allowed
    ):
        raise UrlRefused(
            UrlProblem.PORT, f"port {port} belongs to another service, which is not for webhooks"
        )
    return port


def _no_host(text: str, why: str) -> UrlRefused:
    return UrlRefused(UrlProblem.HOST, f"the host {text!r} {why}")
