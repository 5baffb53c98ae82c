"""Addresses: where a POST may go, address by address and URL by URL."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherflow_hooks.errors import InputRefused
from aetherflow_hooks.rules.addresses import (
    CLOSED_REASON,
    LOOPBACK,
    Egress,
    Net,
    nets_at,
    parse_entry,
    parse_net,
    why_closed,
)

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


def why(host: str, port: int, allowed: Sequence[str] = (), denied: Sequence[str] = ()) -> str:
    """Tell the operator's reason why an address is closed; "" where it is open."""
    egress = Egress(
        https_only=True,
        allowed=tuple(map(parse_net, allowed)),
        denied=tuple(map(parse_net, denied)),
    )
    closed = why_closed(host, port, egress)
    assert closed is None or closed.reason == CLOSED_REASON  # the same, whatever the rule
    return closed.detail if closed else ""


@pytest.mark.parametrize("net", CLOSED)
def test_a_closed_net_is_closed_from_its_first_to_its_last_address(net: str) -> None:
    network = ip_network(net)
    for address in (network[0], network[network.num_addresses // 2], network[-1]):
        assert why(str(address), 443) == f"{address} is not a public address"


@pytest.mark.parametrize("neighbour", [n for n in CLOSED.values() if n])
def test_its_neighbour_is_open(neighbour: str) -> None:
    assert not why(neighbour, 443)


@pytest.mark.parametrize(
    "host", ["8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2A00:1450:4001::200E"]
)
def test_public_addresses_are_open(host: str) -> None:
    assert not why(host, 80)


@pytest.mark.parametrize("inner", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "8.8.8.8"])
@pytest.mark.parametrize("form", EMBEDDED)
def test_ipv4_inside_ipv6_is_closed_even_where_the_ipv4_is_open(form: str, inner: str) -> None:
    allowed = ["0.0.0.0/0"]
    four = int(IPv4Address(inner))
    inside = [
        form.format(inner),
        str(IPv6Address((0x2002 << 112) | (four << 80))),  # 6to4
        str(IPv6Address((0x20010000 << 96) | (four ^ 0xFFFFFFFF))),  # Teredo
    ]
    for host in inside:
        assert why(host, 443, allowed), host
        assert why(str(ip_address(host)), 443, allowed), host


@pytest.mark.parametrize("host", ["fe80::1%lo", "::1%lo", "2606:4700:4700::1111%eth0", "fe80::1%1"])
def test_an_address_of_one_link_is_closed_whatever_is_allowed(host: str) -> None:
    assert why(host, 443, ["::/0"])


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "example.com", "", "127.1", "2130706433", "0177.0.0.1", "0x7f.1"),
        *("127.0.0.1.", "127.0.0.01", "1.2.3.4.5", "256.1.1.1", "[::1]", "::1]", "8.8.8.8/32"),
        *(" 8.8.8.8", "8.8.8.8\n", "\uff18.8.8.8", "127.0.0.1\x00", "8.8.8.8%eth0", "::g"),
    ],
)
def test_what_is_not_a_plain_number_is_closed(host: str) -> None:
    assert why(host, 443) == f"{host!r} is not a numeric address"


@given(st.ip_addresses() | st.text())
def test_every_host_is_either_open_or_closed_for_a_reason(host: object) -> None:
    assert why(str(host), 443).isprintable()


@pytest.mark.parametrize(
    ("port", "is_open"), [(8999, False), (9000, True), (9001, True), (9100, True), (9101, False)]
)
def test_q_14_what_is_allowed_is_open_on_its_ports_only(port: int, is_open: bool) -> None:
    allowed = ["10.0.0.0/8:5432", "127.0.0.1/32:9000-9100"]
    assert (why("127.0.0.1", port, allowed) == "") is is_open
    assert why("127.0.0.2", port, allowed)
    assert why("10.9.9.9", port, allowed)
    assert not why("10.9.9.9", 5432, allowed)


def test_an_allowed_net_of_ipv6_lets_through_what_is_in_it() -> None:
    allowed = ["[fd00:1::]/32:8443", "::ffff:10.0.0.0/104"]
    assert not why("fd00:1::9", 8443, allowed)
    assert why("fd00:1::9", 443, allowed)
    assert why("fd00:2::9", 8443, allowed)
    assert not why("::ffff:10.9.9.9", 443, allowed)  # asked for in so many words
    assert why("10.9.9.9", 443, allowed)


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
    assert parse_net(text) == Net(ip_network(network), *ports)


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "example.com:443", "10.0.0.0/33", "10.0.0.0/8:0", "10.0.0.0/-1"),
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
    for parse in (parse_net, parse_entry):
        with pytest.raises(InputRefused, match="no network with ports") as refused:
            parse(text)
        assert repr(text) in str(refused.value)


def test_a_name_of_a_private_network_can_be_let_through() -> None:
    for text in ("localhost", "receiver", "hooks.internal", ".internal"):
        assert parse_entry(text) == text
    assert parse_entry("10.0.0.0/8") == parse_net("10.0.0.0/8")
    egress = Egress(https_only=True, names=("receiver", ".internal"))
    assert egress.knows("receiver")
    assert egress.knows("a.b.internal")
    for name in ("internal", "areceiver", "receiver.a", "notinternal"):
        assert not egress.knows(name)
    for text in ("example.com", ".com.example"):
        with pytest.raises(InputRefused, match="needs no entry"):
            parse_entry(text)
    for text in ("a..internal", "-a", "ex ample", "Localhost", "10", "localhost:80"):
        with pytest.raises(InputRefused):
            parse_entry(text)


def test_ports_of_other_services_are_open_only_where_their_address_is_allowed() -> None:
    allowed = ["10.1.2.3", "10.9.0.0/16:443"]
    assert why("93.184.216.34", 25, allowed) == "port 25 belongs to another service"
    assert not why("10.1.2.3", 25, allowed)
    assert why("10.9.0.1", 25, allowed)


def test_a_06_what_is_denied_is_closed_whatever_is_allowed() -> None:
    denied = ["127.0.0.1:5433", "93.184.216.0/24"]
    everywhere = ["0.0.0.0/0", "::/0"]
    assert why("127.0.0.1", 5433, everywhere, denied) == "127.0.0.1 with port 5433 is denied"
    assert not why("127.0.0.1", 5434, everywhere, denied)
    assert why("93.184.216.34", 443, everywhere, denied)
    assert why("93.184.216.34", 443, denied=denied)


def test_places_of_our_own_become_nets_and_one_loopback_means_all() -> None:
    own = nets_at([("127.0.0.1", 5432), ("::1", 5432), ("10.1.2.3", 5433), ("fe80::1%lo", 1)])
    assert own == (
        *(Net(network, 5432, 5432) for network in LOOPBACK),
        parse_net("10.1.2.3:5433"),
        parse_net("[fe80::1]:1"),
    )
