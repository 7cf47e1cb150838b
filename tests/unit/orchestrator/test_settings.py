"""Settings: names in the environment, defaults, and values that are refused."""

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from orchestrator.settings import RuntimeChoice, Settings, Transport, default_data_dir


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith(("BERTH_", "DATABASE_", "GPT_OSS_", "LLM_")):
            monkeypatch.delenv(name)


def settings(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def test_nothing_has_to_be_set() -> None:
    found = Settings()
    assert found.database_url is None
    assert found.gpt_oss_url is None
    assert (found.host, found.port) == ("127.0.0.1", 8080)
    assert found.runtime is RuntimeChoice.AUTO
    assert found.transport is Transport.SOCKET
    assert found.allow_paths == ()
    assert found.allow_hosts == ()
    assert found.max_steps > 1
    assert found.max_running_tasks > 1


def test_an_empty_variable_is_an_unset_one(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("DATABASE_URL", "GPT_OSS_URL", "LLM_API_KEY", "BERTH_PORT", "BERTH_ALLOW_PATHS")
    assert settings(monkeypatch, **dict.fromkeys(names, "")) == Settings.model_construct(
        data_dir=Settings().data_dir
    )


def test_names_that_users_know_have_no_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(
        monkeypatch,
        DATABASE_URL="postgresql://u:p@host/db",
        GPT_OSS_URL="http://model:8000",
        LLM_API_KEY="sk-secret",
        LLM_MODEL="some/model",
    )
    assert found.database_url is not None
    assert found.database_url.get_secret_value() == "postgresql://u:p@host/db"
    assert found.gpt_oss_url == "http://model:8000"
    assert found.llm_api_key.get_secret_value() == "sk-secret"
    assert found.llm_model == "some/model"


def test_our_own_names_have_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("RUNTIME", "docker")
    found = settings(
        monkeypatch, BERTH_PORT="0", BERTH_TRANSPORT="tcp", BERTH_DATA_DIR="/srv/berth"
    )
    assert found.port == 0
    assert found.runtime is RuntimeChoice.AUTO
    assert found.transport is Transport.TCP
    assert found.data_dir == Path("/srv/berth")


def test_secrets_are_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    found = settings(monkeypatch, DATABASE_URL="postgresql://u:pw-1@h/db", LLM_API_KEY="key-1")
    shown = repr(found) + str(found) + found.model_dump_json()
    assert "pw-1" not in shown
    assert "key-1" not in shown


def test_lists_are_written_with_separators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    found = settings(
        monkeypatch, BERTH_ALLOW_PATHS="/srv/git:~/work:", BERTH_ALLOW_HOSTS="Git.Local, 10.0.0.1,,"
    )
    assert found.allow_paths == (Path("/srv/git"), Path("/home/ada/work"))
    assert found.allow_hosts == ("git.local", "10.0.0.1")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BERTH_PORT", "65536"),
        ("BERTH_PORT", "-1"),
        ("BERTH_PORT", "http"),
        ("BERTH_RUNTIME", "podman"),
        ("BERTH_TRANSPORT", "SOCKET"),
        ("BERTH_DEPLOYMENT", "Two Words"),
        ("BERTH_DEPLOYMENT", "x" * 33),
        ("BERTH_MAX_STEPS", "0"),
        ("BERTH_MAX_TOKENS", "0"),
        ("BERTH_MAX_SECONDS", "0"),
        ("BERTH_MAX_SECONDS", "nan"),
        ("BERTH_CONTEXT_TOKENS", "1999"),
        ("BERTH_MODEL_TIMEOUT_SECONDS", "-1"),
        ("BERTH_CONTAINER_MEMORY_BYTES", "1000"),
        ("BERTH_CONTAINER_CPUS", "0"),
        ("BERTH_SANDBOX_UID", "0"),
        ("BERTH_LOG_LEVEL", "verbose"),
    ],
)
def test_a_value_that_cannot_work_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        settings(monkeypatch, **{name: value})
    (error,) = refused.value.errors()
    assert error["loc"] == (name.removeprefix("BERTH_").lower(),)


def test_state_lies_where_the_system_or_the_user_keeps_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert default_data_dir({}, 0) == Path("/var/lib/berth")
    assert default_data_dir({"XDG_STATE_HOME": "/state"}, 0) == Path("/var/lib/berth")
    assert default_data_dir({"XDG_STATE_HOME": "/state"}, 1000) == Path("/state/berth")
    assert default_data_dir({}, 1000) == Path("/home/ada/.local/state/berth")
    assert default_data_dir({"XDG_STATE_HOME": ""}, 1000) == Path("/home/ada/.local/state/berth")
