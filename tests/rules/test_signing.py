"""Signing: what we send is what every verifier expects, and what we verify is hard to fool."""

import base64
import json
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest
import standardwebhooks
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import BadSignature, InputRefused
from aetherflow_hooks.receive import verify, verify_body
from aetherflow_hooks.rules.signing import (
    Keys,
    aetherflow_signature,
    check_secret,
    keys_of,
    new_secret,
    public_key_of,
    standard_signature,
)

NOW = 1_767_225_600
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
BODY = b'{"id":1}'


class Vector(NamedTuple):
    """A row of `signature-vectors.json`; the body in hex, `61*3` meaning 616161."""

    name: str
    secret: str
    id: str
    timestamp: int
    body: str
    aetherflow: str
    standard: str

    @property
    def bytes(self) -> bytes:
        parts = [part.partition("*") for part in self.body.split()]
        return b"".join(bytes.fromhex(text) * int(times or 1) for text, _, times in parts)


VECTORS = [
    Vector(**row)
    for row in json.loads(Path(__file__).with_name("signature-vectors.json").read_text("utf-8"))
]
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=[one.name for one in VECTORS])


def official_secret(keys: Keys) -> str:
    """The secret that makes the official libraries use the same key."""
    assert isinstance(keys.standard, bytes)
    return "whsec_" + base64.b64encode(keys.standard).decode()


def official_signature(keys: Keys, message_id: str, unix_seconds: int, body: bytes) -> str:
    moment = datetime.fromtimestamp(unix_seconds, UTC)
    signer = standardwebhooks.Webhook(official_secret(keys))
    return signer.sign(message_id, moment, body.decode())


@each_vector
def test_both_signatures_are_those_of_the_reference(vector: Vector) -> None:
    keys = keys_of(vector.secret)
    assert aetherflow_signature(keys, vector.bytes) == vector.aetherflow
    assert standard_signature([keys], vector.id, vector.timestamp, vector.bytes) == vector.standard


@each_vector
def test_the_official_library_signs_alike(vector: Vector) -> None:
    keys = keys_of(vector.secret)
    made = official_signature(keys, vector.id, vector.timestamp, vector.bytes)
    assert made == vector.standard


@each_vector
def test_verify_accepts_the_reference(vector: Vector) -> None:
    headers = {
        "webhook-id": vector.id,
        "webhook-timestamp": str(vector.timestamp),
        "webhook-signature": vector.standard,
    }
    now = vector.timestamp + 10
    assert verify(vector.bytes, headers, vector.secret, now_unix_seconds=now) == vector.id
    verify_body(vector.bytes, vector.aetherflow, vector.secret)


def test_v_rot_while_a_secret_is_replaced_both_sign() -> None:
    new, old = keys_of(OTHER), keys_of(SECRET)
    both = standard_signature([new, old], "evt_rot", NOW, BODY)
    assert both == (
        "v1,u0+DdUN8TxKc8zohgregcA+atPemb4ORxaJaSD15HNA= "
        "v1,CRgwBxCDIEfK5ZUoFUba8g8sU2EVO5FFdeWDnDZWxWA="
    )
    assert [aetherflow_signature(keys, BODY) for keys in (new, old)] == [
        "a85bb945dade234aaa15fe35d62315e43e9c9f862a3f47a5f6fe718d429910ba",
        "96a4f14511c5dfc4c54a28de01f858fec7b30623dbf629faa6e96c3799831265",
    ]
    headers = {
        "webhook-id": "evt_rot",
        "webhook-timestamp": str(NOW),
        "webhook-signature": both,
    }
    for secret in (OTHER, SECRET):
        assert verify(BODY, headers, secret, now_unix_seconds=NOW) == "evt_rot"


def whsec(size: int) -> str:
    return "whsec_" + base64.b64encode(bytes(size)).decode()


@pytest.mark.parametrize(
    "secret",
    [
        *(whsec(size) for size in (24, 25, 26, 32, 64)),
        "x" * 16,
        "x" * 256,
        "correct horse bättery staple",
        "пароль-🔑-пароль-🔑",
        "WHSEC_not base64 at all",
        base64.b64encode(bytes(32)).decode(),
    ],
)
def test_a_good_secret_is_taken_as_it_is(secret: str) -> None:
    assert check_secret(secret) == secret


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "x" * 15,
        "x" * 257,
        "sixteen chars\n..",
        "sixteen chars\x00..",
        "sixteen chars\x7f..",
        "sixteen chars\ud800..",
        "sixteen chars\u202e..",
        *(whsec(size) for size in (12, 23, 65, 96)),
        "whsec_not*base64*at*all",
        whsec(32).rstrip("="),  # no padding
        whsec(32) + "=",
        whsec(25)[:-3] + "B==",  # bits set that an encoder leaves at 0
        whsec(32).replace("A", "-"),  # the URL alphabet
        whsec(32)[:20] + " " + whsec(32)[20:],
    ],
)
def test_a_bad_secret_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check_secret(secret)
    assert not secret or secret not in str(refused.value)


