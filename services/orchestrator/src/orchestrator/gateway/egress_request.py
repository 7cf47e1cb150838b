"""The requests that a proxy gets, read and rewritten; pure."""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import h11

from orchestrator.domain.egress import Destination, parse_authority
from orchestrator.domain.injection import Injection
from orchestrator.errors import EgressError, EgressRefused, EgressRequestInvalid
from orchestrator.gateway.egress_upstream import UpstreamProxy, proxy_headers
from orchestrator.gateway.redaction import Redaction

Headers = list[tuple[bytes, bytes]]

MAX_REASON_CHARS = 300
_CONNECT = b"CONNECT"
# Whoever gets it sends back what was asked, with what we have added for a proxy on the way.
_TRACE = b"TRACE"
_PLAIN = "http://"
_PLAIN_PORT = 80
_PORTS = {"http": _PLAIN_PORT, "https": 443}
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
# Some servers take the method or the path from these instead of those that were checked.
_OVERRIDES = frozenset(
    {
        b"x-http-method",
        b"x-http-method-override",
        b"x-method-override",
        b"x-original-url",
        b"x-rewrite-url",
    }
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request is for: a tunnel, or with a `target` one request to the destination."""

    destination: Destination
    target: bytes | None
    scheme: str = "http"


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


def read_inner(request: h11.Request, destination: Destination) -> Wanted:
    """What a request inside a tunnel asks for; it goes where the tunnel was to lead, always.

    Raises:
        EgressRequestInvalid: It is not a request to a server.
    """
    if request.method == _CONNECT or not request.target.startswith(b"/"):
        raise EgressRequestInvalid("Inside this tunnel, a request names a path.")
    return Wanted(destination, bytes(request.target).partition(b"#")[0], "https")


def require_no_upgrade(request: h11.Request) -> None:
    """Let a request pass that stays HTTP: of another protocol, secrets could not be taken out.

    Raises:
        EgressRefused: It asks for another protocol.
    """
    if any(name == b"upgrade" for name, _ in request.headers):
        raise EgressRefused(
            "Where the gateway adds a secret, a request cannot change the protocol: WebSockets and "
            "the like are refused."
        )


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
    added: Sequence[Injection] = (),
    proxy: UpstreamProxy | None = None,
) -> h11.Request:
    """A request as it goes on to its destination.

    What is meant for this hop is left out, and the length of the body is told in one way only.

    Args:
        request: As it came.
        wanted: What it is for; with a target.
        added: What the gateway adds to it.
        proxy: Where it goes instead of going there directly.
    """
    kept = end_to_end(request.headers)
    headers: Headers = [(b"Host", _host(wanted)), (b"Connection", b"close")]
    headers += [header for header in kept if header[0] not in {b"host", b"content-length"}]
    headers = with_added(headers, added)
    headers += _framing(request.headers)
    target = wanted.target or b"/"
    if proxy is not None:
        target = _PLAIN.encode() + _host(wanted) + target
        headers += [(name.encode(), value.encode()) for name, value in proxy_headers(proxy)]
    return h11.Request(method=request.method, target=target, headers=headers)


def with_added(headers: Headers, added: Sequence[Injection]) -> Headers:
    """Headers with what the gateway adds, instead of what the request brings of these names."""
    brought = {_spelt(name) for name, _ in headers}
    counting = [each for each in added if each.replaces or _spelt(each.header) not in brought]
    if not counting:
        return headers
    # Encoded, a response would hide from us what has to be taken out of it.
    gone = {b"accept-encoding", *_OVERRIDES, *(_spelt(each.header) for each in counting)}
    kept = [header for header in headers if _spelt(header[0]) not in gone]
    kept.append((b"Accept-Encoding", b"identity"))
    return kept + [(each.header.encode(), each.value.encode()) for each in counting]


def _spelt(name: bytes | str) -> bytes:
    """A header's name as servers tell it from others: many take an underscore for a hyphen."""
    encoded = name.encode() if isinstance(name, str) else name
    return encoded.lower().replace(b"_", b"-")


def returned_response(response: h11.Response, redaction: Redaction | None = None) -> h11.Response:
    """A response as it goes back to whoever asked, without what must not come back."""
    redaction = redaction or Redaction()
    whole = redaction.whole
    headers: Headers = [(b"Connection", b"close")]
    chunked = any(name == b"transfer-encoding" for name, _ in response.headers)
    headers += [
        (name, whole(value))
        for name, value in end_to_end(response.headers)
        if not (chunked and name == b"content-length") and not redaction.is_told_by(name)
    ]
    return h11.Response(
        status_code=response.status_code, headers=headers, reason=whole(bytes(response.reason))
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


def _host(wanted: Wanted) -> bytes:
    return wanted.destination.authority.removesuffix(f":{_PORTS[wanted.scheme]}").encode()
