"""The verifiers accept what is right and refuse what is not, before they judge the engine."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from .verifiers import (
    Case,
    case,
    go_accepts,
    node_accepts,
    node_official_accepts,
    python_accepts,
    python_official_accepts,
)

Verifier = Callable[[Sequence[Case]], list[str]]

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(range(1, 33))).decode()
OWN_SECRET = "correct horse bättery staple"
BODY = (
    b'{"event":"workflow.completed","id":"evt_1","timestamp":"2024-01-15T10:30:00Z",'
    b'"data":{"workflow":{"id":"wf_abc123"}}}'
)

plain = pytest.mark.parametrize("accepts", [python_accepts, node_accepts, go_accepts])
official = pytest.mark.parametrize("accepts", [python_official_accepts, node_official_accepts])


def signed(
    body: bytes = BODY, secret: str = SECRET, *, timestamp: float = 0, **changed: str | None
) -> dict[str, str]:
    """Headers that are right for `body`, but for those `changed`; None leaves one out."""
    seconds = str(int(timestamp or time.time()))
    key = base64.b64decode(secret[6:]) if secret.startswith("whsec_") else secret.encode()
    standard = hmac.digest(key, b"evt_1." + seconds.encode() + b"." + body, "sha256")
    headers: dict[str, str | None] = {
        "Content-Type": "application/json",
        "X-AetherFlow-Signature": hmac.new(secret.encode(), body, hashlib.sha256).hexdigest(),
        "X-AetherFlow-Event": "workflow.completed",
        "webhook-id": "evt_1",
        "webhook-timestamp": seconds,
        "webhook-signature": "v1," + base64.b64encode(standard).decode(),
    }
    headers |= {name.replace("_", "-"): value for name, value in changed.items()}
    return {name: value for name, value in headers.items() if value is not None}


def right(body: bytes, secret: str = SECRET) -> Case:
    return case(secret, signed(body, secret), body)


def with_data(data: bytes) -> bytes:
    return BODY[: BODY.index(b'"data":')] + b'"data":' + data + b"}"


GOOD = [
    right(BODY),
    right(BODY, OWN_SECRET),
    right(with_data(b"{}")),
    right(with_data(b'{"z":1,"a":2,"z":3,"2":0,"1":0}')),
    right(with_data(b'{"n":123456789012345678901234567890,"e":1E+2,"f":0.10,"m":-0}')),
    right(with_data(b'{"n":' + b"9" * 4300 + b"}")),  # Python reads no longer integer
    right(with_data('{"name":"Zoë 😀\u2028","esc":"\\u00e9\\/\\u0000\\ud83d"}'.encode())),
    right(with_data(b'{"space":  [ 1,\n 2 ] }')),
    right(with_data(b'{"long":"' + b"x" * 1_000_000 + b'"}')),
    case(SECRET, {name.upper(): value for name, value in signed().items()}, BODY),
]

SIGNATURE = signed()["X-AetherFlow-Signature"]
FITS_NOT = "X-AetherFlow-Signature does not fit the body and the secret"
KEYS = "the body is not an object of event, id, timestamp, data, in this order"
NOT_JSON = "the body is not JSON in UTF-8"
EVENT = "X-AetherFlow-Event is not the event of the body"
ID = "webhook-id is not the id of the body"

payload = json.loads(BODY)
BAD_SIGNATURES: Mapping[str, str | None] = {
    "one digit changed": SIGNATURE[:-1] + ("0" if SIGNATURE[-1] != "0" else "1"),
    "short": SIGNATURE[:-2],
    "odd": SIGNATURE[:-1],
    "long": SIGNATURE + "00",
    "hex and then not": SIGNATURE + "zz",
    "upper case": SIGNATURE.upper(),
    "not hex": "z" * 64,
    "beyond ASCII": "é" * 64,
    "empty": "",
    "blank": " " + SIGNATURE,
    "the other scheme": signed()["webhook-signature"],
}
BAD_BODIES: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", NOT_JSON),
    "cut": (BODY[:-1], NOT_JSON),
    "two": (BODY + BODY, NOT_JSON),
    "byte order mark": (b"\xef\xbb\xbf" + BODY, NOT_JSON),
    "not UTF-8": (with_data(b'{"name":"\xff"}'), NOT_JSON),
    "UTF-16": (BODY.decode().encode("utf-16"), NOT_JSON),
    "not a number": (with_data(b'{"n":NaN}'), NOT_JSON),
    "null": (b"null", KEYS),
    "text": (b'"event"', KEYS),
    "array": (
        b'[["event","workflow.completed"],["id","evt_1"],["timestamp",""],["data",{}]]',
        KEYS,
    ),
    "another order": (json.dumps(dict(reversed(payload.items()))).encode(), KEYS),
    "one key too few": (BODY[: BODY.index(b',"data"')] + b"}", KEYS),
    "one key too many": (with_data(b'{},"more":1'), KEYS),
    "two keys in one": (b'{"event,id":1,"timestamp":"","data":{}}', KEYS),
    "no event": (BODY.replace(b'"workflow.completed"', b"null"), EVENT),
    "another event": (BODY.replace(b"completed", b"failed"), EVENT),
    "another id": (BODY.replace(b"evt_1", b"evt_2"), ID),
}


def bad_cases() -> dict[str, tuple[Case, str]]:
    cases: dict[str, tuple[Case, str]] = {
        f"signature: {name}": (
            case(SECRET, signed() | {"X-AetherFlow-Signature": str(value)}, BODY),
            FITS_NOT,
        )
        for name, value in BAD_SIGNATURES.items()
    }
    for name, (body, why) in BAD_BODIES.items():
        cases[f"body: {name}"] = (right(body), why)
    for place in (0, len(BODY) // 2, len(BODY) - 1):
        changed = BODY[:place] + bytes([BODY[place] ^ 1]) + BODY[place + 1 :]
        cases[f"byte {place} changed"] = (case(SECRET, signed(), changed), FITS_NOT)
    cases |= {
        "another secret": (case(OTHER_SECRET, signed(), BODY), FITS_NOT),
        "a secret without its prefix": (case(SECRET[6:], signed(), BODY), FITS_NOT),
        "no signature": (
            case(SECRET, signed(X_AetherFlow_Signature=None), BODY),
            "no X-AetherFlow-Signature",
        ),
        "no event header": (case(SECRET, signed(X_AetherFlow_Event=None), BODY), EVENT),
        "another event header": (
            case(SECRET, signed(X_AetherFlow_Event="user.joined"), BODY),
            EVENT,
        ),
        "no id header": (case(SECRET, signed(webhook_id=None), BODY), ID),
        "another id header": (case(SECRET, signed(webhook_id="evt_11"), BODY), ID),
    }
    return cases


@plain
def test_what_is_right_is_accepted(accepts: Verifier) -> None:
    assert accepts(GOOD) == ["ok"] * len(GOOD)


@plain
def test_what_is_wrong_is_refused_with_the_reason(accepts: Verifier) -> None:
    bad = bad_cases()
    lines = accepts([one for one, _ in bad.values()])
    assert dict(zip(bad, lines, strict=True)) == {
        name: f"refused: {why}" for name, (_, why) in bad.items()
    }


@plain
def test_one_wrong_among_right_ones_is_found(accepts: Verifier) -> None:
    wrong = case(OTHER_SECRET, signed(), BODY)
    assert accepts([GOOD[0], wrong, GOOD[1]]) == ["ok", f"refused: {FITS_NOT}", "ok"]


@plain
def test_nothing_is_all_right(accepts: Verifier) -> None:
    assert accepts([]) == []


@official
def test_the_official_libraries_accept_what_is_right(accepts: Verifier) -> None:
    now = [
        case(one["secret"], one["headers"], base64.b64decode(one["body_base64"])) for one in GOOD
    ]
    old_and_new = signed(secret=OTHER_SECRET)["webhook-signature"] + " "
    rotated = signed() | {"webhook-signature": old_and_new + signed()["webhook-signature"]}
    now += [case(SECRET, rotated, BODY), case(SECRET, signed(timestamp=time.time() - 240), BODY)]
    assert accepts(now) == ["ok"] * len(now)


@official
def test_the_official_libraries_refuse_what_is_wrong(accepts: Verifier) -> None:
    standard = signed()["webhook-signature"]
    bad: dict[str, Case] = {
        "byte changed": case(SECRET, signed(), BODY.replace(b"abc", b"abd")),
        "another secret": case(OTHER_SECRET, signed(), BODY),
        "another id": case(SECRET, signed(webhook_id="evt_2"), BODY),
        "another time": case(SECRET, signed(webhook_timestamp=str(int(time.time()) - 7)), BODY),
        "too old": case(SECRET, signed(timestamp=time.time() - 310), BODY),
        "too new": case(SECRET, signed(timestamp=time.time() + 310), BODY),
        "no time": case(SECRET, signed(webhook_timestamp=None), BODY),
        "no signature": case(SECRET, signed(webhook_signature=None), BODY),
        "no comma": case(SECRET, signed(webhook_signature=standard[3:]), BODY),
        "not base64": case(SECRET, signed(webhook_signature="v1,é"), BODY),
        "short": case(SECRET, signed(webhook_signature=standard[:-8]), BODY),
        "another version": case(SECRET, signed(webhook_signature="v2" + standard[2:]), BODY),
    }
    lines = dict(zip(bad, accepts(list(bad.values())), strict=True))
    assert {name: line for name, line in lines.items() if not line.startswith("refused: ")} == {}


@plain
def test_a_verifier_that_falls_over_is_not_one_that_refuses(accepts: Verifier) -> None:
    broken: Any = [{"secret": 5, "headers": signed(), "body_base64": "e30="}]
    with pytest.raises(AssertionError):
        accepts(broken)
