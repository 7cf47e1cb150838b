"""Maven: the mirrors and repositories of its settings, and the default in its own archive."""

import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree as Xml

from orchestrator.gateway.packages.found import Found
from orchestrator.gateway.packages.machine import Machine, read_text

_MODEL = "org/apache/maven/model/pom-4.0.0.xml"
_LOCAL = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Repository:
    """Something that Maven installs from."""

    id: str
    url: str

    @property
    def is_external(self) -> bool:
        """Whether it is outside this machine, as Maven means it."""
        parts = urlsplit(self.url)
        return parts.hostname not in _LOCAL and parts.scheme != "file"


@dataclass(frozen=True, slots=True)
class Mirror:
    """What stands in for repositories; blocked, it only keeps Maven from them."""

    url: str
    of: str
    is_blocked: bool

    def covers(self, repository: Repository) -> bool:
        """Whether it stands in for a repository."""
        patterns = [pattern.strip() for pattern in self.of.split(",")]
        if f"!{repository.id}" in patterns:
            return False
        return any(_matches(pattern, repository) for pattern in patterns)


async def find_maven(found: Found, machine: Machine) -> None:
    """Read Maven's settings and its default."""
    home = _maven_home(machine)
    settings = list(_settings(machine, home))
    mirrors = [mirror for each in settings for mirror in _mirrors(each)]
    wanted = [repository for each in settings for repository in _repositories(each)]
    wanted += _defaults(home)
    chosen = [_chosen(repository, mirrors) for repository in wanted]
    chosen += [each.url for each in mirrors if not each.is_blocked and "*" in each.of]
    urls = [url for url in dict.fromkeys(chosen) if url is not None]
    if not urls:
        found.missing("maven")
    for url in urls:
        found.add(url, "maven")
    if any(not each.is_blocked for each in mirrors):
        found.notice(
            "maven is configured with mirrors. Containers may reach them, and need the same "
            "settings in the repository, named in its .mvn/maven.config."
        )


def _matches(pattern: str, repository: Repository) -> bool:
    if pattern == "external:http:*":
        return repository.is_external and repository.url.startswith("http:")
    if pattern == "external:*":
        return repository.is_external
    return pattern in ("*", repository.id)


def _chosen(repository: Repository, mirrors: Iterable[Mirror]) -> str | None:
    """Where Maven goes for a repository; the first mirror counts, but before it an exact one."""
    covering = [each for each in mirrors if each.covers(repository)]
    covering.sort(key=lambda each: each.of != repository.id)
    if not covering:
        return repository.url
    return None if covering[0].is_blocked else covering[0].url


def _maven_home(machine: Machine) -> Path | None:
    for name in ("MAVEN_HOME", "M2_HOME"):
        if machine.environment.get(name):
            return Path(machine.environment[name])
    program = machine.program("mvn")
    return None if program is None else program.parent.parent


def _settings(machine: Machine, home: Path | None) -> Iterator[Xml.Element]:
    """The user's settings, then the installation's."""
    files = [machine.home / ".m2" / "settings.xml"]
    if home is not None:
        files.append(home / "conf" / "settings.xml")
    for file in files:
        parsed = _parsed(read_text(file) or "")
        if parsed is not None:
            yield parsed


def _mirrors(settings: Xml.Element) -> Iterator[Mirror]:
    for mirror in settings.iterfind("{*}mirrors/{*}mirror"):
        blocked = _text(mirror, "blocked") == "true"
        yield Mirror(_text(mirror, "url"), _text(mirror, "mirrorOf"), blocked)


def _repositories(settings: Xml.Element) -> Iterator[Repository]:
    """The repositories of profiles that are always active."""
    active = {each.text for each in settings.iterfind("{*}activeProfiles/{*}activeProfile")}
    for profile in settings.iterfind("{*}profiles/{*}profile"):
        is_default = profile.findtext("{*}activation/{*}activeByDefault", "") == "true"
        if not is_default and _text(profile, "id") not in active:
            continue
        for place in ("{*}repositories/{*}repository", "{*}pluginRepositories/{*}pluginRepository"):
            for each in profile.iterfind(place):
                yield Repository(_text(each, "id"), _text(each, "url"))


def _defaults(home: Path | None) -> Iterator[Repository]:
    """The repositories that stand in the model from which every project inherits."""
    archives = () if home is None else home.glob("lib/maven-model-builder-*.jar")
    for archive in archives:
        try:
            with zipfile.ZipFile(archive) as opened:
                model = _parsed(opened.read(_MODEL).decode())
        except (OSError, KeyError, ValueError, zipfile.BadZipFile):
            continue
        for each in () if model is None else model.iterfind("{*}repositories/{*}repository"):
            yield Repository(_text(each, "id"), _text(each, "url"))


def _parsed(text: str) -> Xml.Element | None:
    try:
        return Xml.fromstring(text)  # noqa: S314 - the operator's own files, and Maven's
    except Xml.ParseError:
        return None


def _text(element: Xml.Element, name: str) -> str:
    return element.findtext(f"{{*}}{name}", "").strip()
