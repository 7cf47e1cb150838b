"""The operator's secrets as files: read when needed, refused when others could read them."""

from pathlib import Path

import pytest

from orchestrator.domain.injection import Secret, parse_prefix
from orchestrator.errors import ConfigurationError
from orchestrator.gateway.secret_files import SecretFiles

VALUE = "s3cret-value"
GOOD = f'value = "{VALUE}"\nurls = ["https://api.test/v1", "http://b.test"]\n'


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


def write(directory: Path, text: str, name: str = "weather.toml", mode: int = 0o600) -> Path:
    file = directory / name
    file.write_text(text)
    file.chmod(mode)
    return file


async def test_a_secret_is_read_anew_each_time(directory: Path) -> None:
    secrets = SecretFiles(directory)
    assert await secrets.get("weather") is None
    file = write(directory, GOOD)
    await secrets.check()
    prefixes = (parse_prefix("https://api.test/v1"), parse_prefix("http://b.test"))
    assert await secrets.get("weather") == Secret("weather", VALUE, prefixes)
    write(directory, GOOD.replace(VALUE, "another-value"))
    found = await secrets.get("weather")
    assert found is not None
    assert found.value == "another-value"
    file.unlink()
    assert await secrets.get("weather") is None


async def test_without_a_directory_there_are_none() -> None:
    await SecretFiles(None).check()
    assert await SecretFiles(None).get("weather") is None


@pytest.mark.parametrize("name", ["../weather", "a/b", "", ".", "..", "weather.toml", "a\0b", "ä"])
async def test_names_are_no_paths(directory: Path, name: str) -> None:
    inner = directory / "inner"
    inner.mkdir()
    write(directory, GOOD)
    assert await SecretFiles(inner).get(name) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "value",
        f'value = "{VALUE}"\n',
        f'value = "{VALUE}"\nurls = []\n',
        f'value = "{VALUE}"\nurls = ["api.test"]\n',
        f'value = "{VALUE}"\nurls = ["https://*.test"]\n',
        f'value = "{VALUE}"\nurls = "https://api.test"\n',
        f"{GOOD}header = 'X'\n",
        GOOD.replace(VALUE, f"{VALUE}\\n"),
        GOOD.replace(VALUE, f"{VALUE}\\r\\nX-Other: y"),
        GOOD.replace(VALUE, f"{VALUE} b"),
        GOOD.replace(VALUE, f"{VALUE}\\u0000"),
        GOOD.replace(VALUE, f"{VALUE}ä"),
        GOOD.replace(VALUE, "short"),
        f'value = """{VALUE}\n"""\nurls = ["https://api.test"]\n',
    ],
)
async def test_what_is_not_well_formed_is_refused_unquoted(directory: Path, text: str) -> None:
    write(directory, text)
    with pytest.raises(ConfigurationError) as checked:
        await SecretFiles(directory).check()
    with pytest.raises(ConfigurationError):
        await SecretFiles(directory).get("weather")
    assert VALUE not in checked.value.detail
    assert checked.value.__cause__ is None


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o620])
async def test_others_must_not_read_or_change_a_file(directory: Path, mode: int) -> None:
    write(directory, GOOD, mode=mode)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        await SecretFiles(directory).check()


async def test_a_directory_that_cannot_be_used(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await SecretFiles(directory / "none").check()
    with pytest.raises(ConfigurationError, match="no directory"):
        await SecretFiles(write(directory, GOOD)).check()
    write(directory, GOOD, "a b.toml")
    with pytest.raises(ConfigurationError, match="cannot be named"):
        await SecretFiles(directory).check()
    directory.chmod(0o770)
    with pytest.raises(ConfigurationError, match="chmod 700"):
        await SecretFiles(directory).check()
