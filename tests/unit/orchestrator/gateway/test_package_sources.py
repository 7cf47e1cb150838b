"""What is taken over from package managers, here played by their printed answers."""

from pathlib import Path

import pytest
from tests.support.clients import clients, web

from orchestrator.domain.egress import Destination
from orchestrator.gateway.package_sources import find_sources
from orchestrator.gateway.packages.machine import run_client
from orchestrator.gateway.packages.pip import read_options
from orchestrator.settings import EgressPreset


async def test_pip_without_configuration_says_its_own_defaults() -> None:
    machine = clients(
        {"config list": "", "PyPI": "https://index.test/simple\nhttps://files.test/\n"}
    )

    found = await find_sources([EgressPreset.PIP], machine)

    assert found.rules == (web("index.test"), web("files.test"))
    assert found.variables == {}
    assert found.notices == ()


async def test_pip_with_an_index_of_its_own() -> None:
    listed = (
        "global.index-url='https://old.test/simple'\n"
        ":env:.index-url='http://mirror.test:3141/root/simple'\n"
        "global.extra-index-url='file:///srv/simple https://more.test/simple'\n"
        "global.trusted-host='mirror.test'\n"
        "global.cert='/etc/company.pem'\n"
    )

    found = await find_sources([EgressPreset.PIP], clients({"config list": listed}))

    assert found.rules == (web("mirror.test", 3141), web("more.test"))
    assert found.variables == {
        "PIP_INDEX_URL": "http://mirror.test:3141/root/simple",
        "PIP_EXTRA_INDEX_URL": "https://more.test/simple",
        "PIP_TRUSTED_HOST": "mirror.test",
    }
    assert found.certificates == Path("/etc/company.pem")
    assert len(found.notices) == 1
    assert "file" in found.notices[0]


async def test_credentials_stay_outside() -> None:
    plain = "global.index-url='http://ada:s%40cret@mirror.test/simple'\n"
    found = await find_sources([EgressPreset.PIP], clients({"config list": plain}))

    assert found.variables == {"PIP_INDEX_URL": "http://mirror.test/simple"}
    assert found.credentials == {Destination("mirror.test", 80): "Basic YWRhOnNAY3JldA=="}
    assert "s%40cret" not in repr(found)
    assert "YWRh" not in repr(found)

    encrypted = "global.index-url='https://ada:secret@mirror.test/simple'\n"
    found = await find_sources([EgressPreset.PIP], clients({"config list": encrypted}))

    assert found.variables == {"PIP_INDEX_URL": "https://mirror.test/simple"}
    assert found.credentials == {}
    assert "mirror.test" in found.notices[0]
    assert "secret" not in repr(found)


async def test_npm_and_apt() -> None:
    answers = {
        "npm config get registry": "https://packages.test/\n",
        "indextargets": "deb|/usr/share/k.gpg|http://deb.test/debian/|x|main\n"
        "deb-src|$(SIGNED_BY)|http://deb.test/debian/|x|main\n"
        "deb|$(SIGNED_BY)|http://me:s3cret@sec.test/s/|./|$(COMPONENT)\n",
    }

    found = await find_sources([EgressPreset.NPM, EgressPreset.APT], clients(answers))

    assert found.rules == (web("packages.test"), web("deb.test", 80), web("sec.test", 80))
    assert found.variables == {
        "NPM_CONFIG_REGISTRY": "https://packages.test/",
        "BERTH_APT_SOURCES": "deb [signed-by=/usr/share/k.gpg] http://deb.test/debian/ x main\n"
        "deb http://sec.test/s/ ./\n",
    }


async def test_clients_that_are_missing_allow_nothing() -> None:
    found = await find_sources(list(EgressPreset), clients({}))

    assert found.rules == ()
    assert len(found.notices) == len(EgressPreset)
    assert all("BERTH_EGRESS_ALLOW" in notice for notice in found.notices)


def test_lines_that_are_not_options() -> None:
    options = read_options("global.a='b'\nglobal.broken=x(\nnothing\ninstall.a='c'\nother.a='d'")

    assert options == {"a": "c"}


async def test_this_machine_is_asked() -> None:
    """Whatever is configured here: an answer, no failure, and nothing but hosts and ports."""
    found = await find_sources(list(EgressPreset))

    assert all(rule.host and rule.ports for rule in found.rules)
    assert await run_client(("no-such-program",)) is None
    assert await run_client(("false",)) is None
    assert await run_client(("echo", "yes")) == "yes\n"


async def test_clients_are_not_given_what_is_for_us_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLM_API_KEY", "s3cret")
    monkeypatch.setenv("DATABASE_URL", "postgresql://berth:s3cret@db.test/berth")
    monkeypatch.setenv("SOME_TOKEN", "s3cret")
    monkeypatch.setenv("npm_config_registry", "https://registry.test/")
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.test/simple")

    environment = await run_client(("env",)) or ""

    assert "s3cret" not in environment
    assert "PIP_INDEX_URL=https://index.test/simple" in environment
    assert "npm_config_registry=https://registry.test/" in environment
