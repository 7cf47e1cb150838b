"""What is taken over from cargo, go and Maven: from their files, and from themselves."""

import stat
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.support.clients import clients, web

from orchestrator.domain.egress import PackageSources
from orchestrator.gateway.package_sources import find_sources
from orchestrator.gateway.packages.machine import Machine, fetch_document, run_client
from orchestrator.settings import EgressPreset

CARGO = (EgressPreset.CARGO,)
GO = (EgressPreset.GO,)
MAVEN = (EgressPreset.MAVEN,)
SAID_BY_CARGO = """\
    Updating registry index
error: failed to get `ask-other` as a dependency of package `ask v0.0.0 (/tmp/x)`
Caused by:
  failed to download from `https://index.test/config.json`
"""
SETTINGS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.2.0">{}</settings>"""
MODEL = """<project><repositories><repository>
<id>central</id><url>https://central.test/maven2</url></repository></repositories></project>"""


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


async def test_cargo_itself_names_its_default_and_that_its_crates_host() -> None:
    machine = clients(
        {"cargo fetch": SAID_BY_CARGO},
        documents={"https://index.test/config.json": '{"dl": "https://crates.test/{crate}"}'},
    )

    found = await find_sources(CARGO, machine)

    assert found.rules == (web("index.test"), web("crates.test"))
    assert found.variables == {}
    assert found.notices == ()


async def test_cargo_whose_default_is_a_git_repository() -> None:
    said = "error: failed to fetch `https://git.test/index`"

    found = await find_sources(CARGO, clients({"cargo fetch": said}))

    assert found.rules == (web("git.test"),)
    assert "does not tell where its crates lie" in found.notices[0]


async def test_cargo_with_registries_of_its_own(tmp_path: Path) -> None:
    put(
        tmp_path / ".cargo" / "config.toml",
        '[registries.own-one]\nindex = "sparse+https://me:s3cret@own.test/i/"\n',
    )
    machine = clients(
        {},
        tmp_path,
        {"CARGO_REGISTRIES_OTHER_INDEX": "sparse+http://other.test:81/"},
        {
            "https://own.test/i/config.json": '{"dl": "https://own.test/dl"}',
            "http://other.test:81/config.json": "[]",
        },
    )

    found = await find_sources(CARGO, machine)

    assert found.rules == (web("own.test"), web("other.test", 81))
    assert found.variables == {
        "CARGO_REGISTRIES_OWN_ONE_INDEX": "sparse+https://own.test/i/",
        "CARGO_REGISTRIES_OTHER_INDEX": "sparse+http://other.test:81/",
    }
    assert "s3cret" not in repr(found)
    assert any("credentials for own.test" in notice for notice in found.notices)
    assert any("http://other.test:81/ does not tell" in notice for notice in found.notices)


async def test_cargo_that_replaces_its_registry(tmp_path: Path) -> None:
    put(
        tmp_path / ".cargo" / "config.toml",
        '[source.crates-io]\nreplace-with = "near"\n'
        '[source.near]\nreplace-with = "mirror"\n'
        '[source.mirror]\nregistry = "sparse+https://mirror.test/"\n',
    )
    machine = clients(
        {"cargo fetch": SAID_BY_CARGO},
        tmp_path,
        documents={"https://mirror.test/config.json": '{"dl": "https://mirror.test/dl"}'},
    )

    found = await find_sources(CARGO, machine)

    assert found.rules == (web("mirror.test"),)
    assert "'mirror'" in found.notices[0]
    assert ".cargo/config.toml" in found.notices[0]


@pytest.mark.parametrize("text", ["[source", "source = 3", "[source.crates-io]\nreplace-with = 3"])
async def test_cargo_with_a_broken_file(tmp_path: Path, text: str) -> None:
    put(tmp_path / ".cargo" / "config.toml", text)

    found = await find_sources(CARGO, clients({}, tmp_path))

    assert found.rules == ()
    assert "cargo is not installed" in found.notices[0]


async def test_cargo_replacements_that_go_round(tmp_path: Path) -> None:
    put(
        tmp_path / ".cargo" / "config.toml",
        '[source.crates-io]\nreplace-with = "a"\n[source.a]\nreplace-with = "crates-io"\n',
    )

    assert (await find_sources(CARGO, clients({}, tmp_path))).rules == ()


async def ask(machine: Machine) -> PackageSources:
    return await find_sources(GO, machine)