@given(st.binary(min_size=24, max_size=64))
def test_a_new_secret_is_a_good_one_and_gives_back_its_bytes(random_bytes: bytes) -> None:
    secret = check_secret(new_secret(random_bytes))
    assert keys_of(secret) == Keys(aetherflow=secret.encode(), standard=random_bytes)


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_new_secret_is_never_made_of_too_little_or_too_much(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64"):
        new_secret(bytes(size))


own_secrets = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=16, max_size=64)
good_secrets = st.one_of(
    st.binary(min_size=24, max_size=64).map(new_secret),
    own_secrets.filter(lambda secret: not secret.startswith("whsec_")),
)
ids = st.from_regex(r"[A-Za-z0-9_-]{1,128}", fullmatch=True)
anything = st.text(st.characters())  # lone surrogates too, as headers of a server can hold them


@given(st.lists(good_secrets, min_size=1, max_size=3), ids, st.binary(), st.data())
def test_verify_accepts_what_signing_makes(
    secrets: list[str], message_id: str, body: bytes, data: st.DataObject
) -> None:
    keys = [keys_of(secret) for secret in secrets]
    headers = {
        "WEBHOOK-ID": message_id,
        "Webhook-Timestamp": str(NOW),
        "webhook-signature": standard_signature(keys, message_id, NOW, body),
    }
    secret = data.draw(st.sampled_from(secrets))
    assert verify(body, headers, secret, now_unix_seconds=NOW) == message_id
    verify_body(body, aetherflow_signature(keys_of(secret), body), secret)


@given(good_secrets, ids, st.text())
def test_the_official_library_accepts_what_signing_makes(
    secret: str, message_id: str, text: str
) -> None:
    body = json.dumps({"text": text}).encode()
    now = int(time.time())
    keys = keys_of(secret)
    headers = {
        "webhook-id": message_id,
        "webhook-timestamp": str(now),
        "webhook-signature": standard_signature([keys], message_id, now, body),
    }
    standardwebhooks.Webhook(official_secret(keys)).verify(body, headers)


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]) | anything,
        st.sampled_from(["evt_1", str(NOW), "v1,AAAA", "v1,", " "]) | anything,
    ),
    st.binary(),
    st.text() | st.sampled_from([SECRET, "whsec_", "whsec_=", "whsec_not*base64"]),
)
def test_garbage_is_a_bad_signature_and_nothing_else(
    headers: dict[str, str], body: bytes, secret: str
) -> None:
    with pytest.raises(BadSignature):
        verify(body, headers, secret, now_unix_seconds=NOW)
    with pytest.raises(BadSignature):
        verify_body(body, headers.get("webhook-signature", ""), secret)


def test_a_secret_that_utf_8_cannot_hold_is_a_bad_signature_too() -> None:
    with pytest.raises(BadSignature):
        verify(BODY, signed(), "\ud800" * 16, now_unix_seconds=NOW)


def signed(
    message_id: str = "evt_n", timestamp: str = str(NOW), *, body: bytes = BODY
) -> dict[str, str]:
    """Headers whose signature covers exactly what they say, be it well formed or not."""
    key = base64.b64decode(SECRET[6:])
    content = f"{message_id}.{timestamp}.".encode() + body
    signature = aetherflow_signature(Keys(aetherflow=key, standard=b""), content)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(bytes.fromhex(signature)).decode(),
    }


GOOD = signed()["webhook-signature"]
HEX = base64.b64decode(GOOD[3:]).hex()


def accepted(headers: dict[str, str], *, body: bytes = BODY, now: float = NOW) -> bool:
    try:
        verify(body, headers, SECRET, now_unix_seconds=now)
    except BadSignature:
        return False
    return True


def test_the_base_of_the_cases_below_is_good() -> None:
    assert accepted(signed())


def test_n_01_a_body_written_anew_is_refused() -> None:
    assert not accepted(signed(), body=b'{"id": 1}')


@pytest.mark.parametrize(
    "other", [{"webhook-id": "evt_m"}, {"webhook-timestamp": str(NOW + 1)}], ids=["id", "time"]
)
def test_n_02_another_id_or_time_is_refused(other: dict[str, str]) -> None:
    assert not accepted(signed() | other)


