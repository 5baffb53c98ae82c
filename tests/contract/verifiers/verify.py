"""A receiver in Python, written from AetherFlow's public documentation alone.

Reads a JSON array of {"secret", "headers", "body_base64"} from stdin, prints for each one line,
`ok` or `refused: <why>`, and exits with 1 if any was refused.
"""

import base64
import hashlib
import hmac
import json
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

KEYS = ["event", "id", "timestamp", "data"]


class Refused(Exception):
    """What a receiver would answer 401 or 400, with the reason."""


def verify_signature(payload: bytes, signature: str, secret: str) -> bool:
    expected = hmac.new(secret.encode("utf-8"), payload, hashlib.sha256).hexdigest()
    # compare_digest raises on text beyond ASCII; a forger must get a refusal, not a 500.
    return signature.isascii() and hmac.compare_digest(signature, expected)


def check(secret: str, headers: Mapping[str, str], body: bytes) -> None:
    given = {name.lower(): value for name, value in headers.items()}
    signature = given.get("x-aetherflow-signature")
    if signature is None:
        raise Refused("no X-AetherFlow-Signature")
    if not verify_signature(body, signature, secret):
        raise Refused("X-AetherFlow-Signature does not fit the body and the secret")
    try:
        # A dict would hide a repeated key; a list of pairs shows all of them, in their order.
        pairs = json.loads(body.decode("utf-8"), object_pairs_hook=list, parse_constant=not_json)
    except (ValueError, RecursionError):
        raise Refused("the body is not JSON in UTF-8") from None
    if not body.lstrip().startswith(b"{") or [key for key, _ in pairs] != KEYS:
        raise Refused(f"the body is not an object of {', '.join(KEYS)}, in this order")
    payload: dict[str, Any] = dict(pairs)
    for header, key in (("X-AetherFlow-Event", "event"), ("webhook-id", "id")):
        if header.lower() not in given or given[header.lower()] != payload[key]:
            raise Refused(f"{header} is not the {key} of the body")


def not_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def verdict(case: Mapping[str, Any]) -> str:
    try:
        check(case["secret"], case["headers"], base64.b64decode(case["body_base64"]))
    except Refused as refused:
        return f"refused: {refused}"
    return "ok"


def main() -> int:
    verdicts = [verdict(case) for case in json.load(sys.stdin.buffer)]
    for line in verdicts:
        sys.stdout.write(f"{line}\n")
    return int(any(line != "ok" for line in verdicts))


if __name__ == "__main__":
    sys.exit(main())
