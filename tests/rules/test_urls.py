"""URLs: hundreds of spellings, each taken in its one form or refused for the rule it breaks."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from aetherflow_hooks.rules.addresses import Egress, parse_net
from aetherflow_hooks.rules.urls import UrlProblem, UrlRefused, parse_url

OPEN = Egress(https_only=False)
EVERYWHERE = Egress(
    https_only=False, allowed=(parse_net("0.0.0.0/0"),), names=("localhost", ".localhost")
)
LONG_LABEL = "a" * 64
TAKEN = {
    "https://example.com": "https://example.com/",
    "https://example.com/hooks/a?b=c&d=%20": "https://example.com/hooks/a?b=c&d=%20",
    "HTTPS://EXAMPLE.COM/Hooks": "https://example.com/Hooks",
    "https://example.com./": "https://example.com/",
    "https://example.com:443/": "https://example.com/",
    "http://example.com:80/": "http://example.com/",
    "http://example.com:443/": "http://example.com:443/",
    "http://example.com:8443/": "http://example.com:8443/",
    "http://example.com?@127.0.0.1/": "http://example.com/?@127.0.0.1/",
    "http://example.com/a?": "http://example.com/a",
    "http://example.com/a??": "http://example.com/a??",
    "http://ex_ample.com/": "http://ex_ample.com/",
    "http://xn--e1afmkfd.xn--p1ai/": "http://xn--e1afmkfd.xn--p1ai/",
    "http://пример.рф/": "http://xn--e1afmkfd.xn--p1ai/",
    "http://EXAMPLE。com/": "http://example.com/",
    "http://faß.de/": "http://xn--fa-hia.de/",
    "http://example.com/päth?q=ü": "http://example.com/p%C3%A4th?q=%C3%BC",
    'http://example.com/"<>^`{|}': "http://example.com/%22%3C%3E%5E%60%7B%7C%7D",
    "http://example.com/a//b/../c": "http://example.com/a//b/../c",
    "http://93.184.216.34/": "http://93.184.216.34/",
    "http://93.184.216.34./": "http://93.184.216.34/",
    "http://[2606:4700:4700::1111]/": "http://[2606:4700:4700::1111]/",
    "http://[2606:4700:4700:0::1111]:8443": "http://[2606:4700:4700::1111]:8443/",
}

REFUSED = {
    UrlProblem.LENGTH: ["", "http://example.com/" + "a" * 2030],
    UrlProblem.CHARACTERS: [
        " http://example.com/",
        "http://127.0.0.1\x00.example.com/",
        "http://loc\xadalhost/",
        "http://localho\u200bst/",
        "http://127.0.0.1\\@example.com/",
        "http:\\\\example.com",
        "ht\ntp://example.com/",
        "http://example.com\t/",
        "http://example.com: 80/",
        "http://example.com/\x1b[2J",
        "http://example.com/\x7f",
        "http://example.com/\x9b",
        "http://example.com/\u202e",
        "http://example.com/\ud800",
        "http://example.com/\xa0",
        "http://example.com/\u2028",
    ],
    UrlProblem.SCHEME: [
        "http:example.com",
        "http:/example.com",
        "//example.com/",
        "example.com",
        "/hooks",
        "://example.com/",
        "file:///etc/passwd",
        "gopher://example.com/_x",
        "ws://example.com/",
        "wss://example.com/",
        "tcp://example.com/",
        "httpss://example.com/",
        "javascript:alert(1)",
        "data:text/plain,x",
    ],
    UrlProblem.USERINFO: [
        "http://user:pass@example.com/",
        "http://example.com@127.0.0.1/",
        "http://@example.com/",
        "http://:@example.com/",
        "http://a@b@example.com/",
    ],
    UrlProblem.FRAGMENT: [
        "http://example.com#@127.0.0.1/",
        "http://example.com/#a",
        "http://example.com/#",
        "http://example.com/?a#",
    ],
    UrlProblem.AUTHORITY: [
        "http://::1/",
        "http://[::1/",
        "http://::1]/",
        "http://[[::1]]/",
        "http://[::1]a/",
        "http://example.com:+80/",
        "http://example.com:-1/",
        "http://example.com:8_0/",
        "http://example.com:80:80/",
        "http://example.com:\uff18\uff10/",
    ],
    UrlProblem.HOST: [
        "http://",
        "http:///hooks",
        "http://:80/",
        "http://127.0.1/",
        "http://2130706433/",
        "http://0177.0.0.1/",
        "http://127.0.0.01/",
        "http://0x7f000001/",
        "http://0x7f.1/",
        "http://0x7f.0x0.0x0.0x1/",
        "http://0/",
        "http://127.0.0.1../",
        "http://256.1.1.1/",
        "http://1.2.3.4.5/",
        "http://example.0/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1%lo]/",
        "http://[127.0.0.1]/",
        "http://[v1.x]/",
        "http://[]/",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://localhost./",
        "http://localhost../",
        "http://foo.localhost/",
        "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
        "http://localho\u017ft/",  # a long s
        "http://postgres/",
        "http://metadata.google.internal/",
        "http://router.home.arpa/",
        "http://printer.local/",
        "http://wiki.corp/",
        "http://local%68ost/",
        "http://127.0.0.1%00.example.com/",
        "http://example.com%40127.0.0.1/",
        "http://.example.com/",
        "http://a..example.com/",
        f"http://{LONG_LABEL}.example.com/",
        "http://" + "a.example." * 26 + "com/",
        "http://*.example.com/",
        "http://-a.example.com/",
        "http://a-.example.com/",
        "http://a,b.example.com/",
        "http://xn--0.com/",
        "http://xn--.com/",
        "http://ex℀mple.com/",
        "http://\u0301a.com/",
    ],
    UrlProblem.PORT: [
        "http://example.com:/",
        "http://example.com:0/",
        "http://example.com:00/",
        "http://example.com:080/",
        "http://example.com:65536/",
        "http://example.com:" + "1" * 1000,
        "http://example.com:22/",
        "http://example.com:25/",
        "http://example.com:5432/",
        "http://example.com:6379/",
        "http://93.184.216.34:6000/",
    ],
    UrlProblem.ADDRESS: [
        "http://127.0.0.1/",
        "http://127.0.0.1./",
        "http://127.255.255.254/",
        "http://0.0.0.0/",
        "http://①②⑦.⓪.⓪.①/",
        "http://127。0。0。1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://169.254.170.2/",
        "http://172.16.0.1/",
        "http://172.31.255.255/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://192.0.0.192/",
        "http://192.0.0.8/",
        "http://198.18.0.1/",
        "http://198.51.100.1/",
        "http://192.88.99.1/",
        "http://224.0.0.1/",
        "http://240.0.0.1/",
        "http://255.255.255.255/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[::FFFF:8.8.8.8]/",
        "http://[::127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[2002:7f00:1::]/",
        "http://[2002:a9fe:a9fe::1]/",
        "http://[2001:db8::1]/",
        "http://[2001:2::1]/",
        "http://[5f00::1]/",
        "http://[100::1]/",
        "http://[fd00:ec2::254]/",
        "http://[fd20:ce::254]/",
        "http://[ff02::1]/",
        "http://[ff0e::1]/",
    ],
}


@pytest.mark.parametrize(("url", "form"), TAKEN.items())
def test_a_good_url_has_one_form(url: str, form: str) -> None:
    assert str(parse_url(url, OPEN)) == form
    assert str(parse_url(form, OPEN)) == form


@pytest.mark.parametrize(
    ("problem", "url"), [(problem, url) for problem, urls in REFUSED.items() for url in urls]
)
def test_a_bad_url_is_refused_for_the_rule_it_breaks(problem: UrlProblem, url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_url(url, OPEN)
    assert refused.value.problem is problem
    assert str(refused.value).isprintable()


def test_http_is_for_development() -> None:
    with pytest.raises(UrlRefused, match="http:// is for the development profile"):
        parse_url("http://example.com/", Egress(https_only=True))
    assert parse_url("https://example.com/", Egress(https_only=True))


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("http://127.0.0.1/", True),
        ("https://127.0.0.1/", False),
        ("http://127.0.0.1:80/", True),
        ("https://127.0.0.1:80/", True),
        ("http://127.0.0.1:81/", False),
        ("http://127.0.0.2/", False),
    ],
)
def test_an_allowed_literal_may_be_used_on_its_ports(url: str, good: bool) -> None:
    egress = Egress(https_only=False, allowed=(parse_net("127.0.0.1:80"),))
    if good:
        assert parse_url(url, egress).host == "127.0.0.1"
    else:
        with pytest.raises(UrlRefused, match=r"`egress\.allow`"):
            parse_url(url, egress)


@pytest.mark.parametrize("name", ["localhost", "receiver", "receiver.internal", "a.home.arpa"])
def test_names_of_a_private_network_are_for_those_who_allow_one(name: str) -> None:
    network = parse_net("10.0.0.0/8:6000-9000")
    egress = Egress(https_only=False, allowed=(network,), names=(name,))
    assert parse_url(f"http://{name}:6000/", egress).host == name
    with pytest.raises(UrlRefused, match=r"a private network that `egress\.allow` does not hold"):
        parse_url(f"http://{name}:6000/", egress._replace(names=("other",)))
    with pytest.raises(UrlRefused, match="port 22 belongs to another service"):
        parse_url(f"http://{name}:22/", egress)


def test_a_url_is_bounded_in_the_form_in_which_it_is_read_again() -> None:
    with pytest.raises(UrlRefused, match="percent-encoded") as refused:
        parse_url("https://example.com/" + "ü" * 400, OPEN)
    assert refused.value.problem is UrlProblem.LENGTH
    form = str(parse_url("https://example.com/" + "ü" * 338, OPEN))
    assert len(form) == 2048
    assert str(parse_url(form, OPEN)) == form


@pytest.mark.parametrize(
    "url",
    ["ftp://a.b/?canary", "http://a.b/?canary#x", "http://a.b/?canary\\", "http://u@a.b/?canary"],
)
def test_a_refusal_does_not_repeat_what_may_be_a_secret(url: str) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_url(url, OPEN)
    assert "canary" not in str(refused.value)


HOSTILE = st.text(st.sampled_from("hHtTpPsS:/@[]#?%.0127axX-_\\ \u3002\u017f①é\u200b\x00"))


@given(
    st.text(st.characters())
    | st.from_regex(r"https?://[^/]*(/.*)?")
    | HOSTILE.map("http://".__add__)
)
def test_others_read_what_is_taken_as_it_was_meant(text: str) -> None:
    try:
        url = parse_url(text, EVERYWHERE)
    except UrlRefused:
        return
    ours = (url.scheme, url.host.strip("[]"), url.port)
    by_client, by_stdlib = URL(str(url), encoded=True), urlsplit(str(url))
    assert (by_client.scheme, by_client.raw_host, by_client.port) == ours
    assert by_client.raw_path_qs == url.path
    assert (by_stdlib.scheme, by_stdlib.hostname) == ours[:2]
    assert (by_stdlib.port or by_client.port) == url.port
    assert str(url).isascii()
    assert parse_url(str(url), EVERYWHERE) == url
