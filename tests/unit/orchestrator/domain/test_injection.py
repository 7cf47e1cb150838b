"""Which requests get a secret, and which uses of one are refused."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.domain.egress import Destination
from orchestrator.domain.injection import (
    Injection,
    Secret,
    SecretUse,
    WebPrefix,
    chosen,
    injections,
    is_below,
    parse_prefix,
    require_granted,
)
from orchestrator.errors import EgressRequestInvalid, SettingRefused

A, B = Destination("a.test", 80), Destination("b.test", 80)
VALUE = "s3cret-value"
SECRET = Secret("weather", VALUE, (parse_prefix("http://a.test/v1"),))
USE = SecretUse("weather", "http://a.test/v1")


@dataclass(frozen=True)
class Request:
    destination: Destination = A
    target: bytes | None = b"/v1/x"
    scheme: str = "http"


def injection(path: str = "/v1", header: str = "Authorization") -> Injection:
    return Injection(WebPrefix("http", A, path), header, f"Bearer {VALUE}", VALUE)


@pytest.mark.parametrize(
    ("text", "prefix"),
    [
        ("http://A.test", WebPrefix("http", A)),
        ("http://a.test./", WebPrefix("http", A)),
        ("https://a.test/v1/", WebPrefix("https", Destination("a.test", 443), "/v1")),
        ("https://[::1]:8443/a/b.c", WebPrefix("https", Destination("::1", 8443), "/a/b.c")),
    ],
)
def test_prefixes(text: str, prefix: WebPrefix) -> None:
    assert parse_prefix(text) == prefix
    assert parse_prefix(str(prefix)) == prefix


@pytest.mark.parametrize(
    "text",
    [
        *("a.test", "ftp://a.test", "HTTP//a.test", "https://", "https:///x", "//a.test"),
        *("https://u@a.test", "https://u:p@a.test/x", "https://a.test?x", "https://a.test#x"),
        *("https://a.test/x?y", "https://a.test/x#y", "https://a.test/a/../b", "https://a.test/."),
        *("https://a.test/%2e", "https://a.test//x", "https://a.test/a b", "https://a.test\\@b"),
        *("https://*.a.test", "https://127.1", "https://a.test:0", "https://a.test\r\nX: y"),
        *("https://a.test/v1;x", "https://a.test/\n"),
    ],
)
def test_what_is_no_prefix(text: str) -> None:
    with pytest.raises(EgressRequestInvalid):
        parse_prefix(text)


@pytest.mark.parametrize(
    "target", [b"/v1", b"/v1/", b"/v1?a=../..", b"/v1/x/y%20z", b"/v1/x?b=%2e%2e%2f", b"/v1//x"]
)
def test_paths_below(target: bytes) -> None:
    assert is_below(target, "/v1")


@pytest.mark.parametrize(
    "target",
    [
        *(b"/", b"/v10", b"/V1/x", b"/x/v1", b"//v1/x", b"/%761/x", b"?/v1", b"v1", b"*"),
        *(b"/v1/..", b"/v1/../x", b"/v1/./x", b"/v1/a/../../x", b"/v1/%2e%2e/x", b"/v1/.%2e/x"),
        *(b"/v1/%2E%2E/x", b"/v1%2f..%2fx", b"/v1/%2f..", b"/v1/..%2fx", b"/v1/%252e%252e/x"),
        *(b"/v1/%25252e%25252e/x", b"/v1/..\\x", b"/v1/%5c..", b"/v1/..;/x", b"/v1/..%3b/x"),
        *(b"/v1/x%00", b"/v1/" + b"%25" * 1 + b"25" * 20 + b"2e"),
    ],
)
def test_paths_that_are_not_or_may_not_be(target: bytes) -> None:
    assert not is_below(target, "/v1")


@given(st.binary(max_size=40))
def test_any_path_is_judged(rest: bytes) -> None:
    if is_below(b"/v1/" + rest, "/v1"):
        assert b".." not in rest.partition(b"?")[0].split(b"/")


@pytest.mark.parametrize(
    ("asked", "method", "gets"),
    [
        (Request(), "GET", True),
        (Request(), "TRACE", False),
        (Request(), "get", False),
        (Request(B), "GET", False),
        (Request(Destination("a.test", 8080)), "GET", False),
        (Request(scheme="https"), "GET", False),
        (Request(target=b"/v2"), "GET", False),
        (Request(target=None), "GET", False),
    ],
)
def test_which_requests_get_it(asked: Request, method: str, *, gets: bool) -> None:
    assert chosen([injection()], asked, method) == ((injection(),) if gets else ())


def test_of_one_header_the_longest_path_counts() -> None:
    whole, other = injection(""), injection("/v1", "X-Key")
    index = replace(injection(""), replaces=False)
    assert set(chosen([injection(), whole, index, other], Request(), "GET")) == {injection(), other}
    assert chosen([injection(), whole], Request(target=b"/"), "GET") == (whole,)


def test_a_granted_use() -> None:
    (found,) = injections([USE], {"weather": SECRET})
    assert found == injection()
    assert VALUE not in repr(found)
    assert VALUE not in repr(SECRET)


@pytest.mark.parametrize(
    "use",
    [
        replace(USE, secret="maps"),
        replace(USE, url="http://a.test"),
        replace(USE, url="http://a.test/v10"),
        replace(USE, url="http://a.test:8080/v1"),
        replace(USE, url="http://b.test/v1"),
        replace(USE, url="http://a.test/v1/../v2"),
    ],
)
def test_a_use_that_is_not_granted_adds_nothing(use: SecretUse) -> None:
    with pytest.raises(SettingRefused) as caught:
        require_granted(use, {"weather": SECRET}.get(use.secret))
    assert VALUE not in caught.value.detail
    assert injections([use], {"weather": SECRET}) == ()


@pytest.mark.parametrize(
    "use",
    [
        *(replace(USE, header=each) for each in ("Host", "te", "Content-Length", "X Y", "X:", "")),
        *(replace(USE, header=each) for each in ("Proxy-Authorization", "Upgrade", "X\r\nY", "ä")),
        *(replace(USE, format=each) for each in ("", "Bearer", "{} {}", "{0}", "{}\r\nX: y")),
        *(replace(USE, format=each) for each in ("{} ", "{!r}{}", "{}}", "ä{}")),
        *(replace(USE, methods=(each,)) for each in ("TRACE", "CONNECT", "get", "")),
    ],
)
def test_uses_that_cannot_be_carried_out(use: SecretUse) -> None:
    with pytest.raises(SettingRefused, match="secrets: "):
        require_granted(use, SECRET)
