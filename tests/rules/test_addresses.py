"""Addresses: where a POST may go, address by address and URL by URL."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.addresses import Allowed, parse_allowed, why_closed

# The nets of requirements, each with an open address next to it where there is one.
CLOSED = {
    "0.0.0.0/8": "1.0.0.0",
    "10.0.0.0/8": "11.0.0.0",
    "100.64.0.0/10": "100.63.255.255",
    "127.0.0.0/8": "126.255.255.255",
    "168.63.129.16/32": "168.63.129.17",
    "169.254.0.0/16": "169.255.0.0",
    "172.16.0.0/12": "172.32.0.0",
    "192.0.0.0/24": "192.0.1.0",
    "192.0.2.0/24": "192.0.3.0",
    "192.31.196.0/24": "192.31.195.255",
    "192.52.193.0/24": "192.52.194.0",
    "192.88.99.0/24": "192.88.98.255",
    "192.168.0.0/16": "192.169.0.0",
    "192.175.48.0/24": "192.175.49.0",
    "198.18.0.0/15": "198.20.0.0",
    "198.51.100.0/24": "198.51.99.255",
    "203.0.113.0/24": "203.0.114.0",
    "224.0.0.0/4": "223.255.255.255",
    "240.0.0.0/4": None,
    "::/3": "2000::",
    "4000::/2": "3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
    "8000::/1": None,
    "2001::/23": "2001:200::",
    "2001:db8::/32": "2001:db9::",
    "2002::/16": "2003::",
    "2620:4f:8000::/48": "2620:4f:7fff:ffff:ffff:ffff:ffff:ffff",
    "3fff::/20": "3fff:1000::",
}

EMBEDDED = [
    "::ffff:{}",  # mapped
    "::{}",  # compatible, long given up
    "::ffff:0:{}",  # translated
    "64:ff9b::{}",  # NAT64
    "64:ff9b:1::{}",  # NAT64 of one's own
    "fe80::5efe:{}",  # ISATAP
]


@pytest.mark.parametrize("net", CLOSED)
def test_a_closed_net_is_closed_from_its_first_to_its_last_address(net: str) -> None:
    network = ip_network(net)
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        assert why_closed(str(address), 443, []) == f"{address} is not a public address"


@pytest.mark.parametrize("neighbour", [n for n in CLOSED.values() if n])
def test_its_neighbour_is_open(neighbour: str) -> None:
    assert why_closed(neighbour, 443, []) is None


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2A00:1450:4001::200E"]
)
def test_public_addresses_are_open(host: str) -> None:
    assert why_closed(host, 80, []) is None


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "8.8.8.8"])
@pytest.mark.parametrize("form", EMBEDDED)
def test_ipv4_inside_ipv6_is_closed_even_where_the_ipv4_is_open(form: str, inner: str) -> None:
    allowed = [parse_allowed("0.0.0.0/0")]
    four = int(IPv4Address(inner))
    inside = [
        form.format(inner),
        str(IPv6Address((0x2002 << 112) | (four << 80))),  # 6to4
        str(IPv6Address((0x20010000 << 96) | (four ^ 0xFFFFFFFF))),  # Teredo
    ]
    for host in inside:
        assert why_closed(host, 443, allowed), host
        assert why_closed(str(ip_address(host)), 443, allowed), host


@pytest.mark.parametrize("host", ["fe80::1%lo", "::1%lo", "2606:4700:4700::1111%eth0", "fe80::1%1"])
def test_an_address_of_one_link_is_closed_whatever_is_allowed(host: str) -> None:
    assert why_closed(host, 443, [parse_allowed("::/0")])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "example.com", "", "127.1", "2130706433", "0177.0.0.1", "0x7f.1"),
        *("127.0.0.1.", "127.0.0.01", "1.2.3.4.5", "256.1.1.1", "[::1]", "::1]", "8.8.8.8/32"),
        *(" 8.8.8.8", "8.8.8.8\n", "\uff18.8.8.8", "127.0.0.1\x00", "8.8.8.8%eth0", "::g"),
    ],
)
def test_what_is_not_a_plain_number_is_closed(host: str) -> None:
    assert why_closed(host, 443, []) == f"{host!r} is not a numeric address"


@given(st.ip_addresses() | st.text())
def test_every_host_is_either_open_or_closed_for_a_reason(host: object) -> None:
    why = why_closed(str(host), 443, [])
    assert why is None or why.isprintable()


@pytest.mark.parametrize(
    ("port", "is_open"), [(8999, False), (9000, True), (9001, True), (9100, True), (9101, False)]
)
def test_q_14_what_is_allowed_is_open_on_its_ports_only(port: int, is_open: bool) -> None:
    allowed = [parse_allowed("10.0.0.0/8:5432"), parse_allowed("127.0.0.1/32:9000-9100")]
    assert (why_closed("127.0.0.1", port, allowed) is None) is is_open
    assert why_closed("127.0.0.2", port, allowed)
    assert why_closed("10.9.9.9", port, allowed)
    assert why_closed("10.9.9.9", 5432, allowed) is None


def test_an_allowed_net_of_ipv6_lets_through_what_is_in_it() -> None:
    allowed = [parse_allowed("[fd00:1::]/32:8443"), parse_allowed("::ffff:10.0.0.0/104")]
    assert why_closed("fd00:1::9", 8443, allowed) is None
    assert why_closed("fd00:1::9", 443, allowed)
    assert why_closed("fd00:2::9", 8443, allowed)
    assert why_closed("::ffff:10.9.9.9", 443, allowed) is None  # asked for in so many words
    assert why_closed("10.9.9.9", 443, allowed)


@pytest.mark.parametrize(
    ("text", "network", "ports"),
    [
        ("10.1.0.0/16", "10.1.0.0/16", (1, 65_535)),
        ("10.1.2.3", "10.1.2.3/32", (1, 65_535)),
        ("10.1.2.3:8080", "10.1.2.3/32", (8080, 8080)),
        ("10.0.0.0/8:8000-8100", "10.0.0.0/8", (8000, 8100)),
        ("0.0.0.0/0:1-65535", "0.0.0.0/0", (1, 65_535)),
        ("::1", "::1/128", (1, 65_535)),
        ("fd00::/8", "fd00::/8", (1, 65_535)),
        ("[fd00::]/8:443", "fd00::/8", (443, 443)),
        ("[::1]:9000-9001", "::1/128", (9000, 9001)),
    ],
)
def test_an_entry_is_a_network_and_its_ports(
    text: str, network: str, ports: tuple[int, int]
) -> None:
    assert parse_allowed(text) == Allowed(ip_network(network), *ports)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "localhost", "example.com:443", "10.0.0.0/33", "10.0.0.0/8:0", "10.0.0.0/-1"),
        *("10.0.0.0/8:65536", "10.0.0.0/8:8100-8000", "10.0.0.0/8:", "10.0.0.0/8:80-", "10.1/16"),
        *("10.0.0.0/8:80-90-95", "10.0.0.0/255.0.0.0", "10.1.2.3/8", "10.0.0.0/8\n", "010.0.0.1"),
        *(
            "fe80::1%lo",
            "[fd00::",
            "fd00::]/8",
            "[fd00::/8]:443",
            "fd00::/129",
            "\u0661\u0660.0.0.0/8",
        ),
    ],
)
def test_an_entry_that_is_neither_is_refused_by_name(text: str) -> None:
    with pytest.raises(InputRefused, match="no network with ports") as refused:
        parse_allowed(text)
    assert repr(text) in str(refused.value)
