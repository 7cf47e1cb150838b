"""Secrets that the work needs: real programs in a container use them and cannot learn them."""

import json
import re
import shutil
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from tests.acceptance.conftest import PLAYS
from tests.support.echo_server import echo_server
from tests.support.package_index import HOST, self_signed
from tests.support.repositories import SourceRepository
from tests.support.scripted import scripted_model
from tests.support.service import Service, running_service
from tests.support.tasks import Json, events_of, succeed

MARK = "zq7k"
VALUE = f"{MARK}operatorsown"
# The pattern does not hold the mark itself: else the probe would find its own text.
PROBE = """
import os, pathlib, re, ssl, sys, urllib.request

wanted = re.compile(b"z" + b"q7k[a-z]{6}")
context = ssl.create_default_context()
with urllib.request.urlopen(sys.argv[1], context=context) as answer:
    print("python got", answer.status, "stars" if b"*" * 8 in answer.read() else "nothing")
files = [*pathlib.Path("/proc").glob("[0-9]*/environ"), *pathlib.Path("/proc").glob("*/cmdline")]
for place in ("/run/berth", "/tmp", "/etc", os.getcwd()):
    files += [each for each in pathlib.Path(place).rglob("*") if each.is_file()]
found, read = [], 0
for file in files:
    try:
        content = file.read_bytes()
    except OSError:
        continue
    read += 1
    if wanted.search(content):
        found.append(str(file))
print("looked into", "many" if read > 20 else read, "files and found", found)
"""


