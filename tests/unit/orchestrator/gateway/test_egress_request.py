"""Requests to the proxy: what they ask for, and what of them goes on."""

import base64

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.egress import Destination
from orchestrator.domain.injection import Injection, WebPrefix
from orchestrator.errors import EgressRefused, EgressRequestInvalid, EgressUnattributed
from orchestrator.gateway.egress_request import (
    Headers,
    Wanted,
    end_to_end,
    onward_request,
    read_credentials,
    read_wanted,
    refusal,
    returned_response,
)
from orchestrator.gateway.redaction import Redaction

THERE = WebPrefix("http", Destination("example.org", 80))
KEPT = Injection(THERE, "Authorization", "Basic added", "added", replaces=False)
PUT_IN = Injection(THERE, "X-Api-Key", "secret-value", "secret-value")


def request(method: str, target: str, *headers: tuple[str, str]) -> h11.Request:
    return h11.Request(method=method, target=target, headers=[("Host", "proxy"), *headers])


def sent(onward: h11.Request) -> dict[bytes, bytes]:
    """The headers, each of which must be there once."""
    headers = list(onward.headers)
    assert len(dict(headers)) == len(headers)
    return dict(headers)


@pytest.mark.parametrize(
    ("target", "host", "port", "origin"),
    [
        ("http://example.org/a?b=c", "example.org", 80, b"/a?b=c"),
        ("http://example.org", "example.org", 80, b"/"),
        ("http://example.org?q", "example.org", 80, b"/?q"),
        ("HTTP://EXAMPLE.org.:8080/x", "example.org", 8080, b"/x"),
        ("http://[::1]:81/@http://b/", "::1", 81, b"/@http://b/"),
        ("http://[::1]/", "::1", 80, b"/"),
        ("http://example.org/a#b", "example.org", 80, b"/a"),
        ("http://example.org#@evil.net/", "example.org", 80, b"/"),
    ],
)
def test_plain_requests(target: str, host: str, port: int, origin: bytes) -> None:
    assert read_wanted(request("GET", target)) == Wanted(Destination(host, port), origin)


def test_what_asks_for_an_echo_is_not_passed_on() -> None:
    with pytest.raises(EgressRequestInvalid, match="TRACE"):
        read_wanted(request("TRACE", "http://example.org/", ("Max-Forwards", "0")))


def test_a_tunnel() -> None:
    wanted = read_wanted(request("CONNECT", "Example.org:443"))

    assert wanted == Wanted(Destination("example.org", 443), None)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/etc/passwd"),
        ("GET", "https://example.org/"),
        ("GET", "ftp://example.org/"),
        ("OPTIONS", "*"),
        ("GET", "http://user@example.org/"),
        ("GET", "http://example.org:80@evil.net/"),
        ("GET", "http://evil.net\\@example.org/"),
        ("GET", "http:///etc/passwd"),
        ("GET", "http://"),
        ("GET", "http://127.1/"),
        ("CONNECT", "example.org"),
        ("CONNECT", "http://example.org/"),
        ("CONNECT", "user@example.org:443"),
    ],
)
def test_what_is_not_a_request_to_a_proxy(method: str, target: str) -> None:
    with pytest.raises(EgressRequestInvalid):
        read_wanted(request(method, target))


@given(st.text(st.characters(codec="utf-8", exclude_characters=":")), st.text())
def test_credentials_are_read(user: str, password: str) -> None:
    encoded = base64.b64encode(f"{user}:{password}".encode())

    headers = [(b"proxy-authorization", b"Basic " + encoded)]

    assert read_credentials(headers) == (user, password)


@given(st.binary())
def test_any_credentials_are_read_or_none(value: bytes) -> None:
    found = read_credentials([(b"proxy-authorization", b"basic " + value)])

    assert found is None or len(found) == 2


def test_what_is_for_one_hop_goes_no_further() -> None:
    asked = request(
        "POST",
        "http://example.org/a",
        ("Proxy-Authorization", "Basic c2VjcmV0"),
        ("Proxy-Connection", "keep-alive"),
        ("Connection", "keep-alive, X-Hop, Content-Length, Authorization"),
        ("Keep-Alive", "5"),
        ("X-Hop", "1"),
        ("TE", "trailers"),
        ("Upgrade", "websocket"),
        ("Expect", "100-continue"),
        ("Content-Length", "3"),
        ("Authorization", "Bearer own"),
        ("X-Kept", "yes"),
    )

    headers = sent(onward_request(asked, read_wanted(asked), [KEPT]))

    assert headers == {
        b"host": b"example.org",
        b"connection": b"close",
        b"content-length": b"3",
        b"authorization": b"Bearer own",
        b"x-kept": b"yes",
    }


