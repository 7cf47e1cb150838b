"""Which destinations a proxy of this machine leads to."""

import pytest

from orchestrator.domain.egress import Destination
from orchestrator.gateway.egress_upstream import Upstream, UpstreamProxy

PROXY = UpstreamProxy("proxy.test", 3128)
HOST = Destination("a.example.org", 443)


@pytest.mark.parametrize(
    ("exempt", "is_direct"),
    [
        ("", False),
        ("*", True),
        ("a.example.org", True),
        ("A.EXAMPLE.ORG", True),
        ("x, example.org", True),
        (".example.org", True),
        ("*.example.org", True),
        ("a.example.org:443", True),
        ("a.example.org:80", False),
        ("b.example.org", False),
        ("ample.org", False),
        (",", False),
    ],
)
def test_what_is_exempt(exempt: str, is_direct: bool) -> None:
    upstream = Upstream({"HTTPS_PROXY": "http://proxy.test:3128", "NO_PROXY": exempt})

    assert upstream.proxy_for(HOST, plain=False) == (None if is_direct else PROXY)
    assert upstream.proxy_for(HOST, plain=True) is None


def test_one_proxy_for_everything() -> None:
    upstream = Upstream({"all_proxy": "proxy.test:3128"})

    assert upstream.proxy_for(HOST, plain=False) == PROXY
    assert upstream.proxy_for(HOST, plain=True) == PROXY


def test_its_password_is_not_shown() -> None:
    proxy = Upstream({"HTTP_PROXY": "http://ada:s%40d@p.test"}).proxy_for(HOST, plain=True)

    assert proxy == UpstreamProxy("p.test", 80, "Basic YWRhOnNAZA==")
    assert "YWRh" not in repr(proxy)