@pytest.fixture(scope="module")
def certificate() -> Iterator[Path]:
    """Key and certificate of the server."""
    directory = Path(tempfile.mkdtemp(prefix="berth-"))
    yield self_signed(directory / "server.pem")
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def secrets() -> Iterator[Path]:
    """The operator's directory."""
    directory = Path(tempfile.mkdtemp(prefix="berth-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="module")
def service(runtime: str, sources: Path, certificate: Path, secrets: Path) -> Iterator[Service]:
    """A service with a directory of secrets, as yet empty."""
    settings = {
        "BERTH_SECRETS_DIR": str(secrets),
        "BERTH_ALLOW_HOSTS": HOST,
        "BERTH_CONTAINERS_AT_EXIT": "keep",
        "BERTH_EGRESS_CA_FILE": str(certificate.with_suffix(".crt")),
    }
    with scripted_model(PLAYS) as model:
        settings["GPT_OSS_URL"] = model.url
        with running_service(runtime, [sources], settings) as service:
            yield service


def keep(secrets: Path, value: str, *urls: str) -> None:
    """Write the operator's file."""
    file = secrets / "weather.toml"
    file.write_text(f"value = {json.dumps(value)}\nurls = {json.dumps(urls)}\n")
    file.chmod(0o600)


def server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


async def workspace_of(http: httpx2.AsyncClient, repository: SourceRepository) -> str:
    """The workspace of a repository, which its first task makes."""
    task = await succeed(http, "Run: true", repo_url=str(repository.path))
    return str(task["workspace"]["id"])


async def everything_told(service: Service, http: httpx2.AsyncClient, tasks: list[Json]) -> str:
    """All that came out, in one text."""
    told = [json.dumps(tasks), service.log.read_text()]
    for task in tasks:
        told += [str(frame.data) for frame in await events_of(http, task["task_id"])]
        told.append((await http.get(f"/containers/{task['workspace']['container']}/logs")).text)
    return "\n".join(told)


def mentions(directory: Path, text: str) -> list[Path]:
    """The files below a directory that hold a text."""
    files = [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_programs_use_a_secret_that_they_do_not_have(
    service: Service, fresh: SourceRepository, secrets: Path, certificate: Path
) -> None:
    fresh.commit("a probe", {"probe.py": PROBE})
    async with (
        service.client(120) as http,
        echo_server(server_context(certificate)) as echo,
        echo_server() as plain,
    ):
        place = f"/workspaces/{await workspace_of(http, fresh)}/settings"
        urls = f"https://{echo.authority}/v1", f"http://{plain.authority}"
        wanted = {
            "secrets": [
                {"secret": "weather", "url": urls[0]},
                {"secret": "weather", "url": urls[1], "header": "X-Api-Key", "format": "{}"},
            ]
        }
        refused = await http.put(place, json=wanted)
        assert (refused.status_code, refused.json()["code"]) == (422, "setting_refused")

        keep(secrets, VALUE, *urls)
        assert (await http.put(place, json=wanted)).status_code == 200
        shown = await http.get(place)
        assert [each["url"] for each in shown.json()["effective"]["secrets"]] == list(urls)
        assert MARK not in shown.text

        task = await succeed(
            http,
            f"Run: python3 probe.py {urls[0]}/x; curl -sS {urls[0]}/y | grep -c '[*]'; "
            f"curl -sS {urls[1]}/z | grep -c '[*]'; curl -sS https://{echo.authority}/other",
            repo_url=str(fresh.path),
        )
        answer = task["answer"]
        assert "python got 200 stars" in answer
        assert "looked into many files and found []" in answer
        assert "only for the requests that its secrets are for" in answer
        assert [each.split()[1] for each in echo.asked] == [b"/v1/x", b"/v1/y"]
        assert all(f"Bearer {VALUE}".encode() in each for each in echo.asked)
        assert [each.lower().count(b"x-api-key: " + VALUE.encode()) for each in plain.asked] == [1]

        keep(secrets, f"{MARK}anotherone", *urls)
        again = await succeed(http, f"Run: curl -sS {urls[0]}/new", repo_url=str(fresh.path))
        assert f"Bearer {MARK}anotherone".encode() in echo.asked[-1]

        assert MARK not in await everything_told(service, http, [task, again])
        assert mentions(service.data_dir, MARK) == []

        (secrets / "weather.toml").unlink()
        last = await succeed(http, f"Run: curl -sS {urls[1]}/z", repo_url=str(fresh.path))
        assert f"{HOST} is not allowed" in last["answer"]
        assert (await http.get(place)).json()["effective"]["secrets"] == []


async def test_another_workspace_has_neither_the_secret_nor_the_way(
    service: Service, fresh: SourceRepository, secrets: Path, certificate: Path
) -> None:
    async with service.client(120) as http, echo_server(server_context(certificate)) as echo:
        keep(secrets, VALUE, f"https://{echo.authority}")
        place = f"/workspaces/{await workspace_of(http, fresh)}/settings"
        for bad in (
            {"secret": "weather", "url": "https://elsewhere.example"},
            {"secret": "maps", "url": f"https://{echo.authority}"},
            {"secret": "../weather", "url": f"https://{echo.authority}"},
            {"secret": "weather", "url": f"https://{echo.authority}", "header": "Host"},
            {"secret": "weather", "url": f"https://{echo.authority}", "value": "mine"},
        ):
            assert (await http.put(place, json={"secrets": [bad]})).status_code == 422
        task = await succeed(http, f"Run: curl -sSk https://{echo.authority}/x 2>&1; true",
                             repo_url=str(fresh.path))  # fmt: skip
    assert f"{HOST} is not allowed" in task["answer"]
    assert not echo.asked


async def test_a_container_that_outlives_the_service_trusts_the_next_one(
    service: Service, fresh: SourceRepository, secrets: Path, certificate: Path
) -> None:
    look = "Run: curl -sS {}/x; tail -n 12 $SSL_CERT_FILE | sha256sum"
    async with echo_server(server_context(certificate)) as echo:
        url = f"https://{echo.authority}"
        keep(secrets, VALUE, url)
        async with service.client(120) as http:
            place = f"/workspaces/{await workspace_of(http, fresh)}/settings"
            wanted = {"secrets": [{"secret": "weather", "url": url}]}
            assert (await http.put(place, json=wanted)).status_code == 200
            first = await succeed(http, look.format(url), repo_url=str(fresh.path))
        service.stop()
        service.start()
        async with service.client(120) as http:
            second = await succeed(http, look.format(url), repo_url=str(fresh.path))
            (told,) = [
                each.data for each in await events_of(http, second["task_id"])
                if each.name == "container"
            ]  # fmt: skip
        assert told["how"] == "reuse"
        assert len(echo.asked) == 2
        assert echo.has_seen(VALUE)
        trusted = [re.findall("[0-9a-f]{64}", each["answer"]) for each in (first, second)]
        assert [len(each) for each in trusted] == [1, 1]
        assert trusted[0] != trusted[1]
