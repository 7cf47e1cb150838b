"""Which network addresses may be reached."""

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.repository import parse_repository_url
from orchestrator.errors import RepositoryUnreachable, RepositoryUrlRefused
from orchestrator.gateway.address import AddressPolicy, Resolver, is_public, resolve

PUBLIC = "93.184.216.34"


def answering(*addresses: str) -> Resolver:
    async def resolver(host: str, port: int) -> Sequence[str]:
        return addresses

    return resolver


def policy(*allow_hosts: str, resolver: Resolver, seconds: float = 5.0) -> AddressPolicy:
    return AddressPolicy((), allow_hosts, resolver, seconds)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "127.0.0.1", "127.255.255.255", "10.0.0.1", "172.16.0.1"),
        *("172.31.255.255", "192.168.1.1", "169.254.169.254", "100.64.0.1", "100.127.255.255"),
        *("192.0.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.88.99.1"),
        *("224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "fe80::1", "fc00::1", "fdff::1", "fec0::1", "ff02::1", "100::1"),
        *("2001:db8::1", "2001::1", "2001:20::1", "3fff::1", "4000::1", "64:ff9b:1::1"),
        *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::10.0.0.1"),
        *("64:ff9b::169.254.169.254", "2002:7f00:1::", "2002:a00:1::", "2002:c0a8:101::"),
    ],
)
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        *(PUBLIC, "1.1.1.1", "140.82.121.4", "100.63.255.255", "100.128.0.1", "172.32.0.1"),
        *("2606:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1", "64:ff9b::8c52:7904"),
        "2002:5db8:d822::1",
    ],
)
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_embedded_address_is_as_public_as_itself(address: IPv4Address) -> None:
    number = int(address)
    carriers = (
        IPv6Address(0xFFFF << 32 | number),
        IPv6Address(0x64FF9B << 96 | number),
        IPv6Address(0x2002 << 112 | number << 80),
    )
    assert {is_public(carrier) for carrier in carriers} == {is_public(address)}


@given(st.ip_addresses())
def test_what_python_calls_private_is_never_public(address: IPv4Address | IPv6Address) -> None:
    if address.is_private or address.is_multicast or address.is_link_local:
        embedded = isinstance(address, IPv6Address) and address.ipv4_mapped
        assert embedded or not is_public(address)


async def test_all_answers_are_pinned() -> None:
    resolver = answering(PUBLIC, "2606:4700::1111")
    remote = await policy(resolver=resolver).admit(parse_repository_url("https://Host.test./a"))
    assert remote.location == "https://host.test/a"
    assert remote.pin == f"host.test:443:{PUBLIC},[2606:4700::1111]"


async def test_one_private_answer_refuses_the_host() -> None:
    with pytest.raises(RepositoryUrlRefused, match="BERTH_ALLOW_HOSTS"):
        await policy(resolver=answering(PUBLIC, "10.0.0.1")).admit(
            parse_repository_url("https://host.test/a")
        )


@pytest.mark.parametrize(
    "raw",
    [
        *("https://127.0.0.1/a", "https://[::1]/a", "https://[::ffff:7f00:1]/a"),
        *("https://169.254.169.254/latest", "https://localhost/a", "https://localhost./a"),
        *("https://10.1.2.3:8443/a", "https://[64:ff9b::a00:1]/a", "http://127.0.0.1/a"),
    ],
)
async def test_this_machine_and_its_network_are_refused(raw: str) -> None:
    with pytest.raises(RepositoryUrlRefused):
        await policy(resolver=resolve).admit(parse_repository_url(raw))


@pytest.mark.parametrize(
    ("entry", "raw", "taken"),
    [
        ("git.test", "https://git.test/a", True),
        ("git.test", "https://git.test:8443/a", True),
        ("GIT.test", "http://git.test/a", True),
        ("git.test:8443", "https://git.test:8443/a", True),
        ("git.test:8443", "https://git.test/a", False),
        ("git.test:443", "https://git.test/a", True),
        ("git.test", "https://a.git.test/a", False),
        ("git.test", "https://git.test.evil/a", False),
        ("10.0.0.1", "https://10.0.0.1/a", True),
        ("::1", "https://[::1]:8443/a", True),
        ("[::1]", "https://[::1]:8443/a", True),
        ("[::1]:8443", "https://[::1]:8443/a", True),
        ("[::1]:8443", "https://[::1]/a", False),
    ],
)
async def test_allowed_hosts(entry: str, raw: str, taken: bool) -> None:
    asked = policy(entry, resolver=answering("10.0.0.1")).admit(parse_repository_url(raw))
    if taken:
        await asked
        return
    with pytest.raises(RepositoryUrlRefused):
        await asked


@pytest.mark.parametrize("raw", ["https://10.0.0.1/a", "https://[::1]/a"])
async def test_a_literal_address_needs_no_pin(raw: str) -> None:
    url = parse_repository_url(raw)
    assert (await policy(url.host, resolver=answering()).admit(url)).pin == ""


async def test_names_that_do_not_resolve_are_unreachable() -> None:
    async def failing(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    async def hanging(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return ()

    url = parse_repository_url("https://host.test/a")
    for resolver in (failing, answering(), answering("nonsense"), resolve):
        with pytest.raises(RepositoryUnreachable, match="does not resolve"):
            await policy(resolver=resolver).admit(url)
    with pytest.raises(RepositoryUnreachable, match="in time"):
        await policy(resolver=hanging, seconds=0.05).admit(url)


async def test_the_machines_resolver_knows_localhost() -> None:
    assert "127.0.0.1" in await resolve("localhost", 443)


async def test_plain_http_names_the_remedy() -> None:
    with pytest.raises(RepositoryUrlRefused, match="https://"):
        await policy(resolver=answering(PUBLIC)).admit(parse_repository_url("http://host.test/a"))


async def test_local_paths_lead_to_the_git_directory(tmp_path: Path) -> None:
    for name in ("objects", "refs"):
        (tmp_path / "a" / ".git" / name).mkdir(parents=True)
    (tmp_path / "a" / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    allowing = AddressPolicy((tmp_path,), (), answering())
    remote = await allowing.admit(parse_repository_url(str(tmp_path / "a")))
    assert (remote.scheme, remote.location) == ("file", str(tmp_path / "a" / ".git"))
    assert remote.pin == ""


async def test_ssh_follows_the_same_rules() -> None:
    url = parse_repository_url("git@git.example:a/b")
    with pytest.raises(RepositoryUrlRefused, match="BERTH_ALLOW_HOSTS"):
        await policy(resolver=answering("10.0.0.1")).admit(url)
    remote = await policy(resolver=answering(PUBLIC, "1.1.1.1")).admit(url)
    assert (remote.scheme, remote.address) == ("ssh", PUBLIC)
    allowed = await policy("git.example:22", resolver=answering("10.0.0.1")).admit(url)
    assert allowed.address == "10.0.0.1"
