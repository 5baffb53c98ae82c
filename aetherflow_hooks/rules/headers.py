"""Headers: those that an endpoint wants beside ours, such as an Authorization.

A name or value that could end a line, replace what we say, frame the body otherwise or talk to a
cloud's metadata service is refused when it is saved, and again before it is sent, since another
hand may have written the row.
"""

import re
from collections.abc import Collection, Mapping

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.signing import SEALED_PREFIX

HEADERS_MAX = 20
VALUE_CHARACTERS_MAX = 4096

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_VALUE = re.compile(r"[!-~](?:[\t -~]*[!-~])?")
_RESERVED = frozenset(
    [
        # what frames a request (RFC 9112) or belongs to one connection (RFC 9110, 7.6.1)
        *("host", "content-length", "transfer-encoding", "te", "trailer", "connection"),
        *("keep-alive", "upgrade", "expect"),
        # what we say ourselves
        *("content-type", "content-encoding", "accept-encoding", "user-agent", "date", "cookie"),
        # who stands between, and what metadata services of clouds ask for
        *("forwarded", "x-real-ip", "metadata", "metadata-flavor", "x-google-metadata-request"),
    ]
)
_RESERVED_STARTS = ("webhook-", "x-aetherflow-", "proxy-", "x-forwarded-", "x-aws-ec2-metadata-")


def check_headers(headers: Mapping[str, str]) -> None:
    """Say whether an endpoint may have these headers.

    Raises:
        InputRefused: the message names the header, and never holds its value.
    """
    check_names(headers)
    for name, value in headers.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputRefused(f"{name!a} is no header's name: A-Z a-z 0-9 - _, 64 at most")
        lower = name.lower()
        if lower in _RESERVED or lower.startswith(_RESERVED_STARTS):
            raise InputRefused(f"the header {name} is not for endpoints to set")
        if (
            not isinstance(value, str)
            or len(value) > VALUE_CHARACTERS_MAX
            or not _VALUE.fullmatch(value)
        ):
            raise InputRefused(
                f"the value of {name} is not 1 to {VALUE_CHARACTERS_MAX} printable ASCII "
                "characters without a blank at either end"
            )
        if value.startswith(SEALED_PREFIX):
            raise InputRefused(
                f"the value of {name} does not start with {SEALED_PREFIX}: stored ones do"
            )


def check_names(names: Collection[str]) -> None:
    """Say whether an endpoint may have so many headers, each once.

    Raises:
        InputRefused: there are too many, or one is there twice.
    """
    if len(names) > HEADERS_MAX:
        raise InputRefused(f"an endpoint has at most {HEADERS_MAX} headers of its own")
    if len({str(name).lower() for name in names}) < len(names):
        raise InputRefused("a header is given twice")


def header_lines(headers: Mapping[str, str]) -> str:
    """Write headers as they go out, each with its CRLF.

    Raises:
        InputRefused: see `check_headers`.
    """
    check_headers(headers)
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
