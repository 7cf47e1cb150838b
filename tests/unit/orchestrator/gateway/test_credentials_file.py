"""The credentials file: what is taken, and that no complaint quotes it."""

from pathlib import Path

import pytest

from orchestrator.domain.repository import parse_repository_url
from orchestrator.errors import ConfigurationError
from orchestrator.gateway.credentials_file import matching, read_credentials, read_secret

SECRET = "canary-in-the-file"
HEAD = '[[credential]]\nurl = "https://git.example/acme"\n'


def written(directory: Path, text: str, mode: int = 0o600) -> Path:
    path = directory / "credentials.toml"
    path.write_text(text)
    path.chmod(mode)
    return path


def test_the_longest_address_counts(tmp_path: Path) -> None:
    urls = ("https://git.example", "https://git.example/acme", "https://git.example/acme/a.git")
    text = "".join(f'[[credential]]\nurl = "{url}"\ntoken = "{n}"\n' for n, url in enumerate(urls))
    entries = read_credentials(written(tmp_path, text), {})
    for address, expected in {
        "https://git.example/other/x": "0",
        "https://GIT.example:443/acme/x.git": "1",
        "https://git.example/acme/a": "2",
        "https://git.example/acme/a/b": "2",
        "https://git.example/acmeother/x": "0",
    }.items():
        found = matching(entries, parse_repository_url(address))
        assert found is not None
        assert found.token is not None
        assert found.token.get_secret_value() == expected, address
    for address in (
        "http://git.example/acme/a",
        "https://git.example:8443/acme/a",
        "https://git.example.evil.test/acme/a",
        "ssh://git.example/acme/a",
    ):
        assert matching(entries, parse_repository_url(address)) is None, address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f'[[credential]]\nurl = "https://h"\ntoken = "{SECRET}', "TOML"),
        (f'{HEAD}token = "{SECRET}"\ntoken_env = "X"', "give one of"),
        (HEAD, "give one of"),
        (f'{HEAD}tokn = "{SECRET}"', "tokn"),
        (f"{HEAD}token = 5", "token"),
        (f'{HEAD}token = "{SECRET}"\nusername = "a b"', "username"),
        (f'{HEAD}token = "{SECRET}"\nusername = "{SECRET}:x"', "username"),
        (f'{HEAD}token = "{SECRET}"\nforge = "{SECRET}"', "forge"),
        (f'{HEAD}token = "{SECRET}"\napi_url = "ftp://{SECRET}"', "api_url"),
        (f'{HEAD}token = "{SECRET}"\napi_url = "https://me:{SECRET}@h"', "api_url"),
        (f'[[credential]]\nurl = "https://me:{SECRET}@h"\ntoken = "x"', "url"),
        (f'[[credential]]\nurl = "/srv/git"\ntoken = "{SECRET}"', "url"),
        (f'[[credential]]\nurl = "git.example"\ntoken = "{SECRET}"', "url"),
        (f'[[credential]]\nurl = "ssh://h"\ntoken = "{SECRET}"', "ssh_key"),
        ('[[credential]]\nurl = "ssh://h"\nssh_key = "/k"', "known_hosts"),
        (f'{HEAD}ssh_key = "/k"\nknown_hosts = "/h"\ntoken = "{SECRET}"', "ssh_key"),
        (f'{HEAD}token_file = "/no/such/{SECRET[:3]}"', "cannot be read"),
        (f'{HEAD}token_env = "NOT_SET"', "NOT_SET"),
        (f'{HEAD}github_app = {{app_id = 0, installation_id = 1, private_key_path = "/k"}}',
         "app_id"),
        (f'credential = "{SECRET}"', "credential"),
        (f'[{SECRET}]\nx = 1', "not as it should be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_without_the_secret(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_credentials(written(tmp_path, text), {})
    assert SECRET not in caught.value.detail


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_files_that_others_can_use_are_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ConfigurationError, match="chmod 600"):
        read_credentials(written(tmp_path, f'{HEAD}token = "{SECRET}"', mode), {})


def test_what_is_no_file_of_secrets(tmp_path: Path) -> None:
    large = written(tmp_path, "x" * 100_000)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    binary.chmod(0o600)
    for path, words in {
        tmp_path: "directory",
        tmp_path / "none": "cannot be read",
        Path("/dev/null"): "no regular file",
        large: "too large",
        binary: "UTF-8",
    }.items():
        with pytest.raises(ConfigurationError, match=words):
            read_secret(path)


def test_a_key_needs_ssh(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("a key")
    key.chmod(0o600)
    text = f'[[credential]]\nurl = "ssh://h"\nssh_key = "{key}"\nknown_hosts = "{key}"\n'
    path = written(tmp_path, text)
    assert len(read_credentials(path, {})) == 1
    with pytest.raises(ConfigurationError, match="ssh was not found"):
        read_credentials(path, {"PATH": str(tmp_path)})
    path.write_text(text.replace(f'known_hosts = "{key}"', 'known_hosts = "/no/such"'))
    with pytest.raises(ConfigurationError, match="is no file"):
        read_credentials(path, {})


def test_entries_do_not_show_their_tokens(tmp_path: Path) -> None:
    entries = read_credentials(written(tmp_path, f'{HEAD}token = "{SECRET}"'), {})
    assert SECRET not in repr(entries)
    assert SECRET not in str(entries[0].model_dump())
