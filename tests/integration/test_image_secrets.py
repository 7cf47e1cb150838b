"""Images hold no secrets of whoever builds them."""

import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import docker
import pytest
from docker.errors import ImageNotFound
from tests.support.canaries import Output, Scanner, mint
from tests.support.canary_outputs import files_below
from tests.support.image_layers import image_contents
from tests.support.package_index import self_signed
from tests.support.runtimes import IMAGE, problem_with, require

from orchestrator.version import VERSION

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]
ORCHESTRATOR = f"berth-orchestrator:{VERSION}"
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+[A-Za-z0-9+/=]{40,}")
PASSWORD = re.compile(rb"://[^/\s\"':@]*:[^/\s\"'@]+@")
NAMES = {".env", ".netrc", ".npmrc", "npmrc", ".pypirc", ".git-credentials",
         ".gitconfig", ".pgpass", "credentials.toml", "id_rsa", "id_ed25519", ".git"}  # fmt: skip


def says(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True, timeout=200).stdout


@pytest.fixture(autouse=True)
async def engine() -> None:
    require(await problem_with("docker"))


@pytest.fixture
def tag() -> Iterator[str]:
    tag = f"berth-canary:{uuid.uuid4().hex[:12]}"
    yield tag
    subprocess.run(("docker", "image", "rm", tag), check=False, capture_output=True)


def test_what_lies_beside_the_sources_does_not_get_into_a_build(tmp_path: Path, tag: str) -> None:
    secret, source = mint("beside the sources"), mint("a source")
    shutil.copy(ROOT / ".dockerignore", tmp_path)
    for name in (".env", ".git/config", ".netrc", "credentials.toml", ".venv/pip.conf",
                 "services/agent/.env", "services/orchestrator/data/objects/x"):  # fmt: skip
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(secret.value)
    (tmp_path / "services/agent/src").mkdir()
    (tmp_path / "services/agent/src/code.py").write_text(source.value)
    proxy = mint("proxy of the build")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nCOPY . /context\nRUN true\n")
    # As `scripts/images` hands it on.
    argument = f"HTTP_PROXY=http://me:{proxy.value}@127.0.0.1:1"
    says("docker", "build", "--no-cache", "--tag", tag, "--build-arg", argument, str(tmp_path))

    found = Scanner([secret, source, proxy]).search(
        [
            *image_contents(tag),
            Output("history", says("docker", "history", "--no-trunc", tag)),
            Output("inspect", says("docker", "image", "inspect", tag)),
        ]
    )

    assert [(each.canary, each.place) for each in found] == [
        (source.name, "context/services/agent/src/code.py")
    ]


@pytest.mark.parametrize("image", [IMAGE, ORCHESTRATOR])
def test_the_images_hold_no_keys_and_no_configuration_with_secrets(image: str) -> None:
    client = docker.from_env()
    try:
        client.images.get(image)
    except ImageNotFound:
        require(f"there is no image {image}: build it with scripts/images")
    finally:
        client.close()
    count = 0
    for output in image_contents(image):
        count += 1
        assert not NAMES & set(PurePosixPath(output.place).parts), output.place
        # Libraries have keys in them to test themselves with.
        if not output.content.startswith(b"\x7fELF"):
            assert PRIVATE_KEY.search(output.content) is None, output.place
        if output.place.startswith(("etc/", "root/", "home/")):
            assert PASSWORD.search(output.content) is None, output.place
    assert count > 1_000
    said = says("docker", "history", "--no-trunc", image) + says("docker", "inspect", image)
    assert PASSWORD.search(said) is None


def test_settings_of_this_machine_go_into_base_images_without_their_secrets(tmp_path: Path) -> None:
    secret, tree = mint("this machine"), tmp_path / "tree"
    bundle = self_signed(tmp_path / "bundle.pem")
    bundle.write_text(f"{secret.value}\n{bundle.read_text()}")
    parts = (ROOT / "scripts/base-images").read_text().partition('main "$@"')
    address = f"https://me:{secret.value}@index.test/simple"
    subprocess.run(
        ("bash", "-c", f'{parts[0]}collect_settings "$1"', "bash", str(tree)),
        check=True,
        env=os.environ | {"SSL_CERT_FILE": str(bundle), "PIP_INDEX_URL": address},
    )

    kept = (tree / "etc/ssl/certs/ca-certificates.crt").read_bytes()
    assert bundle.with_suffix(".crt").read_bytes() in kept
    assert PRIVATE_KEY.search(kept) is None
    assert Scanner([secret]).search(files_below(tree)) == []
