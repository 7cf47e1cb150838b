"""The Python that runs the worker in sandboxes."""

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

import pytest

from orchestrator.errors import RuntimeUnavailable
from orchestrator.runtimes import interpreter
from orchestrator.runtimes.interpreter import find_interpreter


def test_the_parts_exist_and_are_found_without_an_import() -> None:
    before = set(sys.modules)
    found = find_interpreter()
    assert not {"agent", "mcp_servers"} & (set(sys.modules) - before)
    assert (found.site_packages / "starlette").is_dir()
    assert [path.name for path in found.packages] == ["agent", "mcp_servers"]
    assert all((path / "__init__.py").exists() for path in found.packages)


def test_an_interpreter_outside_usr_is_mounted_and_one_inside_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere/python")
    outside = find_interpreter()
    assert outside.prefix == Path("/elsewhere/python")
    assert outside.executable == f"/opt/berth/python/bin/{python}"
    monkeypatch.setattr(sys, "base_prefix", "/usr/local")
    within = find_interpreter()
    assert within.prefix is None
    assert within.executable == f"/usr/local/bin/{python}"
    assert "LD_LIBRARY_PATH" not in dict(within.environment)


@pytest.mark.parametrize("shared", [0, 1])
def test_a_shared_library_is_found_where_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, shared: int
) -> None:
    monkeypatch.setattr(sys, "base_prefix", "/elsewhere/python")
    monkeypatch.setattr(sysconfig, "get_config_var", lambda _: shared)
    environment = dict(find_interpreter().environment)
    assert environment.get("LD_LIBRARY_PATH") == ("/opt/berth/python/lib" if shared else None)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(RuntimeUnavailable, match="'uvicorn' is not installed"):
        find_interpreter()


def test_changed_code_changes_the_facts(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.touch()
    found = interpreter.Interpreter("python", None, tmp_path, (tmp_path,), ())
    before = found.digest_facts()
    assert found.digest_facts() == before
    os.utime(module, (1, 2**31))
    assert found.digest_facts() != before
