"""A package index on a loopback address, with one small package."""

import hashlib
import io
import ssl
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HOST = "127.0.0.2"
"""A loopback address that no client takes for its own machine."""

PACKAGE = "berth-sample-package"
MODULE = "berth_sample_package"
WHEEL = f"{MODULE}-1.0-py3-none-any.whl"


@dataclass(slots=True)
class PackageIndex:
    """An index that runs; `asked` has a line for each request it got."""

    port: int
    scheme: str = "http"
    asked: list[str] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}/simple/"


@contextmanager
def package_index(certificate: Path | None = None) -> Iterator[PackageIndex]:
    """An index for as long as the context lasts.

    Args:
        certificate: PEM file with key and certificate, for TLS.
    """
    wheel = make_wheel()
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '-')}")
            if self.path == f"/simple/{PACKAGE}/":
                digest = hashlib.sha256(wheel).hexdigest()
                page = f'<a href="/files/{WHEEL}#sha256={digest}">{WHEEL}</a>'
                self._answer(page.encode(), "text/html")
            elif self.path == f"/files/{WHEEL}":
                self._answer(wheel, "application/octet-stream")
            else:
                self.send_error(404)

        def log_message(self, *_: object) -> None:
            pass

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer((HOST, 0), Handler)
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        scheme = "http" if certificate is None else "https"
        yield PackageIndex(server.server_address[1], scheme, asked)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_wheel() -> bytes:
    """The package's one file."""
    metadata = f"{MODULE}-1.0.dist-info"
    files = {
        f"{MODULE}.py": "VALUE = 'came through the gateway'\n",
        f"{metadata}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.0\n",
        f"{metadata}/WHEEL": (
            "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    files[f"{metadata}/RECORD"] = "".join(f"{name},,\n" for name in files)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def self_signed(path: Path) -> Path:
    """Key and certificate for the index's host in one file; the certificate alone beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "package index of the tests")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, SHA256())
        .public_bytes(Encoding.PEM)
    )
    path.with_suffix(".crt").write_bytes(certificate)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + certificate)
    return path
