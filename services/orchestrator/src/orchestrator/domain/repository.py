"""The address of a git repository: what users paste, made canonical."""

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urlsplit

from orchestrator.errors import RepositoryUrlRefused

MAX_URL_LENGTH = 2_000
DEFAULT_PORTS = {"https": 443, "http": 80, "ssh": 22}
SSH_USER = "git"

_CONTROL = re.compile(r"[\x00-\x20\x7f]")
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*")
_NUMERIC_HOST = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_GIT_SUFFIX = re.compile(r"(\.git|/)+\Z")
_SCP = re.compile(r"(?P<user>[\w.-]+)@(?P<host>[\w.-]+):(?P<path>.*)")
_PATH_SAFE = "/~!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class RepositoryUrl:
    """A canonical repository address.

    Two addresses that differ only in spelling are equal: case of the host, its trailing dot, the
    default port, percent-encoding, doubled or trailing slashes and, on a server, `.git`.
    `scheme` is `https`, `http`, `ssh` or `file`; `host` is empty for `file`; `path` is decoded.
    The text form is percent-encoded and parses back to the same address. Whom ssh logs in as is no
    part of the address: the credentials say it.
    """

    scheme: str
    host: str
    port: int
    path: str

    def __str__(self) -> str:
        path = quote(self.path, safe=_PATH_SAFE)
        if self.scheme == "file":
            return f"file://{path}"
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{self.bracketed_host}{port}{path}"

    @property
    def bracketed_host(self) -> str:
        """The host as it is written in an address: IPv6 in square brackets."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def name(self) -> str:
        """The last part of the path, fit for a directory name."""
        last = PurePosixPath(self.path).name.removesuffix(".git")
        cleaned = re.sub(r"[^A-Za-z0-9._-]", "-", last).lstrip(".-")
        return cleaned[:64] or "repository"


def parse_repository_url(raw: str) -> RepositoryUrl:
    """Make a pasted address canonical.

    Accepts `https://host/path`, `http://host/path`, `ssh://git@host/path`, `git@host:path`,
    `file:///path` and an absolute local path.

    Raises:
        RepositoryUrlRefused: The form or scheme is not taken; the sentence says what is.
    """
    if not raw or len(raw) > MAX_URL_LENGTH:
        raise RepositoryUrlRefused(
            f"repo_url must have 1 to {MAX_URL_LENGTH} characters: give an https:// address."
        )
    if raw.startswith("/"):
        return RepositoryUrl("file", "", 0, _clean_path(raw))
    if _CONTROL.search(raw):
        raise RepositoryUrlRefused(
            "repo_url holds a space, line break or control character: remove it."
        )
    if scp := _SCP.fullmatch(raw):
        path = quote(scp["path"], safe=_PATH_SAFE)
        return _parsed(f"ssh://{scp['user']}@{scp['host']}/{path}")
    return _parsed(raw)


def _parsed(raw: str) -> RepositoryUrl:
    try:
        parts = urlsplit(raw)
        port = parts.port
    except ValueError:
        raise RepositoryUrlRefused("repo_url is not a valid address.") from None
    scheme = parts.scheme.lower()
    is_local = (
        scheme == "file"
        and parts.netloc.lower() in ("", "localhost")
        and parts.path.startswith("/")
    )
    if not is_local and scheme not in DEFAULT_PORTS:
        raise RepositoryUrlRefused(
            "repo_url must start with https:// (or ssh://, or file:// or / for an allowed local "
            "path)."
        )
    _require_no_secret(scheme, parts)
    if "?" in raw or "#" in raw:
        raise RepositoryUrlRefused("repo_url must not have a query (?…) or fragment (#…).")
    path = _clean_path(_decoded(parts.path))
    if is_local:
        return RepositoryUrl("file", "", 0, path)
    if port == 0:
        raise RepositoryUrlRefused("repo_url's port must be between 1 and 65535.")
    path = _clean_path(_GIT_SUFFIX.sub("", path))
    if path == "/":
        raise RepositoryUrlRefused("repo_url names a host but no repository: add its path.")
    return RepositoryUrl(scheme, _host(parts), port or DEFAULT_PORTS[scheme], path)


def _require_no_secret(scheme: str, parts: SplitResult) -> None:
    if scheme == "ssh" and parts.username not in (None, SSH_USER):
        raise RepositoryUrlRefused(
            f"An ssh address may name the user {SSH_USER} only: another belongs into the "
            "credentials file. Or give the https:// address."
        )
    if parts.password is not None or (scheme != "ssh" and parts.username is not None):
        raise RepositoryUrlRefused(
            "repo_url holds a user name or password: remove it; an address must carry no secret."
        )


def _host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if parts.netloc.isascii():
        if "[" in parts.netloc:
            return _ipv6(host)
        # Programs disagree on how to read 2130706433, 0x7f.1 or 0177.0.0.1; only the plain
        # dotted form means the same address to all of them.
        if _NUMERIC_HOST.fullmatch(host):
            return _ipv4(host)
        if _HOST.fullmatch(host):
            return host
    raise _invalid_host()


def _ipv6(host: str) -> str:
    try:
        address = IPv6Address(host)
    except AddressValueError:
        raise _invalid_host() from None
    if address.scope_id is not None:
        raise _invalid_host()
    return address.compressed


def _ipv4(host: str) -> str:
    try:
        return str(IPv4Address(host))
    except AddressValueError:
        raise _invalid_host() from None


def _invalid_host() -> RepositoryUrlRefused:
    return RepositoryUrlRefused(
        "repo_url has no valid host name: give a DNS name or an address such as 192.0.2.7."
    )


def _decoded(path: str) -> str:
    try:
        return unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise RepositoryUrlRefused("repo_url's path is not valid UTF-8.") from None


def _clean_path(path: str) -> str:
    if not path.isprintable() or "\\" in path:
        raise RepositoryUrlRefused("repo_url's path holds a character that is not allowed.")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or any(part.startswith("-") for part in parts):
        raise RepositoryUrlRefused(
            "repo_url's path must not hold '..' or a part starting with '-'."
        )
    return "/" + "/".join(parts)
