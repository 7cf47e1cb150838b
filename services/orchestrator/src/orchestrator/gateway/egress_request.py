"""The requests that a proxy gets, read and rewritten; pure."""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

import h11

from orchestrator.domain.egress import Destination, parse_authority
from orchestrator.errors import EgressError, EgressRequestInvalid
from orchestrator.gateway.egress_upstream import UpstreamProxy, proxy_headers

Headers = list[tuple[bytes, bytes]]

MAX_REASON_CHARS = 300
_CONNECT = b"CONNECT"
# Whoever gets it sends back what was asked, with what we have added for a proxy on the way.
_TRACE = b"TRACE"
_PLAIN = "http://"
_PLAIN_PORT = 80
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is for: a tunnel, or with a `target` a plain request to the destination."""

    destination: Destination
    target: bytes | None


def read_wanted(request: h11.Request) -> Wanted:
    """What a request asks a proxy for.

    Raises:
        EgressRequestInvalid: It is not a request to a proxy, or names no destination.
    """
    target = request.target.decode("ascii", errors="replace")
    if request.method == _TRACE:
        raise EgressRequestInvalid("TRACE is not passed on.")
    if request.method == _CONNECT:
        return Wanted(parse_authority(target), None)
    if target[: len(_PLAIN)].lower() != _PLAIN:
        raise EgressRequestInvalid(
            "A proxy is asked with CONNECT, or with the whole of an http:// address."
        )
    rest = target[len(_PLAIN) :].partition("#")[0]
    end = min((rest.find(mark) for mark in "/?" if mark in rest), default=len(rest))
    path = rest[end:]
    origin = path if path.startswith("/") else f"/{path}"
    return Wanted(parse_authority(rest[:end], _PLAIN_PORT), origin.encode("ascii", "replace"))


def read_credentials(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str] | None:
    """User and password of a basic `Proxy-Authorization`; None if none can be read."""
    for name, value in headers:
        scheme, _, encoded = value.partition(b" ")
        if name == b"proxy-authorization" and scheme.lower() == b"basic":
            try:
                user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                return None
            return user, password
    return None


def onward_request(
    request: h11.Request,
    wanted: Wanted,
    authorization: str | None,
    proxy: UpstreamProxy | None = None,
) -> h11.Request:
    """A plain request as it goes on to its destination.

    What is meant for this hop is left out, and the length of the body is told in one way only.

    Args:
        request: As it came.
        wanted: What it is for; with a target.
        authorization: Added if the request brings none of its own.
        proxy: Where it goes instead of going there directly.
    """
    kept = end_to_end(request.headers)
    headers: Headers = [(b"Host", _host(wanted.destination)), (b"Connection", b"close")]
    headers += [header for header in kept if header[0] not in {b"host", b"content-length"}]
    headers += _framing(request.headers)
    if authorization is not None and all(name != b"authorization" for name, _ in kept):
        headers.append((b"Authorization", authorization.encode()))
    target = wanted.target or b"/"
    if proxy is not None:
        target = _PLAIN.encode() + _host(wanted.destination) + target
        headers += [(name.encode(), value.encode()) for name, value in proxy_headers(proxy)]
    return h11.Request(method=request.method, target=target, headers=headers)


def returned_response(response: h11.Response) -> h11.Response:
    """A response as it goes back to whoever asked."""
    headers: Headers = [(b"Connection", b"close")]
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    headers += [
        header
        for header in end_to_end(response.headers)
        if not (chunked and header[0] == b"content-length")
    ]
    return h11.Response(
        status_code=response.status_code, headers=headers, reason=bytes(response.reason)
    )


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that are not meant for one hop only."""
    listed = list(headers)
    named = {
        token.strip().lower()
        for name, value in listed
        if name == b"connection"
        for token in value.split(b",")
    }
    # What frames the message or says whom it is for cannot be taken out by naming it there.
    dropped = _HOP_BY_HOP | (named - {b"content-length", b"host", b"authorization"})
    return [(name, value) for name, value in listed if name not in dropped]


def refusal(error: EgressError) -> tuple[h11.Response, bytes]:
    """The answer that carries an error; as its reason too, since clients show no more of it."""
    line = "".join(char if char.isprintable() else "?" for char in error.detail)
    reason = line.encode("ascii", "replace")[:MAX_REASON_CHARS]
    body = f"{error.detail}\n".encode()
    headers: Headers = [
        (b"Content-Type", b"text/plain; charset=utf-8"),
        (b"Content-Length", str(len(body)).encode()),
        (b"Connection", b"close"),
    ]
    if error.status == 407:  # noqa: PLR2004 - the one status that has a header of its own
        headers.append((b"Proxy-Authenticate", b'Basic realm="berth"'))
    return h11.Response(status_code=error.status, headers=headers, reason=reason), body


def _framing(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    listed = dict(headers)
    if b"transfer-encoding" in listed:
        return [(b"Transfer-Encoding", b"chunked")]
    length = listed.get(b"content-length")
    return [] if length is None else [(b"Content-Length", length)]


def _host(destination: Destination) -> bytes:
    authority = destination.authority
    return authority.removesuffix(f":{_PLAIN_PORT}").encode()
