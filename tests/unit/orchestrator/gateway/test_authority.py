"""Certificates for the hosts that secrets are for, and for no other."""

import ssl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from orchestrator.gateway.authority import (
    AUTHORITY_LIFE,
    LEAF_LIFE,
    Authorities,
    Authority,
    outward_context,
)

HOSTS = frozenset({"api.test", "10.0.0.7"})


def shaken(authority: Authority, host: str, named: str | None = None) -> ssl.SSLObject:
    """A client that trusts the authority alone, after its handshake with the gateway."""
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    trusting.set_alpn_protocols(["h2", "http/1.1"])
    trusting.load_verify_locations(cadata=authority.certificate.decode())
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting.wrap_bio(down, up, server_hostname=named or host)
    server = authority.context(host).wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


@pytest.mark.parametrize("host", sorted(HOSTS))
def test_programs_that_trust_it_believe_the_gateway(host: str) -> None:
    client = shaken(Authority(HOSTS), host)
    assert client.selected_alpn_protocol() == "http/1.1"
    leaf = x509.load_der_x509_certificate(client.getpeercert(binary_form=True) or b"")
    assert leaf.not_valid_after_utc - datetime.now(UTC) <= LEAF_LIFE


def test_nobody_else_is_believed() -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        shaken(Authority(HOSTS), "api.test", named="other.test")
    with pytest.raises(ValueError, match="not made for"):
        Authority(HOSTS).context("other.test")


@pytest.mark.parametrize(
    ("hosts", "other"),
    [
        (frozenset({"api.test"}), "other.test"),
        (frozenset({"api.test"}), "10.0.0.7"),
        (frozenset({"api.test"}), "2001:db8::1"),
        (frozenset({"10.0.0.7"}), "api.test"),
        (frozenset({"10.0.0.7"}), "10.0.0.8"),
        (frozenset({"10.0.0.7"}), "2001:db8::1"),
    ],
)
def test_even_with_its_key_it_cannot_vouch_for_others(hosts: frozenset[str], other: str) -> None:
    authority = Authority(hosts)
    authority._hosts = frozenset({*hosts, other})  # as somebody would who had stolen the key
    with pytest.raises(ssl.SSLCertVerificationError, match=r"subtree|constraint"):
        shaken(authority, other)


def test_what_openssl_says_of_it(tmp_path: Path) -> None:
    file = tmp_path / "authority.pem"
    file.write_bytes(Authority(HOSTS).certificate)
    shown = subprocess.run(
        ["openssl", "x509", "-in", str(file), "-noout", "-text"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "DNS:api.test" in shown
    assert "CA:TRUE, pathlen:0" in shown


def test_one_authority_for_each_set_of_hosts() -> None:
    authorities = Authorities()
    first = authorities.of(HOSTS)
    assert authorities.of(frozenset(HOSTS)) is first
    assert authorities.of(frozenset({"api.test"})).certificate != first.certificate
    first.until = datetime.now(UTC) + AUTHORITY_LIFE / 4
    assert authorities.of(HOSTS) is not first


def test_leaves_are_made_anew_before_they_end() -> None:
    authority = Authority(HOSTS)
    first = authority.context("api.test")
    assert authority.context("api.test") is first
    soon = datetime.now(UTC) + timedelta(hours=1)
    authority._leaves["api.test"] = replace(authority._leaves["api.test"], until=soon)
    assert authority.context("api.test") is not first


def test_what_is_no_certificate() -> None:
    with pytest.raises(ValueError, match="PEM"):
        outward_context(b"hello")
