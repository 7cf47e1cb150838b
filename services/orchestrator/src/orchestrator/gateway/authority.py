"""A certificate authority for the few hosts whose requests the gateway has to read."""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_LIFE = timedelta(days=30)
LEAF_LIFE = timedelta(days=1)
MAX_AUTHORITIES = 256
_SKEW = timedelta(minutes=5)
_HTTP = ["http/1.1"]
_SIGNS = "key_cert_sign"
_PROVES = "digital_signature"
# With no host of a kind, names of that kind would be free: these belong to nobody.
_NO_NAME = "invalid"
_ALL_ADDRESSES = ("0.0.0.0/0", "::/0")


@dataclass(frozen=True, slots=True)
class _Leaf:
    context: ssl.SSLContext
    until: datetime


class Authority:
    """Proves to programs in containers that the gateway is one of some hosts.

    Its key is made here, never leaves the process, and can vouch for these hosts alone.

    Args:
        hosts: Names or addresses.
        now: When it is made.
    """

    def __init__(self, hosts: frozenset[str], now: datetime | None = None) -> None:
        now = now or datetime.now(UTC)
        self.until = now + AUTHORITY_LIFE
        self._hosts = hosts
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Berth")])
        self._certificate = (
            _begun(self._name, self._name, self._key.public_key(), now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(_SIGNS), critical=True)
            .add_extension(_constraints(hosts), critical=True)
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False
            )
            .sign(self._key, hashes.SHA256())
        )
        self._leaves: dict[str, _Leaf] = {}

    @property
    def certificate(self) -> bytes:
        """What programs have to trust, as PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def context(self, host: str) -> ssl.SSLContext:
        """How to answer a program that connects to a host; HTTP/1.1 is all that is spoken.

        Raises:
            ValueError: It is none of the hosts.
        """
        if host not in self._hosts:
            raise ValueError("the authority was not made for this host")
        now = datetime.now(UTC)
        leaf = self._leaves.get(host)
        if leaf is None or leaf.until < now + LEAF_LIFE / 2:
            leaf = _Leaf(self._made(host, now), now + LEAF_LIFE)
            self._leaves[host] = leaf
        return leaf.context

    def _made(self, host: str, now: datetime) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Berth gateway")])
        certificate = (
            _begun(subject, self._name, key.public_key(), now, LEAF_LIFE)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(_PROVES), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(x509.SubjectAlternativeName([_general_name(host)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return _context(certificate.public_bytes(serialization.Encoding.PEM) + private)


class Authorities:
    """One authority for each set of hosts."""

    def __init__(self) -> None:
        self._made: dict[frozenset[str], Authority] = {}

    def of(self, hosts: frozenset[str]) -> Authority:
        """The authority for exactly these hosts; made anew when it gets old."""
        found = self._made.get(hosts)
        if found is None or found.until < datetime.now(UTC) + AUTHORITY_LIFE / 3:
            found = Authority(hosts)
            self._made[hosts] = found
            if len(self._made) > MAX_AUTHORITIES:
                del self._made[next(iter(self._made))]
        return found


def outward_context(certificates: bytes | None) -> ssl.SSLContext:
    """How the gateway connects to those hosts itself.

    Args:
        certificates: PEM of what is trusted beside this machine's own certificates.

    Raises:
        ValueError: The certificates cannot be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_HTTP)
    if certificates is not None:
        try:
            context.load_verify_locations(cadata=certificates.decode("ascii", errors="ignore"))
        except ssl.SSLError as error:
            raise ValueError("these are no certificates in PEM form") from error
    return context


def _context(chain: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(_HTTP)
    # Only files can be loaded, and the key is not to lie on a disk.
    descriptor = os.memfd_create("berth-leaf", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, chain)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def _begun(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    life: timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + life)
    )


def _usage(what: str) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=what == _PROVES,
        key_cert_sign=what == _SIGNS,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _constraints(hosts: frozenset[str]) -> x509.NameConstraints:
    names = [_permitted(host) for host in sorted(hosts)]
    if not any(isinstance(name, x509.DNSName) for name in names):
        names.append(x509.DNSName(_NO_NAME))
    excluded = None
    if not any(isinstance(name, x509.IPAddress) for name in names):
        excluded = [x509.IPAddress(ip_network(every)) for every in _ALL_ADDRESSES]
    return x509.NameConstraints(names, excluded)


def _permitted(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(ip_network(address))


def _general_name(host: str) -> x509.GeneralName:
    address = _address(host)
    return x509.DNSName(host) if address is None else x509.IPAddress(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None
