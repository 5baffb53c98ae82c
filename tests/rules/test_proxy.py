"""The proxy: how it is written, and what goes past it."""

import pytest

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.proxy import Proxy, parse_past, parse_proxy


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy", Proxy("http://proxy:80", "proxy", 80)),
        ("https://proxy.example/", Proxy("https://proxy.example:443", "proxy.example", 443)),
        ("http://127.0.0.1:3128", Proxy("http://127.0.0.1:3128", "127.0.0.1", 3128)),
        ("http://[fd00::1]:3128", Proxy("http://[fd00::1]:3128", "fd00::1", 3128)),
        ("http://a:b%40c@p:1", Proxy("http://p:1", "p", 1, "Basic YTpiQGM=")),
        ("http://a@p:1", Proxy("http://p:1", "p", 1, "Basic YTo=")),
    ],
)
def test_a_proxy_is_a_place_and_maybe_a_user(text: str, proxy: Proxy) -> None:
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    "text", ["proxy:3128", "socks5://p:1", "http://", "http://p:99999", "http://p/x", "http://p?x"]
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputRefused, match="a proxy is written as"):
        parse_proxy(text)


def test_some_go_past_it() -> None:
    past = ("one.example", ".two.example", "10.0.0.0/8:80-90", "fd00::/8", "LOCALHOST")
    proxy = parse_proxy("http://p:1", past)
    for host, port in [
        ("one.example", 443),
        ("a.two.example", 443),
        ("10.1.2.3", 85),
        ("[fd00::1]", 443),
        ("localhost", 80),
    ]:
        assert not proxy.serves(host, port)
    for host, port in [
        ("a.one.example", 443),
        ("two.example", 443),
        ("10.1.2.3", 443),
        ("[2001:db8::1]", 443),
        ("other.example", 443),
    ]:
        assert proxy.serves(host, port)
    for text in ("", "a b", "10.0.0.0/99", "http://a"):
        with pytest.raises(InputRefused):
            parse_past(text)
