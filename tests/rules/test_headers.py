"""Headers of an endpoint's own: none that ends a line, replaces ours or frames the body."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.headers import check_headers, header_lines

VALUES = ["a\rb", "a\nb", "a\r\nX: 1", "a\x00", "a\x01", "a\x7f", "é☃", "\ud800", "", " a", "a "]
NAMES = ["", "X A", "X:A", "X\r\n", "-a", "_a", "Ä", "x" * 65]
RESERVED = [
    *("Host", "Content-Length", "content-type", "Transfer-Encoding", "TE", "Trailer", "Expect"),
    *("Connection", "Keep-Alive", "Upgrade", "Proxy-Authorization", "Content-Encoding", "Cookie"),
    *("Accept-Encoding", "User-Agent", "Date", "x-aetherflow-signature", "WEBHOOK-ID", "Metadata"),
    *("webhook-signature", "Forwarded", "X-Forwarded-For", "X-Real-IP", "Metadata-Flavor"),
    *("X-aws-ec2-metadata-token-ttl-seconds", "X-Google-Metadata-Request"),
]


@pytest.mark.parametrize("value", [*VALUES, "x" * 4097])
def test_case_25_a_value_that_could_end_a_line_is_refused(value: str) -> None:
    with pytest.raises(InputRefused, match="the value of X-One is not"):
        check_headers({"X-One": value})


@pytest.mark.parametrize("value", [1, None, b"x", ["x"]])
def test_k_07_a_value_that_is_no_text_is_refused(value: Any) -> None:
    with pytest.raises(InputRefused, match="the value of X-One is not"):
        check_headers({"X-One": value})
    with pytest.raises(InputRefused, match="is no header's name"):
        check_headers({value if isinstance(value, int) else 1: "x"})  # type: ignore[dict-item]


def test_a_value_that_would_be_taken_for_a_sealed_one_is_refused() -> None:
    with pytest.raises(InputRefused, match="does not start with sealed:"):
        check_headers({"X-One": "sealed:1:evil:AAAA"})


def test_a_refusal_does_not_repeat_the_value() -> None:
    with pytest.raises(InputRefused) as refused:
        check_headers({"Authorization": "Bearer canary\n"})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(InputRefused, match="is no header's name") as refused:
        check_headers({name: "1"})
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", RESERVED)
def test_case_23_what_we_say_is_not_replaced(name: str) -> None:
    with pytest.raises(InputRefused, match=f"the header {name} is not for endpoints to set"):
        check_headers({name: "1"})


def test_there_are_not_too_many_and_none_twice() -> None:
    check_headers({f"X-{n}": "1" for n in range(20)})
    with pytest.raises(InputRefused, match="at most 20"):
        check_headers({f"X-{n}": "1" for n in range(21)})
    with pytest.raises(InputRefused, match="given twice"):
        check_headers({"X-One": "1", "x-one": "2"})


def test_good_ones_go_out_as_they_are() -> None:
    headers = {"Authorization": "Bearer a.b-c~d+e/f==", "X-Tab": "a\tb c", "x_under": "~!" * 2048}
    lines = header_lines(headers)
    assert lines == "".join(f"{name}: {value}\r\n" for name, value in headers.items())


@given(st.dictionaries(st.text(max_size=70), st.text(max_size=20), max_size=3))
def test_whatever_passes_is_a_line_each(headers: dict[str, str]) -> None:
    try:
        lines = header_lines(headers)
    except InputRefused:
        return
    assert lines.count("\r\n") == lines.count("\n") == lines.count("\r") == len(headers)
    assert lines.isascii()
