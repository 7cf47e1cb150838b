"""Destinations and rules: one spelling for each host, and no way around it."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.egress import (
    Allowlist,
    Destination,
    HostRule,
    parse_authority,
    parse_host,
    parse_rule,
)
from orchestrator.errors import EgressRefused, EgressRequestInvalid

LABELS = st.from_regex(r"[a-z][a-z0-9-]{0,10}[a-z0-9]", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.integers(1, 65535)


@given(NAMES, PORTS)
def test_a_name_has_one_spelling(name: str, port: int) -> None:
    plain = Destination(name, port)

    assert parse_authority(f"{name}:{port}") == plain
    assert parse_authority(f"{name.upper()}.:{port}") == plain
    assert parse_authority(plain.authority) == plain


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), PORTS)
def test_an_address_has_one_spelling(address: IPv4Address | IPv6Address, port: int) -> None:
    host = f"[{address.exploded}]" if isinstance(address, IPv6Address) else str(address)

    destination = parse_authority(f"{host}:{port}")

    assert destination.literal == address
    assert parse_authority(destination.authority) == destination


@pytest.mark.parametrize(
    "text",
    [
        *("2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1.0", "1.2.3.4.5"),
        *("256.0.0.1", "127.0.0.01", "host.0x7f", "host.1", "127.0.0.1..", ".example.org", "a..b"),
        *("", ".", "a b", "a\tb", "a/b", "a\\b", "a@b", "a:b", "a%2eb", "a\x00b", "exämple.org"),
        *("[::1%25lo]", "[::1%lo]", "[::g]", "[127.0.0.1]", "::1", "[::1", "*.example.org", "a,b"),
        *("-a.org", "a-.org", "a" * 64 + ".org", ".".join(["a" * 60] * 5), "localhost#", "a?b"),
        *("\uff11\uff12\uff17.0.0.1", "127\u30020.0.1", "\u2488com", "a\r\nb"),
    ],
)
def test_what_is_not_a_host(text: str) -> None:
    with pytest.raises(EgressRequestInvalid):
        parse_host(text)


@pytest.mark.parametrize(
    "text",
    [
        *("example.org", "example.org:", "example.org:0", "example.org:65536", "example.org:+80"),
        *("example.org:8 0", "example.org:80:80", "user@example.org:443", "a:b@example.org:443"),
        *(
            "example.org:443/",
            "example.org:443#",
            "::1:443",
            "[::1]",
            "example.org:\u0664\u0664\u0663",
        ),
    ],
)
def test_what_is_not_an_authority(text: str) -> None:
    with pytest.raises(EgressRequestInvalid):
        parse_authority(text)


@given(st.text(max_size=60))
def test_any_text_is_a_destination_or_refused(text: str) -> None:
    try:
        destination = parse_authority(text, default_port=80)
    except EgressRequestInvalid:
        return
    assert parse_authority(destination.authority) == destination
    assert destination.host.isascii()
    assert not set(destination.host) & set("@/\\ %[]")


@pytest.mark.parametrize(
    ("rule", "destination"),
    [
        ("example.org", "example.org:443"),
        ("example.org", "example.org:80"),
        ("Example.ORG.", "example.org:443"),
        ("example.org:8443", "example.org:8443"),
        ("*.example.org", "a.example.org:443"),
        ("*.example.org", "b.a.example.org:80"),
        ("*.example.org:99", "a.example.org:99"),
        ("[::1]:99", "[0:0::1]:99"),
        ("[::1]", "[::1]:443"),
        ("192.0.2.1", "192.0.2.1:443"),
    ],
)
def test_what_a_rule_allows(rule: str, destination: str) -> None:
    Allowlist([parse_rule(rule)]).require(parse_authority(destination))


@pytest.mark.parametrize(
    ("rule", "destination"),
    [
        ("example.org", "a.example.org:443"),
        ("example.org", "example.org.evil.net:443"),
        ("example.org", "example.org:22"),
        ("example.org:8443", "example.org:443"),
        ("*.example.org", "example.org:443"),
        ("*.example.org", "notexample.org:443"),
        ("*.example.org", "a.example.org:8080"),
        ("*.example.org", "a.example.org.evil.net:443"),
        ("127.0.0.1", "127.0.0.2:443"),
    ],
)
def test_what_a_rule_does_not_allow(rule: str, destination: str) -> None:
    with pytest.raises(EgressRefused) as refused:
        Allowlist([parse_rule(rule)]).require(parse_authority(destination))

    assert "BERTH_EGRESS_ALLOW" in refused.value.detail


@given(NAMES, NAMES, PORTS)
def test_without_a_rule_nothing_passes(name: str, other: str, port: int) -> None:
    with pytest.raises(EgressRefused):
        Allowlist([]).require(Destination(name, port))
    allowed = Allowlist([HostRule(other, frozenset({port}))])
    if name != other:
        with pytest.raises(EgressRefused):
            allowed.require(Destination(name, port))


@pytest.mark.parametrize("text", ["*", "*.", "*.127.0.0.1", "a.*.org", "https://a.org", "a.org:x"])
def test_what_is_not_a_rule(text: str) -> None:
    with pytest.raises(EgressRequestInvalid):
        parse_rule(text)
