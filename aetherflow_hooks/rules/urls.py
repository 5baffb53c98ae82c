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
from aetherflow_hooks.rules.addresses import (
    PORT_MAX,
    Egress,
    is_closed_port,
    is_local,
    why_closed,
)

URL_MAX_CHARACTERS = 2048
DEFAULT_PORTS = {"http": 80, "https": 443}

_AUTHORITY = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:]*)(?P<port>:[0-9]*)?")
_PORT = re.compile(r"[1-9][0-9]{0,4}")
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0x.*")  # a resolver would take such a name for an address
_NAME_MAX_CHARACTERS = 253
# What a path and a query may hold as it is: RFC 3986, and %, which says that something is encoded.
_AS_IT_IS = "/?%:@!$&'()*+,;=-._~"


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

    Names of private networks can be used only where an operator names them, addresses and ports
    that are closed where he allows a network that has them.

    Raises:
        UrlRefused: the message names the rule that the URL breaks, and holds nothing unprintable
            and nothing of the path or query, which may hold a secret.
    """
    _check_text(text)
    written_scheme, separator, rest = text.partition("://")
    scheme = written_scheme.lower()
    schemes = ("https",) if egress.https_only else ("https", "http")
    if not separator or scheme not in schemes:
        hint = "; http:// is for the development profile" if scheme == "http" else ""
        raise UrlRefused(UrlProblem.SCHEME, f"the URL does not start with {schemes[0]}://{hint}")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    path = rest[len(authority) :]
    if "@" in authority:
        raise UrlRefused(
            UrlProblem.USERINFO, "a URL carries no user or password; the signature says who calls"
        )
    if "#" in path:
        raise UrlRefused(UrlProblem.FRAGMENT, "the URL has a fragment, which is never sent")
    found = _AUTHORITY.fullmatch(authority)
    if found is None:
        raise UrlRefused(
            UrlProblem.AUTHORITY, f"{authority!r} is not a host, or a host and a port in digits"
        )
    host, address = _host(found["host"], egress)
    port = _port(found["port"], egress) if found["port"] else DEFAULT_PORTS[scheme]
    closed = why_closed(address, port, egress) if address else None
    if closed:
        raise UrlRefused(
            UrlProblem.ADDRESS,
            f"{closed.detail}: webhooks do not go there unless `egress.allow` names its network",
        )
    path = quote(path, safe=_AS_IT_IS)
    if path.find("?") == len(path) - 1:
        path = path.removesuffix("?")  # the client would not send an empty query
    url = Url(scheme, host, port, path if path.startswith("/") else f"/{path}")
    if len(str(url)) > URL_MAX_CHARACTERS:
        raise UrlRefused(
            UrlProblem.LENGTH,
            f"the URL has over {URL_MAX_CHARACTERS} characters once it is percent-encoded",
        )
    return url


def _check_text(text: str) -> None:
    if not 1 <= len(text) <= URL_MAX_CHARACTERS:
        raise UrlRefused(UrlProblem.LENGTH, f"a URL has 1 to {URL_MAX_CHARACTERS} characters")
    for letter in text:
        if not letter.isprintable() or letter in " \\":
            raise UrlRefused(
                UrlProblem.CHARACTERS,
                f"the URL holds {letter!a}: a blank, a backslash or what cannot be seen",
            )


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
    if is_local(name) and not egress.knows(name):
        raise _no_host(text, "is a name of a private network that `egress.allow` does not hold")
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
    """Read a port with the colon before it; whether it is open to an address is told later."""
    if not _PORT.fullmatch(text[1:]) or (port := int(text[1:])) > PORT_MAX:
        raise UrlRefused(UrlProblem.PORT, f"{text!r} is not a port from 1 to {PORT_MAX}")
    if is_closed_port(port) and not any(
        it.port_min <= port <= it.port_max for it in egress.allowed
    ):
        raise UrlRefused(
            UrlProblem.PORT, f"port {port} belongs to another service, which is not for webhooks"
        )
    return port


def _no_host(text: str, why: str) -> UrlRefused:
    return UrlRefused(UrlProblem.HOST, f"the host {text!r} {why}")
