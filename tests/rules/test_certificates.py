"""Certificates of clients: whole, with their own key, or refused without being repeated."""

from pathlib import Path

import pytest

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.certificates import read_certificate
from tests.authority import Authority


def test_a_certificate_says_whom_it_names_and_for_how_long(authority: Authority) -> None:
    pem = authority.issue("hooks.example", days=5).read_text()
    found = read_certificate(pem)
    assert found.subject == "CN=hooks.example"
    assert found.expires_at.tzinfo
    # With the authority's behind it, and in another order.
    head, mark, key = pem.partition("-----BEGIN PRIVATE KEY-----")
    chain = head + authority.file.read_text()
    assert read_certificate(chain + mark + key) == read_certificate(mark + key + chain) == found


def test_what_is_not_whole_is_refused(authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue("a").read_text()
    head, mark, key = pem.partition("-----BEGIN PRIVATE KEY-----")
    other = Authority(tmp_path, "other").issue("b").read_text().partition(mark)[2]
    for bad in ("", "é", head, mark + key, "x" * 70_000, pem[:-200], head[:200] + mark + key):
        with pytest.raises(InputRefused) as refused:
            read_certificate(bad)
        assert key[:20] not in str(refused.value)
    with pytest.raises(InputRefused, match="not that of the first certificate"):
        read_certificate(head + mark + other)
    with pytest.raises(InputRefused, match="not that of the first certificate"):
        read_certificate(authority.file.read_text() + head + mark + key)