async def test_go_is_asked() -> None:
    said = "https://ada:s3cret@near.test/go|https://proxy.test,direct\nsum.test\n\n\n*.own.test\n"

    found = await ask(clients({"go env": said}))

    assert found.rules == (web("near.test"), web("proxy.test"), web("sum.test"))
    assert found.variables == {
        "GOPROXY": "https://near.test/go|https://proxy.test,direct",
        "GOSUMDB": "sum.test",
        "GONOSUMDB": "*.own.test",
    }
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    ("database", "variable", "hosts"),
    [
        ("off", "off", []),
        ("sum.test+key", "sum.test+key", ["sum.test"]),
        ("sum.test+key https://near.test/s", "sum.test+key https://near.test/s", ["near.test"]),
    ],
)
async def test_checksums_of_go(database: str, variable: str, hosts: Sequence[str]) -> None:
    found = await ask(clients({"go env": f"https://proxy.test\n{database}\n"}))

    assert found.variables["GOSUMDB"] == variable
    assert found.rules == (web("proxy.test"), *map(web, hosts))


async def test_go_that_is_missing_but_configured(tmp_path: Path) -> None:
    put(tmp_path / ".config" / "go" / "env", "GOPROXY=http://file.test:3000\nGOSUMDB=off\n")

    found = await ask(clients({}, tmp_path))
    assert found.rules == (web("file.test", 3000),)
    assert found.variables == {"GOPROXY": "http://file.test:3000", "GOSUMDB": "off"}

    found = await ask(clients({}, tmp_path, {"GOPROXY": "file:///srv,https://variable.test"}))
    assert found.variables["GOPROXY"] == "https://variable.test"
    assert "file address" in found.notices[0]


def maven_home(directory: Path) -> Path:
    """An installation of Maven, as far as it is read."""
    (directory / "lib").mkdir(parents=True)
    with zipfile.ZipFile(directory / "lib" / "maven-model-builder-3.9.jar", "w") as archive:
        archive.writestr("org/apache/maven/model/pom-4.0.0.xml", MODEL)
    program = put(directory / "bin" / "mvn", "#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return directory


async def test_the_default_of_maven_stands_in_its_archive(tmp_path: Path) -> None:
    home = maven_home(tmp_path / "maven")
    blocker = "<mirrors><mirror><mirrorOf>external:http:*</mirrorOf><url>http://0.0.0.0/</url>"
    put(
        home / "conf" / "settings.xml",
        SETTINGS.format(f"{blocker}<blocked>true</blocked></mirror></mirrors>"),
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mvn").symlink_to(home / "bin" / "mvn")

    found = await find_sources(MAVEN, clients({}, tmp_path, {"PATH": str(tmp_path / "bin")}))

    assert found.rules == (web("central.test"),)
    assert found.notices == ()


async def test_mirrors_and_profiles_of_maven(tmp_path: Path) -> None:
    home = maven_home(tmp_path / "maven")
    put(
        tmp_path / ".m2" / "settings.xml",
        SETTINGS.format(
            "<mirrors><mirror><id>m</id><mirrorOf>external:*,!own</mirrorOf>"
            "<url>https://mirror.test/all</url></mirror></mirrors>"
            "<activeProfiles><activeProfile>work</activeProfile></activeProfiles>"
            "<profiles><profile><id>work</id><repositories>"
            "<repository><id>own</id><url>https://own.test/maven</url></repository>"
            "<repository><id>more</id><url>https://more.test/maven</url></repository>"
            "</repositories></profile><profile><id>idle</id><repositories>"
            "<repository><id>x</id><url>https://idle.test/</url></repository>"
            "</repositories></profile></profiles>"
        ),
    )

    found = await find_sources(MAVEN, clients({}, tmp_path, {"MAVEN_HOME": str(home)}))

    assert found.rules == (web("own.test"), web("mirror.test"))
    assert "mirrors" in found.notices[0]


@pytest.mark.parametrize("text", ["", "<settings", "<settings/>"])
async def test_maven_that_is_missing(tmp_path: Path, text: str) -> None:
    put(tmp_path / ".m2" / "settings.xml", text)

    found = await find_sources(MAVEN, clients({}, tmp_path))

    assert found.rules == ()
    assert "maven is not installed" in found.notices[0]


async def test_a_cargo_that_cannot_reach_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The question is put to a program, which finds no configuration and a proxy that is none."""
    stand_in = put(
        tmp_path / "cargo",
        "#!/bin/sh\ngrep -q ask-other Cargo.toml && test -f src/lib.rs\n"
        'test "$CARGO_HOME" = "$PWD" && test -n "$CARGO_HTTP_PROXY" || exit 3\n'
        "echo 'failed to download from `https://told.test/config.json`' >&2\nexit 101\n",
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CARGO_REGISTRY_TOKEN", "s3cret")
    machine = Machine(run_client, clients({}).fetch, {"HOME": str(tmp_path)})

    found = await find_sources(CARGO, machine)

    assert found.rules == (web("told.test"),)
    assert "s3cret" not in (await run_client(("env",)) or "")


async def test_documents_that_cannot_be_had() -> None:
    assert await fetch_document("http://127.0.0.1:9/config.json") is None
    assert await fetch_document("no address") is None
