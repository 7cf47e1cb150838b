"""Secrets as files of a directory: each with its value and the addresses it may be sent to."""

import asyncio
import os
import re
import stat
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from orchestrator.domain.injection import SECRET_NAME, Secret, parse_prefix
from orchestrator.errors import ConfigurationError, EgressRequestInvalid
from orchestrator.gateway.credentials_file import read_secret
from orchestrator.gateway.redaction import MIN_BYTES

SUFFIX = ".toml"
# What is shorter cannot be told from other text when it is taken out of responses.
_VALUE = re.compile(rf"[\x21-\x7e]{{{MIN_BYTES},4096}}")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    value: SecretStr
    urls: list[str] = Field(min_length=1, max_length=64)


class SecretFiles:
    """`ports.Secrets` over a directory.

    Files are read anew each time, so a changed secret counts at once.

    Args:
        directory: Where they lie, as `NAME.toml`; None if there are none.
    """

    def __init__(self, directory: Path | None) -> None:
        self._directory = directory

    async def get(self, name: str) -> Secret | None:
        """See `ports.Secrets`."""
        if self._directory is None or not SECRET_NAME.fullmatch(name):
            return None
        return await asyncio.to_thread(_read, self._directory / f"{name}{SUFFIX}")

    async def check(self) -> None:
        """Make sure that all of them can be used.

        Raises:
            ConfigurationError: The directory or one of the files cannot. The sentence never quotes
                a file.
        """
        if self._directory is not None:
            await asyncio.to_thread(_check, self._directory)


def _check(directory: Path) -> None:
    try:
        status = directory.stat()
        files = sorted(directory.glob(f"*{SUFFIX}"))
    except OSError as error:
        raise ConfigurationError(
            f"BERTH_SECRETS_DIR: {directory} cannot be read ({error.strerror})."
        ) from None
    if not stat.S_ISDIR(status.st_mode):
        raise ConfigurationError(f"BERTH_SECRETS_DIR: {directory} is no directory.")
    if status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise ConfigurationError(
            f"BERTH_SECRETS_DIR: others can change {directory}: make it the service's own with "
            "chown, and chmod 700."
        )
    for file in files:
        if not SECRET_NAME.fullmatch(file.stem):
            raise ConfigurationError(f"{file} cannot be named: use letters, digits, _ and -.")
        _read(file)


def _read(file: Path) -> Secret | None:
    if not file.exists():
        return None
    try:
        found = _File.model_validate(tomllib.loads(read_secret(file)))
        prefixes = tuple(parse_prefix(url) for url in found.urls)
    except (tomllib.TOMLDecodeError, ValidationError, EgressRequestInvalid):
        raise ConfigurationError(
            f'{file} is not as it should be: it needs value = "…" and urls = '
            '["https://host", …], and nothing else.'
        ) from None
    value = found.value.get_secret_value()
    if not _VALUE.fullmatch(value):
        raise ConfigurationError(
            f"{file}: the value must have at least 8 printable ASCII characters, without blanks."
        )
    return Secret(file.stem, value, prefixes)
