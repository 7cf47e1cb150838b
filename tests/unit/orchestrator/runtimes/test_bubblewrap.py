"""What is said about a machine on which bubblewrap does not work."""

from pathlib import Path

import pytest

from orchestrator.runtimes import bubblewrap
from orchestrator.runtimes.bubblewrap import (
    counts_processes_by_namespace,
    explain_failure,
    missing_program,
    parse_version,
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("bubblewrap 0.8.0\n", (0, 8, 0)),
        ("bubblewrap 0.11", (0, 11, 0)),
        ("6.18.44-fc-v669", (6, 18, 44)),
        ("bubblewrap", ()),
    ],
)
def test_versions_are_read(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("release", "counts"), [("5.13.19-2-pve", False), ("5.14.0", True), ("6.1.0-18-amd64", True)]
)
def test_the_kernel_version_decides_how_processes_are_counted(release: str, counts: bool) -> None:
    assert counts_processes_by_namespace(release) is counts


def test_the_first_missing_program_is_named_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bubblewrap, "SEARCH_PATH", str(tmp_path))
    for program, package in (
        ("bwrap", "bubblewrap"),
        ("setsid", "util-linux"),
        ("unshare", "util-linux"),
    ):
        sentence = missing_program(as_root=False)
        assert sentence is not None
        assert f"program {program} " in sentence
        assert f"apt-get install {package}" in sentence
        (tmp_path / program).touch(mode=0o755)
    assert missing_program(as_root=False) is None
    assert "setpriv" in (missing_program(as_root=True) or "")


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces="),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "AppArmor profile"),
    ],
)
def test_the_setting_that_forbids_is_named(
    tmp_path: Path, setting: str, value: str, remedy: str
) -> None:
    file = tmp_path / setting
    file.parent.mkdir(parents=True)
    file.write_text(f"{value}\n")
    sentence = explain_failure("bwrap: setting up uid map: Permission denied\n", tmp_path)
    assert remedy in sentence
    assert "setting up uid map" in sentence


def test_an_allowing_setting_is_not_blamed(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user/max_user_namespaces").write_text("96365\n")
    assert "max_user_namespaces" not in explain_failure("unshare failed", tmp_path)
    assert "systempaths=unconfined" in explain_failure("bwrap: Can't mount proc", tmp_path)
