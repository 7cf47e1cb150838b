"""What of this machine's own files sandboxes see."""

from pathlib import Path

from orchestrator.runtimes.sandbox_command import Mount
from orchestrator.runtimes.system_tree import hidden_mounts, write_made_files


def test_configuration_of_package_managers_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "usr" / "etc").mkdir(parents=True)
    (tmp_path / "usr" / "etc" / "npmrc").write_text("//registry.test/:_authToken=secret")
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "pip.conf").write_text("[global]\nindex-url = https://a:b@index.test/")
    (tmp_path / "bare").mkdir()
    prefixes = {name: tmp_path / name for name in ("usr", "python", "bare")}

    found = hidden_mounts({f"/in/{name}": path for name, path in prefixes.items()}, "/made")

    assert found == (
        Mount("/made/empty", "/in/usr/etc"),
        Mount("/made/nothing", "/in/python/pip.conf"),
    )


def test_what_is_shown_instead_is_empty(tmp_path: Path) -> None:
    write_made_files(tmp_path / "etc", 1, 1)
    write_made_files(tmp_path / "etc", 1, 1)

    assert list((tmp_path / "etc" / "empty").iterdir()) == []
    assert (tmp_path / "etc" / "nothing").read_bytes() == b""