@pytest.mark.parametrize(
    ("clock", "good"), [(300, True), (-300, True), (301, False), (-301, False), (300.5, False)]
)
def test_n_03_n_04_five_minutes_are_the_limit_both_ways(clock: float, good: bool) -> None:
    assert accepted(signed(), now=NOW + clock) is good


@pytest.mark.parametrize(
    ("case", "signature", "good"),
    [
        ("N-05 only another version", GOOD.replace("v1,", "v1a,"), False),
        ("N-05 another version first", GOOD.replace("v1,", "v1a,") + " " + GOOD, True),
        ("N-06 an item without comma", "v1 " + GOOD, True),
        ("N-06 a bare item", GOOD[3:] + " " + GOOD, True),
        ("N-06 a double blank", "v1,AAAA  " + GOOD, True),
        ("N-06 blanks around", " " + GOOD + " ", True),
        ("N-07 bad base64 first", "v1,*** " + GOOD, True),
        ("N-07 beyond ASCII first", "v1,é\ud800 " + GOOD, True),
        ("N-10 empty", "", False),
        ("N-10 hex in place of base64", "v1," + HEX, False),
        ("the version missing", GOOD[3:], False),
        ("in upper case", "V1" + GOOD[2:], False),
        ("two in one item", GOOD + "," + GOOD, False),
        ("cut", GOOD[:-1], False),
        ("parted by a tab", "v1,AAAA\t" + GOOD, False),
    ],
)
def test_one_good_item_of_the_list_is_enough(case: str, signature: str, good: bool) -> None:
    assert accepted(signed() | {"webhook-signature": signature}) is good, case


@pytest.mark.parametrize(
    "timestamp",
    [
        "1767225600.5",
        "01767225600",
        "+1767225600",
        " 1767225600",
        "1767225600\n",
        "1_767_225_600",
        "\uff11767225600",
        "1767225600e0",
        "-1767225600",
        "9" * 5000,  # Python reads no longer integer
        "nan",
        "",
    ],
)
def test_n_08_a_time_that_is_not_plain_seconds_is_refused(timestamp: str) -> None:
    assert not accepted(signed(timestamp=timestamp))


@pytest.mark.parametrize("message_id", ["", "evt n", "evt_n\n", "é", "e" * 129])
def test_n_09_an_id_that_we_never_make_is_refused(message_id: str) -> None:
    assert not accepted(signed(message_id))


def test_n_09_an_id_cannot_borrow_from_the_time() -> None:
    dotted = signed("evt_n", f"1.{NOW}") | {
        "webhook-id": "evt_n.1",
        "webhook-timestamp": str(NOW),
    }
    assert not accepted(dotted)


@pytest.mark.parametrize("missing", list(signed()))
def test_n_10_a_missing_header_is_a_bad_signature(missing: str) -> None:
    assert not accepted({name: value for name, value in signed().items() if name != missing})


@pytest.mark.parametrize("signature", ["", HEX, HEX.upper(), "é" * 64, "\ud800", "z" * 64, GOOD])
def test_a_wrong_signature_of_the_body_alone_is_refused(signature: str) -> None:
    with pytest.raises(BadSignature):
        verify_body(BODY, signature, SECRET)


class EdVector(NamedTuple):
    secret: str
    public_key: str
    id: str
    timestamp: int
    body: bytes
    signature: str


ED_VECTORS = [
    EdVector(  # the example of the Standard Webhooks specification
        "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg==",
        "whpk_1SiA4o9hyqTCpIqC5V9HUakiiaeACeqfZTInDBbOir4=",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==",
    ),
    EdVector(
        "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8DoQe/884Qvh1w3RjnS8CZZ+TWMJulDV8d3IZkElUxuA==",
        "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
        "evt_ed",
        NOW,
        BODY,
        "v1a,TGFBEKrW1v97k4lg3PmoSeY4mcd4MXc13261AOwn9sAaCDhGLLMmgOUqdxjG4nO8uG8nsiMMlUsc+4jdsf3CDw==",
    ),
]
each_ed_vector = pytest.mark.parametrize("vector", ED_VECTORS, ids=["V-ED1", "V-ED2"])


@each_ed_vector
def test_ed25519_signs_as_the_standard_says(vector: EdVector) -> None:
    keys = keys_of(vector.secret)
    assert public_key_of(vector.secret) == vector.public_key
    made = standard_signature([keys], vector.id, vector.timestamp, vector.body)
    assert made == vector.signature
    both = standard_signature([keys, keys_of(SECRET)], vector.id, vector.timestamp, vector.body)
    assert both.startswith(f"{vector.signature} v1,")
    assert aetherflow_signature(keys, vector.body) == aetherflow_signature(
        Keys(vector.secret.encode(), b""), vector.body
    )