def test_the_host_is_the_one_that_was_checked() -> None:
    asked = h11.Request(
        method="GET", target="http://example.org:8080/", headers=[("Host", "evil.net")]
    )

    headers = sent(onward_request(asked, read_wanted(asked)))

    assert headers[b"host"] == b"example.org:8080"


def test_one_length_is_told() -> None:
    asked = request(
        "POST", "http://example.org/", ("Content-Length", "3"), ("Transfer-Encoding", "chunked")
    )

    headers = sent(onward_request(asked, read_wanted(asked)))

    assert b"content-length" not in headers
    assert headers[b"transfer-encoding"] == b"chunked"


def test_credentials_are_added_where_there_are_none() -> None:
    asked = request("GET", "http://example.org/")

    assert sent(onward_request(asked, read_wanted(asked), [KEPT]))[b"authorization"] == (
        b"Basic added"
    )


@pytest.mark.parametrize("name", ["X-Api-Key", "x-api-key", "X_Api_Key", "x_API-key"])
def test_what_the_request_brings_under_that_name_is_replaced(name: str) -> None:
    asked = request("GET", "http://example.org/", (name, "own"), ("Accept-Encoding", "gzip"))

    headers = sent(onward_request(asked, read_wanted(asked), [PUT_IN]))

    assert {each for each in headers if b"key" in each} == {b"x-api-key"}
    assert headers[b"x-api-key"] == b"secret-value"
    assert headers[b"accept-encoding"] == b"identity"


@pytest.mark.parametrize("name", ["X-HTTP-Method-Override", "X_Original_URL", "x-rewrite-url"])
def test_what_was_checked_is_not_overridden(name: str) -> None:
    asked = request("GET", "http://example.org/", (name, "/other"))

    assert b"/other" not in sent(onward_request(asked, read_wanted(asked), [PUT_IN])).values()
    assert b"/other" in sent(onward_request(asked, read_wanted(asked))).values()


def test_a_header_that_is_named_for_one_hop_is_added_all_the_same() -> None:
    asked = request("GET", "http://example.org/", ("Connection", "X-Api-Key, Accept-Encoding"))

    assert sent(onward_request(asked, read_wanted(asked), [PUT_IN]))[b"x-api-key"] == (
        b"secret-value"
    )


def test_a_response_keeps_its_cookies_and_loses_its_connection() -> None:
    headers: Headers = [
        (b"Set-Cookie", b"a"),
        (b"Set-Cookie", b"b"),
        (b"Connection", b"keep-alive"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Length", b"9"),
    ]

    returned = returned_response(h11.Response(status_code=200, headers=headers, reason=b"Fine"))

    assert list(returned.headers) == [
        (b"connection", b"close"),
        (b"set-cookie", b"a"),
        (b"set-cookie", b"b"),
    ]
    assert returned.reason == b"Fine"


def test_a_secret_does_not_come_back_as_a_headers_name() -> None:
    headers: Headers = [(b"A-SECRET-Value", b"1"), (b"X-A-Secret-Value-Y", b"2"), (b"X", b"3")]
    response = h11.Response(status_code=200, headers=headers, reason=b"")
    returned = returned_response(response, Redaction(["A-secret-value"]))
    assert list(returned.headers) == [(b"connection", b"close"), (b"x", b"3")]


NAMES = st.from_regex(rb"[a-z][a-z-]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.from_regex(rb"[a-z, ]{0,12}", fullmatch=True))))
def test_no_hop_by_hop_header_is_left(headers: list[tuple[bytes, bytes]]) -> None:
    left = {name for name, _ in end_to_end(headers)}

    assert not left & {b"connection", b"te", b"upgrade", b"proxy-authorization", b"keep-alive"}
    assert left <= {name for name, _ in headers}


def test_a_refusal_says_why_twice() -> None:
    response, body = refusal(EgressRefused("exämple is not allowed.\r\nX: y"))

    assert response.status_code == 403
    assert body.startswith("exämple is not allowed.".encode())
    assert bytes(response.reason).startswith(b"ex?mple is not allowed.")
    assert b"\r" not in bytes(response.reason)


def test_a_refusal_asks_for_credentials() -> None:
    response, _ = refusal(EgressUnattributed("Who?"))

    assert response.status_code == 407
    assert (b"proxy-authenticate", b'Basic realm="berth"') in list(response.headers)
