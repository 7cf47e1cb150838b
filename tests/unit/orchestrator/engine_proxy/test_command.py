"""The proxy's command line and its socket."""

import os
import socket
import stat
from pathlib import Path

import pytest

from orchestrator.engine_proxy.__main__ import main, read_options
from orchestrator.engine_proxy.listener import Place, listening
from orchestrator.errors import ConfigurationError
from orchestrator.runtimes.deployment import Deployment
from orchestrator.settings import Transport

NEEDED = ["--listen", "/run/x.sock", "--data", "/srv/berth", "--image", "berth-agent:1"]


def test_the_defaults_are_the_orchestrators() -> None:
    options = read_options(NEEDED)
    assert options.engine == Path("/var/run/docker.sock")
    assert options.place == Place(Path("/run/x.sock"), 0o600)
    assert options.terms.deployment == Deployment()
    assert options.terms.images == ("berth-agent:1",)
    assert options.terms.sockets == Path("/srv/berth/run")
    assert options.terms.transport is Transport.SOCKET
    assert options.terms.engine_runtimes == frozenset()


def test_everything_can_be_said() -> None:
    more = ["--mode", "660", "--owner", "10:20", "--deployment", "d", "--transport", "tcp"]
    more += ["--engine-runtime", "runsc", "--image", "other:2", "--engine", "/e.sock"]
    options = read_options([*NEEDED, *more])
    assert options.place == Place(Path("/run/x.sock"), 0o660, (10, 20))
    assert options.engine == Path("/e.sock")
    assert options.terms.images == ("berth-agent:1", "other:2")
    assert options.terms.transport is Transport.TCP
    assert options.terms.engine_runtimes == {"runsc"}


@pytest.mark.parametrize(
    "wrong",
    [["--mode", "rw"], ["--mode", "999"], ["--owner", "me"], ["--owner", "1"], ["--port", "1"]],
)
def test_what_cannot_be_read_is_named(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_options([*NEEDED, *wrong])
    assert wrong[0] in capsys.readouterr().err


def test_a_data_directory_with_its_sockets_elsewhere_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [*NEEDED, "--data", "/srv/" + "x" * 90]
    with pytest.raises(ConfigurationError, match="too long"):
        read_options(arguments)
    assert main(arguments) == 1
    assert capsys.readouterr().err.startswith("engine_proxy: The path /srv/xxx")


def test_the_socket_has_mode_and_owner_and_goes(tmp_path: Path) -> None:
    place = Place(tmp_path / "s", 0o640, (os.geteuid(), os.getegid()))
    with listening(place):
        facts = place.path.stat()
        assert stat.S_IMODE(facts.st_mode) == 0o640
        assert (facts.st_uid, facts.st_gid) == place.owner
    assert not place.path.exists()


def test_a_dead_socket_is_replaced_and_a_live_one_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path / "s", 0o600)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place.path))
    with (
        listening(place),
        pytest.raises(ConfigurationError, match="somebody listens"),
        listening(place),
    ):
        pass


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    place = Place(tmp_path / "s", 0o600)
    place.path.write_text("kept")
    with pytest.raises(ConfigurationError, match="something else"), listening(place):
        pass
    assert place.path.read_text() == "kept"


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    place = Place(tmp_path / "none" / "s", 0o600)
    with pytest.raises(ConfigurationError, match="in a directory that exists"), listening(place):
        pass
