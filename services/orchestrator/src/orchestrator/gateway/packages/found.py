"""What was found out so far about where package managers install from."""

import base64
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from orchestrator.domain.egress import Destination, HostRule, PackageSources, parse_host
from orchestrator.errors import EgressRequestInvalid

_WEB = {"http": 80, "https": 443}


@dataclass(slots=True)
class Found:
    """Collects what finders find."""

    rules: dict[HostRule, None] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    credentials: dict[Destination, str] = field(default_factory=dict)
    certificates: Path | None = None
    notices: dict[str, None] = field(default_factory=dict)

    def add(self, url: str, client: str) -> str | None:
        """Take a web address over; returns it without credentials, None if it cannot be used."""
        try:
            parts = urlsplit(url)
            port = parts.port or _WEB[parts.scheme]
            host = parse_host(
                f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
            )
        except (ValueError, KeyError, EgressRequestInvalid):
            kind = url.partition(":")[0] if "://" in url else "nameless"
            self.notice(
                f"{client} is configured with a {kind} address, which containers cannot use: it "
                "is left out."
            )
            return None
        destination = Destination(host, port)
        self.rules[HostRule(host, frozenset({port}))] = None
        if parts.username is not None:
            self._keep_credentials(
                parts.scheme, destination, client, parts.username, parts.password
            )
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def notice(self, sentence: str) -> None:
        """Tell the operator something, once."""
        self.notices[sentence] = None

    def missing(self, client: str) -> None:
        """Tell that a client can say nothing here."""
        self.notice(
            f"{client} is not installed on this machine, or has no sources: its preset allows "
            "nothing. Install or configure it, or name hosts with BERTH_EGRESS_ALLOW."
        )

    def sources(self) -> PackageSources:
        """All of it."""
        return PackageSources(
            tuple(self.rules),
            self.variables,
            self.credentials,
            self.certificates,
            tuple(self.notices),
        )

    def _keep_credentials(
        self, scheme: str, destination: Destination, client: str, user: str, password: str | None
    ) -> None:
        if scheme == "https":
            self.notice(
                f"{client} is configured with credentials for {destination.host}. They stay "
                "outside, and nothing can be added to an encrypted connection: containers ask "
                "without them."
            )
            return
        pair = f"{unquote(user)}:{unquote(password or '')}"
        self.credentials[destination] = f"Basic {base64.b64encode(pair.encode()).decode()}"
