"""Repository addresses: what is taken, what is refused, and that spelling does not count."""

import string
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.domain.repository import MAX_URL_LENGTH, RepositoryUrl, parse_repository_url
from orchestrator.errors import RepositoryUrlRefused


@pytest.mark.parametrize(
    ("raw", "canonical"),
    [
        ("https://github.com/a/b", "https://github.com/a/b"),
        ("HTTPS://GitHub.COM./a/b.git/", "https://github.com/a/b"),
        ("https://github.com:443//a/./b", "https://github.com/a/b"),
        ("https://host:8443/a/b.git", "https://host:8443/a/b"),
        ("http://host:80/a", "http://host/a"),
        ("https://host/a.git.git", "https://host/a"),
        ("https://host/a/.git", "https://host/a"),
        ("https://host/%7Euser/a", "https://host/~user/a"),
        ("https://host/My%20Project/_git/a", "https://host/My%20Project/_git/a"),
        ("https://host/100%25", "https://host/100%25"),
        ("https://host/a%3Fb%23c", "https://host/a%3Fb%23c"),
        ("https://[0:0:0::1]:8443/a", "https://[::1]:8443/a"),
        ("https://127.0.0.1/a", "https://127.0.0.1/a"),
        ("git@GitHub.com:a/b.git", "ssh://github.com/a/b"),
        ("ssh://git@github.com:22/a/b", "ssh://github.com/a/b"),
        ("ssh://host:2222/srv/a.git", "ssh://host:2222/srv/a"),
        ("git@host:a?#%20/c", "ssh://host/a%3F%23%2520/c"),
        ("/srv/git/a.git/", "file:///srv/git/a.git"),
        ("//srv//git", "file:///srv/git"),
        ("/srv/my work?#1", "file:///srv/my%20work%3F%231"),
        ("file:///srv/a", "file:///srv/a"),
        ("FILE://LocalHost/srv/a", "file:///srv/a"),
        ("/", "file:///"),
    ],
)
def test_takes_what_users_paste(raw: str, canonical: str) -> None:
    assert str(parse_repository_url(raw)) == canonical


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "x" * (MAX_URL_LENGTH + 1),
        "ext::sh -c touch% /tmp/x",
        "ext::sh",
        "--upload-pack=touch /tmp/x",
        "--upload-pack=x",
        "https://host/--upload-pack=x/a",
        "https://host/a\nb",
        "https://host/a\r\n",
        "https://host/a b",
        "https://host/a%0Ab",
        "https://host/a%00b",
        "https://host/a%ff",
        "https://host/a\u202eb",
        "/srv/a\u2028b",
        "/srv/\ud800",
        "https://host/a\ud800",
        "me@github.com:a/b.git",
        "git@github.com:",
        "git@github.com:../b",
        "git@-oProxyCommand=id:a/b",
        "ssh://me@github.com/a/b",
        "ssh://git:secret@github.com/a/b",
        "ssh://-oProxyCommand=id/a",
        "ssh://github.com/-oProxyCommand=id",
        "git://github.com/a/b",
        "ftp://host/a",
        "file://server/share",
        "file:a",
        "file:///srv/a?b",
        "relative/path",
        "C:\\work",
        "https://user@host/a",
        "https://user:secret@host/a",
        "https://:secret@host/a",
        "https://@host/a",
        "https://host/a?token=1",
        "https://host/a?",
        "https://host/a#b",
        "https://host",
        "https://host/",
        "https://host/.git",
        "https://host/..git",
        "https://host/...git",
        "https:///a",
        "https://host:0/a",
        "https://host:65536/a",
        "https://host:x/a",
        "https://host/../a",
        "https://host/%2e%2e/a",
        "/srv/../etc",
        "https://host\\@evil/a",
        "https://host/a\\b",
        "https://a..b/c",
        "https://-a/c",
        "https://a_b/c",
        "https://%6cocalhost/a",
        "https://\u212aernel.org/a",
        "https://b\u00fccher.example/a",
        f"https://{'a' * 64}/a",
        f"https://{'a.' * 127}a/b",
        "https://2130706433/a",
        "https://0x7f000001/a",
        "https://0x7f.1/a",
        "https://0177.0.0.1/a",
        "https://127.1/a",
        "https://1.2.3.4.5/a",
        "https://1.2.3.256/a",
        "https://a.0x/b",
        "https://[::1/a",
        "https://[v1.a]/b",
        "https://[fe80::1%25eth0]/a",
        "https://[127.0.0.1]/a",
    ],
)
def test_refuses(raw: str) -> None:
    with pytest.raises(RepositoryUrlRefused) as refused:
        parse_repository_url(raw)
    assert "secret" not in refused.value.detail.replace("carry no secret", "")


@given(st.text(max_size=60))
@example("https://host/.git/.")
@example("https://h/%2F..%2F")
def test_any_text_is_refused_or_made_canonical(raw: str) -> None:
    for text in (raw, "https://host/" + raw, "/" + raw, f"https://{raw}/a", "file://" + raw):
        try:
            url = parse_repository_url(text)
        except RepositoryUrlRefused:
            continue
        assert parse_repository_url(str(url)) == url
        assert str(url).isascii()
        assert ".." not in url.path.split("/")


@given(
    host=st.from_regex(r"[a-z]([a-z0-9-]{0,10}[a-z0-9])?(\.[a-z]{1,8}){0,3}", fullmatch=True),
    port=st.integers(1, 65535),
    parts=st.lists(st.text(string.ascii_letters + "%?#&+ é~@:", min_size=1), min_size=1),
)
def test_every_address_survives_its_text_form(host: str, port: int, parts: list[str]) -> None:
    url = RepositoryUrl("https", host, port, "/" + "/".join(parts))
    assert parse_repository_url(str(url)) == url


@given(st.ip_addresses())
def test_literal_addresses_have_one_spelling(address: IPv4Address | IPv6Address) -> None:
    long = address.exploded
    host = f"[{long.upper()}]" if isinstance(address, IPv6Address) else long
    assert parse_repository_url(f"https://{host}/a").host == address.compressed


@given(st.text(max_size=100))
def test_a_name_is_always_fit_for_a_directory(path: str) -> None:
    name = RepositoryUrl("https", "host", 443, "/" + path).name
    assert 0 < len(name) <= 64
    assert name[0] not in ".-"
    assert set(name) <= set(string.ascii_letters + string.digits + "._-")


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("https://github.com/pallets/flask.git", "flask"),
        ("/srv/git/app.git", "app"),
        ("/", "repository"),
        ("https://host/a/.hidden", "hidden"),
        ("https://host/a/%C3%A9t%C3%A9", "t-"),
    ],
)
def test_name_is_the_last_part(raw: str, name: str) -> None:
    assert parse_repository_url(raw).name == name
