"""The command `python -m orchestrator` says in a sentence why it cannot start."""

import os
import socket
from pathlib import Path

import pytest

from orchestrator.__main__ import main


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but a directory and a port of our own."""
    for name in os.environ:
        if name.startswith(("BERTH_", "DATABASE_URL", "GPT_OSS_URL", "LLM_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("BERTH_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("BERTH_PORT", "0")
    # It would tie this process's log to a standard error that ends with the test.
    monkeypatch.setattr("orchestrator.__main__.configure_logging", lambda _level: None)


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("BERTH_PORT", "99999", "port"),
        ("BERTH_MAX_STEPS", "many", "max_steps"),
        ("BERTH_RUNTIME", "vm", "runtime"),
        ("BERTH_DEPLOYMENT", "Not/Good", "deployment"),
        ("BERTH_HOST", "not a host", "not a host"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d", "DATABASE_URL"),
    ],
)
def test_a_wrong_setting_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
    word: str,
) -> None:
    monkeypatch.setenv(name, value)

    assert main([]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("berth: ")
    assert word in last
    assert "hunter2" not in last


@pytest.mark.parametrize(
    "arguments", [["--port", "x"], ["--runtime", "vm"], ["--nonsense"], ["--allow-path"]]
)
def test_a_wrong_argument_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)

    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_a_wrong_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--port", "65536"]) == 1
    assert "port" in capsys.readouterr().err


@pytest.mark.parametrize("place", ["file/data", "file"])
def test_a_data_directory_that_cannot_be_written_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    (tmp_path / "file").touch()

    assert main(["--data", str(tmp_path / place)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"berth: The data directory {tmp_path / place} cannot be written (")
    assert "--data" in said


def test_a_port_that_is_taken_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["--port", str(port), "--data", str(tmp_path / "unused")]) == 1

    assert capsys.readouterr().err == (
        f"berth: Cannot listen on 127.0.0.1:{port} (Address already in use). Give another port, "
        "or stop what uses this one.\n"
    )
    assert not (tmp_path / "unused").exists()


def test_help_names_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])

    assert ended.value.code == 0
    said = capsys.readouterr().out
    for option in ("--port", "--data", "--runtime", "--allow-path"):
        assert option in said
