"""What of a file of certificates goes into containers."""

import ssl
from pathlib import Path

from tests.support.package_index import self_signed

from orchestrator.gateway.certificates import only_certificates


def test_keys_and_notes_stay_outside(tmp_path: Path) -> None:
    path = self_signed(tmp_path / "key-and-certificate.pem")
    content = b"a note: s3cret\n" + path.read_bytes() + path.read_bytes()

    kept = only_certificates(content)

    assert b"PRIVATE" in content
    assert b"PRIVATE" not in kept
    assert b"note" not in kept
    assert kept == path.with_suffix(".crt").read_bytes() * 2
    ssl.create_default_context(cadata=kept.decode())


def test_a_file_without_certificates_has_nothing_for_containers() -> None:
    key = b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    mixed = b"-----BEGIN CERTIFICATE-----\nAAAA\n" + key

    assert only_certificates(key) == b""
    assert only_certificates(mixed) == b""
