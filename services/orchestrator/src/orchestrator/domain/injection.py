"""Secrets that the gateway adds to requests of a workspace, and to which requests."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from orchestrator.domain.egress import Destination, parse_authority
from orchestrator.errors import EgressRequestInvalid, SettingRefused

MAX_USES = 16
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
READING = frozenset({"GET", "HEAD"})
SECRET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
PLACEHOLDER = "{}"
_PORTS = {"http": 80, "https": 443}
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,=:@-]+)*")
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")
_FORMAT = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")
_DECODINGS = 8
# They say where a request goes, where it ends, or what a proxy does with it.
_RESERVED = re.compile(
    "connection|content-.*|expect|forwarded|host|keep-alive|proxy-.*|range|te|trailer|"
    "transfer-encoding|upgrade|via|x-forwarded-.*|x-http-method-.*|accept-encoding"
)


@dataclass(frozen=True, slots=True)
class WebPrefix:
    """Where web addresses begin: scheme, destination, and a path without final slash."""

    scheme: str
    destination: Destination
    path: str = ""

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.scheme}://{self.destination.authority}{self.path}"

    def covers(self, other: "WebPrefix") -> bool:
        """Whether all that begins with the other begins with this."""
        same = (self.scheme, self.destination) == (other.scheme, other.destination)
        return same and f"{other.path}/".startswith(f"{self.path}/")


@dataclass(frozen=True, slots=True)
class SecretUse:
    """What a workspace wants: a secret of the operator's in a header of some requests.

    Attributes:
        secret: Its name.
        url: Where the requests' addresses begin.
        header: The header's name.
        format: Its value, with `{}` for the secret.
        methods: Of the requests; none names all that are usual.
    """

    secret: str
    url: str
    header: str = "Authorization"
    format: str = "Bearer {}"
    methods: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the operator's and the addresses that it may be sent to."""

    name: str
    value: str = field(repr=False)
    prefixes: tuple[WebPrefix, ...] = ()


class Asked(Protocol):
    """A request as far as it decides what is added to it."""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        ...

    @property
    def destination(self) -> Destination:
        """Where it goes."""
        ...

    @property
    def target(self) -> bytes | None:
        """The path and what follows it."""
        ...


@dataclass(frozen=True, slots=True)
class Injection:
    """A header that the gateway adds to matching requests.

    `secret` is what is taken out of the response again. With `replaces` the header counts instead
    of one that the request brings; without, only if it brings none.
    """

    prefix: WebPrefix
    header: str
    value: str = field(repr=False)
    secret: str = field(repr=False)
    methods: frozenset[str] = METHODS
    replaces: bool = True

    def is_at(self, scheme: str, destination: Destination) -> bool:
        """Whether it is about a destination at all."""
        return (self.prefix.scheme, self.prefix.destination) == (scheme, destination)

    def matches(self, asked: Asked, method: str) -> bool:
        """Whether a request gets it."""
        here = self.is_at(asked.scheme, asked.destination) and method in self.methods
        return here and is_below(asked.target or b"/", self.prefix.path)


def parse_prefix(text: str) -> WebPrefix:
    """A prefix from `https://host`, with a port or a path if need be.

    Raises:
        EgressRequestInvalid: It has another form.
    """
    scheme, _, rest = text.partition("://")
    authority, slash, path = rest.partition("/")
    path = f"{slash}{path}".removesuffix("/")
    port = _PORTS.get(scheme)
    if port is None or not _PATH.fullmatch(path) or not is_below(path.encode(), path):
        raise EgressRequestInvalid(
            f"{text[:80]!a} is not of the form https://host, with a plain path if need be."
        )
    return WebPrefix(scheme, parse_authority(authority, port), path)


def is_below(target: bytes, prefix: str) -> bool:
    """Whether a request's path lies below a prefix, however a server may read it.

    Where there is a prefix, a path that can be read in several ways lies below none.
    """
    path = target.decode("latin-1").partition("?")[0]
    if not prefix:
        return True
    if not f"{path}/".startswith(f"{prefix}/"):
        return False
    for _ in range(_DECODINGS):
        plain = unquote(path, encoding="latin-1")
        if plain == path:
            return _is_plain(path)
        if plain.count("/") != path.count("/"):
            return False
        path = plain
    return False


def checked_use(use: SecretUse) -> WebPrefix:
    """Where a secret is to be used, if the use is one that can be carried out.

    Raises:
        SettingRefused: It is not.
    """
    try:
        prefix = parse_prefix(use.url)
    except EgressRequestInvalid as error:
        raise _refused(error.detail) from None
    if not _HEADER.fullmatch(use.header) or _RESERVED.fullmatch(use.header.lower()):
        raise _refused(f"{use.header[:80]!a} is not a header that can carry a secret.")
    rest = use.format.replace(PLACEHOLDER, "", 1)
    if PLACEHOLDER not in use.format or {"{", "}"} & set(rest) or not _FORMAT.fullmatch(use.format):
        raise _refused("The format is printable ASCII with {} once, for the secret.")
    unknown = sorted(set(use.methods) - METHODS)
    if unknown:
        raise _refused(f"{unknown[0][:80]!a} is not a method that a secret is added to.")
    return prefix


def require_granted(use: SecretUse, secret: Secret | None) -> None:
    """Let a use pass that the operator allows.

    Raises:
        SettingRefused: There is no such secret, or it may not be sent there; which of the two is
            not told.
    """
    prefix = checked_use(use)
    if secret is None or not any(each.covers(prefix) for each in secret.prefixes):
        raise _refused(
            f"The operator gives no secret {use.secret[:80]!a} for {prefix}: secrets and "
            "their addresses are files in BERTH_SECRETS_DIR."
        )


def injections(uses: Iterable[SecretUse], secrets: Mapping[str, Secret]) -> tuple[Injection, ...]:
    """What is added to requests; a use that is no longer granted adds nothing."""
    granted = []
    for use in uses:
        secret = secrets.get(use.secret)
        try:
            require_granted(use, secret)
        except SettingRefused:
            continue
        if secret is not None:
            granted.append(_injection(use, secret.value))
    return tuple(granted)


def chosen(all_: Iterable[Injection], asked: Asked, method: str) -> tuple[Injection, ...]:
    """What is added to a request: of each header, the one with the longest path."""
    matching = [each for each in all_ if each.matches(asked, method)]
    matching.sort(key=lambda each: (each.replaces, len(each.prefix.path)))
    return tuple({each.header.lower(): each for each in matching}.values())


def _injection(use: SecretUse, value: str) -> Injection:
    return Injection(
        prefix=parse_prefix(use.url),
        header=use.header,
        value=use.format.replace(PLACEHOLDER, value),
        secret=value,
        methods=frozenset(use.methods) or METHODS,
    )


def _is_plain(path: str) -> bool:
    # Some servers take a backslash for a slash, and cut off what follows a semicolon.
    return not ({"\\", ";", "\0"} & set(path) or {".", ".."} & set(path.split("/")))


def _refused(detail: str) -> SettingRefused:
    return SettingRefused(f"secrets: {detail}", setting="secrets")
