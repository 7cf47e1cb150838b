"""Certificates for programs in containers, taken out of an operator's file."""

import re

_CERTIFICATE = re.compile(
    rb"-----BEGIN (?P<kind>(?:TRUSTED |X509 )?CERTIFICATE)-----[^-]*-----END (?P=kind)-----"
)


def only_certificates(content: bytes) -> bytes:
    """The certificates of a PEM file, without the keys and notes that people keep beside them."""
    return b"".join(found[0] + b"\n" for found in _CERTIFICATE.finditer(content))
