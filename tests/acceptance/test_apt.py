"""apt in a container that can write neither to the system nor as its user."""

import asyncio
import shutil
from pathlib import Path

import pytest
from tests.acceptance.conftest import PLAYS
from tests.acceptance.test_egress import is_reachable
from tests.support.apt_repository import PACKAGE, SAID, apt_repository
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import running_service
from tests.support.tasks import succeed

from orchestrator.gateway.package_sources import find_sources
from orchestrator.settings import EgressPreset

pytestmark = pytest.mark.skipif(
    shutil.which("apt-get") is None, reason="this machine has no apt to make packages with"
)


async def say(
    runtime: str, sources: Path, settings: dict[str, str], command: str, repository: Path
) -> str:
    """What a command in a container prints."""
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            async with service.client(150) as http:
                result = await succeed(http, f"Run: {command}", repo_url=str(repository))
    return str(result["answer"])


async def test_packages_are_downloaded_and_unpacked(
    runtime: str, sources: Path, fresh: SourceRepository, tmp_path: Path
) -> None:
    with apt_repository(tmp_path) as host:
        command = (
            f"echo 'deb [trusted=yes] http://{host} ./' >/tmp/own.list;"
            " apt() { apt-get -o Dir::Etc::sourcelist=/tmp/own.list -o Dir::Etc::sourceparts=-"
            ' "$@"; };'
            f" apt update && apt download {PACKAGE} && dpkg -x {PACKAGE}_*.deb there"
            f" && test -x there/usr/bin/{PACKAGE} && apt install -y {PACKAGE} && {PACKAGE}"
        )
        settings = {"BERTH_ALLOW_HOSTS": host, "BERTH_EGRESS_ALLOW": host}
        answer = await say(runtime, sources, settings, command, fresh.path)

    assert "exit code: 0" in answer, answer
    assert "This system cannot be written: the packages were unpacked into" in answer
    assert answer.count(SAID) == 1, answer


@pytest.mark.long
async def test_the_repositories_that_this_machine_is_configured_with(
    runtime: str, sources: Path, fresh: SourceRepository
) -> None:
    """The whole way, with real signatures, where there is one."""
    rules = (await find_sources([EgressPreset.APT])).rules
    reachable = await asyncio.gather(*(is_reachable(rule) for rule in rules))
    if not rules or not all(reachable):
        pytest.skip("the repositories that apt is configured with here do not answer")
    settings = {
        "BERTH_EGRESS_PRESETS": "apt",
        "BERTH_ALLOW_HOSTS": ",".join(rule.host for rule in rules),
    }
    command = "apt-get -qq update && apt-get -qq download hello && ls hello_*.deb"

    answer = await say(runtime, sources, settings, command, fresh.path)

    assert "exit code: 0" in answer, answer
    assert "hello_" in answer
