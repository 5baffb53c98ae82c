"""Sealing: what is stored tells nothing, and opens only with its key and for its owner."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused, SecretUnreadable
from aetherflow_hooks.rules.sealing import Keyring, parse_keys, write_key
from aetherflow_hooks.rules.signing import check_secret

OLD, NEW = bytes(32), bytes(range(32))
RING = Keyring({"old": OLD})
NONCE = bytes(12)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.binary(min_size=12, max_size=12),
)
def test_what_is_sealed_opens_to_what_it_was(secret: str, nonce: bytes) -> None:
    stored = RING.seal(secret, "ep_1", nonce)
    assert stored.isascii()
    assert RING.open(stored, "ep_1") == secret


def test_the_same_secret_looks_different_each_time() -> None:
    first, second = (RING.seal("a secret of ours", "ep_1", nonce) for nonce in (NONCE, b"1" * 12))
    assert first != second
    assert "secret of" not in base64.b64decode(first.rpartition(":")[2]).decode("latin-1")


@pytest.mark.parametrize(
    "spoil",
    [
        lambda stored: stored[:-1],
        lambda stored: stored[:-4] + "AAA=",
        lambda stored: stored.replace("old:", "old:AAAA"),
        lambda _: "sealed:1:old:",
        lambda _: "sealed:1:old:é",
        lambda _: "sealed:1:",
    ],
)
def test_one_changed_letter_is_noticed(spoil: object) -> None:
    assert callable(spoil)
    with pytest.raises(SecretUnreadable, match="the secret of ep_1 cannot be read"):
        RING.open(spoil(RING.seal("s" * 16, "ep_1", NONCE)), "ep_1")


def test_it_opens_for_its_owner_only() -> None:
    with pytest.raises(SecretUnreadable, match="not what was sealed for this endpoint"):
        RING.open(RING.seal("s" * 16, "ep_1", NONCE), "ep_2")


def test_a_new_key_seals_and_the_old_one_still_opens() -> None:
    both = Keyring({"new": NEW, "old": OLD})
    assert both.open(RING.seal("s" * 16, "ep_1", NONCE), "ep_1") == "s" * 16
    sealed = both.seal("s" * 16, "ep_1", NONCE)
    assert sealed.startswith("sealed:1:new:")
    with pytest.raises(SecretUnreadable, match="sealed with the key new, which is not here"):
        RING.open(sealed, "ep_1")


def test_without_keys_secrets_stay_as_they_are() -> None:
    assert Keyring({}).seal("s" * 16, "ep_1", NONCE) == "s" * 16
    assert RING.open("s" * 16, "ep_1") == "s" * 16
    with pytest.raises(InputRefused, match="does not start with sealed:"):
        check_secret("sealed:1:old:aaaaaaaaaaa")


def test_what_a_newer_program_has_sealed_is_not_taken_for_a_secret() -> None:
    with pytest.raises(SecretUnreadable, match="in a way that this program does not know"):
        RING.open("sealed:2:old:AAAA", "ep_1")


def test_keys_are_lines() -> None:
    text = f"# ours\n\n{write_key('new', NEW)}\n  {write_key('old', OLD)}  \r\n"
    assert list(parse_keys(text).items()) == [("new", NEW), ("old", OLD)]
    assert parse_keys("") == {}


@pytest.mark.parametrize(
    "line",
    [
        "old",
        base64.b64encode(OLD).decode(),
        f"Old {base64.b64encode(OLD).decode()}",
        f"old: {base64.b64encode(OLD).decode()}",
        f"old {base64.b64encode(OLD[:31]).decode()}",
        f"old {base64.b64encode(OLD).decode()[:-1]}",
        f"old {base64.b64encode(OLD).decode()} again",
        write_key("new", OLD),  # an id that was there before
    ],
)
def test_a_line_that_is_no_key_is_refused_without_being_told(line: str) -> None:
    with pytest.raises(InputRefused, match="line 2 of the keys is not an id") as refused:
        parse_keys(f"{write_key('new', NEW)}\n{line}\n")
    assert base64.b64encode(OLD).decode()[:20] not in str(refused.value)
