"""Whatever text a filter is: it is taken or refused, and what is taken has nothing slow in it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.filters import check_filter

WORDS = {"exists", "starts", "with", "is", "unknown", "size", "type", "true", "false", "null"}
SIGNS = ("$", "@", ".*", "[*]", "[0]", "[last]", "[0 to 3]", "[", "]", "(", ")", "?(", "!")
OTHERS = ('."a"', '"x"', "1", "-2.5", ".size()", ".type()", "exists (", "starts with", "is unknown")
FOUL = (",", "**", ".**", "+", "-", "/", ".double()", "like_regex", "strict")
OPERATORS = ("&&", "||", "==", "!=", "<", "<=", ">", ">=")
TOKENS = st.sampled_from((*SIGNS, *OTHERS, *FOUL, *OPERATORS, "true", "null"))


def is_taken(written: str) -> bool:
    try:
        check_filter(written)
    except InputRefused:
        return False
    return True


@given(st.text() | st.lists(TOKENS, max_size=30).map(" ".join))
def test_what_is_taken_is_made_of_what_the_language_has(text: str) -> None:
    if not is_taken(text):
        return
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text, flags=re.DOTALL)
    assert not re.search(r"\*\*|,|[+/%{}]|- |like_regex|strict|double|\$\s*\"", bare)
    assert set(re.findall("[a-z]+", bare)) <= WORDS | {"last", "to"}
    assert re.search("==|!=|<|>|exists|starts", bare)


@pytest.mark.parametrize(
    "written",
    ['($."a" == 1)', '!(exists ($."a"[*]?(@."b" > -1.5 && @."c".size() == 2)))', "(1 < $[last])"],
)
def test_what_postgres_writes_is_taken(written: str) -> None:
    assert is_taken(written)


def test_nesting_is_refused_before_it_is_followed() -> None:
    for deep in ("(" * 5000, "!(" * 5000, "exists ($?(" * 5000, '"' * 5001):
        with pytest.raises(InputRefused):
            check_filter(deep)
