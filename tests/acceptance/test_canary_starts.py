"""What a service says that cannot start: never the secret that is wrong."""

import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.acceptance.conftest import SANDBOX_ONLY
from tests.support.canaries import Output, Scanner, mint
from tests.support.canary_outputs import text_output
from tests.support.service import Service, passable_directory

from orchestrator.errors import ConfigurationError
from orchestrator.gateway.credentials_file import read_credentials
from orchestrator.gateway.egress_upstream import Upstream
from orchestrator.model.openai_client import OpenAIModel
from orchestrator.storage.postgres.address import parse_database_url

SECRET = mint("what is wrong")
SCANNER = Scanner([SECRET])
TOLD = SECRET.value
BROKEN = f'[[credential]]\nurl = "https://git.test"\ntoken = "{TOLD}\n'
ODD = f'[[credential]]\nurl = "https://me:{TOLD}@git.test"\ntoken = ["{TOLD}"]\n{TOLD} = "x"\n'


def credentials(directory: Path, text: str) -> Path:
    """A file of credentials."""
    path = directory / "credentials.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


WRONG: dict[str, Callable[[Path], object]] = {
    "database": lambda _: parse_database_url(f"postgresql://berth:{TOLD}#/@127.0.0.1/berth"),
    "brackets": lambda _: parse_database_url(f"postgresql://berth:{TOLD}[@127.0.0.1/berth"),
    "no postgres": lambda _: parse_database_url(f"mysql://berth:{TOLD}@127.0.0.1/berth"),
    "proxy": lambda _: Upstream({"HTTP_PROXY": f"https://me:{TOLD}@127.0.0.1:1"}),
    "port of the proxy": lambda _: Upstream({"HTTP_PROXY": f"http://me:{TOLD}@127.0.0.1:x"}),
    "model key": lambda _: OpenAIModel("http://127.0.0.1:1", f"{TOLD}ä"),
    "model address": lambda _: OpenAIModel(f"http://me:{TOLD}@127.0.0.1:1", "key"),
    "broken credentials": lambda path: read_credentials(credentials(path, BROKEN), {}),
    "odd credentials": lambda path: read_credentials(credentials(path, ODD), {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_no_secret_is_told_of_a_setting_that_is_wrong(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        WRONG[name](tmp_path)

    # As it would be logged, with what it followed from.
    shown = "".join(traceback.format_exception(caught.value))
    code = "".join(traceback.format_tb(caught.value.__traceback__))
    told = [text_output(name, caught.value.detail), text_output(name, shown.replace(code, ""))]
    assert SCANNER.search(told) == []


@SANDBOX_ONLY
def test_no_secret_is_told_at_a_start_that_fails(runtime: str, tmp_path: Path) -> None:
    cases = {
        "no database": {"DATABASE_URL": f"postgresql://berth:{TOLD}@127.0.0.1:1/berth"},
        "credentials": {"BERTH_GIT_CREDENTIALS": str(credentials(tmp_path, BROKEN))},
    }
    services = {
        name: Service(runtime, settings=settings, directory=passable_directory())
        for name, settings in cases.items()
    }
    try:
        for service in services.values():
            service._process = service.launch()
        for name, service in services.items():
            assert service.process.stdout is not None
            assert service.process.stdout.read() == ""
            assert service.wait(60) == 1
            said = service.log.read_bytes()
            assert b"berth: " in said
            assert b"Traceback" not in said
            assert SCANNER.search([Output(name, said)]) == []
    finally:
        for service in services.values():
            service.remove()