@each_ed_vector
def test_a_public_key_verifies_what_its_other_half_signed(vector: EdVector) -> None:
    def check(signature: str, body: bytes = vector.body, key: str = vector.public_key) -> None:
        headers = {
            "webhook-id": vector.id,
            "webhook-timestamp": str(vector.timestamp),
            "webhook-signature": signature,
        }
        verify(body, headers, key, now_unix_seconds=vector.timestamp)

    check(vector.signature)
    check(f"v1,AAAA nonsense v1a,{'A' * 88} {vector.signature}")
    for place in range(len(vector.body)):
        changed = bytearray(vector.body)
        changed[place] ^= 1
        with pytest.raises(BadSignature):
            check(vector.signature, bytes(changed))
    for signature in ("", "v1a,", vector.signature[:-4], vector.signature.replace("v1a", "v1")):
        with pytest.raises(BadSignature):
            check(signature)
    for key in ("whpk_", "whpk_AAAA", "whpk_é", "whpk_" + base64.b64encode(bytes(32)).decode()):
        with pytest.raises(BadSignature):
            check(vector.signature, key=key)


def test_new_keys_are_a_seed_and_its_public_key() -> None:
    assert new_secret(bytes(range(32)), ed25519=True) == ED_VECTORS[1].secret
    with pytest.raises(ValueError, match="32"):
        new_secret(bytes(31), ed25519=True)
    assert public_key_of(new_secret(bytes(32))) is None


@pytest.mark.parametrize(
    "secret",
    [
        "whsk_",
        "whsk_" + "A" * 40,
        ED_VECTORS[0].secret[:-2],
        ED_VECTORS[0].secret[:60] + ED_VECTORS[1].secret[60:],  # of two pairs
        ED_VECTORS[0].public_key,
    ],
)
def test_a_half_pair_of_keys_is_refused(secret: str) -> None:
    with pytest.raises(InputRefused) as refused:
        check_secret(secret)
    assert "printable" in str(refused.value) or "key" in str(refused.value)
    if len(secret) > 5:
        assert secret[5:] not in str(refused.value)
    assert check_secret(ED_VECTORS[0].secret) == ED_VECTORS[0].secret


def fuzzed(dice: random.Random, value: str) -> str:
    """Change a header's value as a careless or a hostile sender might."""
    odd = [
        "\x00",
        "\xff",
        "\ud800",
        "é",
        "\u0661",
        " ",
        "  ",
        ",",
        ".",
        "=",
        "v1,",
        "v1a,",
        "-",
        "+",
    ]
    for _ in range(dice.randint(1, 4)):
        place = dice.randint(0, len(value))
        match dice.randint(0, 5):
            case 0:
                value = value[:place] + dice.choice(odd) + value[place:]
            case 1:
                value = value[:place]
            case 2:
                value = value[:place] + chr(dice.randint(0, 0x10FFFF)) + value[place + 1 :]
            case 3:
                value = value * dice.randint(0, 3)
            case 4:
                value = value[place:] + value[:place]
            case 5:
                value = dice.choice(["", value.upper(), value[::-1], "9" * 5000, f" {value} "])
    return value


@pytest.mark.parametrize(
    ("secret", "times"), [(SECRET, 100_000), (ED_VECTORS[1].public_key, 20_000)]
)
def test_a_hundred_thousand_fuzzed_headers_raise_only_what_is_documented(
    secret: str, times: int
) -> None:
    dice = random.Random(secret)
    signed = ED_VECTORS[1].secret if secret.startswith("whpk_") else secret
    good = {
        "webhook-id": "evt_n",
        "webhook-timestamp": str(NOW),
        "webhook-signature": standard_signature([keys_of(signed)], "evt_n", NOW, BODY),
    }
    verified = 0
    for _ in range(times):
        headers = dict(good)
        for name in dice.sample(list(good), dice.randint(1, 3)):
            headers[name] = fuzzed(dice, headers[name])
        if dice.random() < 0.1:
            del headers[dice.choice(list(headers))]
        try:
            verify(BODY, headers, secret, now_unix_seconds=NOW)
        except BadSignature:
            continue
        # Whatever got by says the same: what is signed is untouched, and so is one signature.
        assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("evt_n", str(NOW))
        assert good["webhook-signature"] in headers["webhook-signature"].split(" ")
        verified += 1
    assert verified
