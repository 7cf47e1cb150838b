"""The Docker engine: its calls in threads, its failures in our words."""

import asyncio
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from threading import Lock
from typing import TypeVar

import requests
import urllib3
from docker import APIClient
from docker.errors import APIError, DockerException, InvalidConfigFile
from docker.utils import kwargs_from_env
from docker.utils.config import find_config_file

from orchestrator.errors import RuntimeFailure, RuntimeUnavailable

THREADS = 8
PROBE_SECONDS = 2
CALL_SECONDS = 60
AWAY = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
"""What a proxy before the engine answers when the engine does not."""

REMEDY = "Start it (./scripts/setup-docker) or set BERTH_RUNTIME=sandbox."

Answer = TypeVar("Answer")


class DockerEngine:
    """The engine that the environment names (DOCKER_HOST), connected to on the first call.

    Args:
        timeout_seconds: Longest time the engine may be silent during a call.
    """

    def __init__(self, timeout_seconds: int = CALL_SECONDS) -> None:
        self._timeout_seconds = timeout_seconds
        self._client: APIClient | None = None
        self._connecting = Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")

    async def call(self, action: Callable[[APIClient], Answer]) -> Answer:
        """Run `action` with the client in a thread.

        Raises:
            APIError: The engine answered with an error that the caller may expect (4xx).
            RuntimeFailure: It failed on its side (5xx), or does not allow us the call (403).
            RuntimeUnavailable: It did not answer, or the client's configuration is malformed.
        """
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._do, action)

    async def close(self) -> None:
        """Close the connections."""
        client, self._client = self._client, None
        if client is not None:
            client.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _do(self, action: Callable[[APIClient], Answer]) -> Answer:
        try:
            return action(self._connected())
        except APIError as error:
            if error.status_code in AWAY:
                raise RuntimeUnavailable(f"{explanation(error)} {REMEDY}") from error
            if error.status_code == HTTPStatus.FORBIDDEN:
                raise RuntimeFailure(
                    f"The Docker engine, or the proxy before it, refused: {explanation(error)}"
                ) from error
            if error.is_server_error():
                raise RuntimeFailure(f"The Docker engine failed: {explanation(error)}") from error
            raise
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise RuntimeUnavailable(
                f"The Docker engine does not answer ({_cause(error)}). {REMEDY}"
            ) from error

    def _connected(self) -> APIClient:
        with self._connecting:
            if self._client is None:
                # "auto": an engine refuses versions of the interface that it is too old or new for.
                self._client = _client(self._timeout_seconds)
            return self._client


def _client(timeout_seconds: int) -> APIClient:
    where = kwargs_from_env()
    try:
        # "auto": an engine refuses versions of the interface that it is too old or new for.
        return APIClient(version="auto", timeout=timeout_seconds, max_pool_size=THREADS, **where)
    except (DockerException, AttributeError, LookupError, TypeError, ValueError) as error:
        file = find_config_file()
        if file is None or not _is_misread(error):
            raise
        raise RuntimeUnavailable(
            f"Docker's configuration file {file!s} is malformed. Mend or remove it, or "
            "have DOCKER_CONFIG name a directory with another."
        ) from error


def _is_misread(error: Exception) -> bool:
    """True if the library, which trusts its configuration's form, has stumbled over it."""
    if isinstance(error, DockerException) and not isinstance(error, InvalidConfigFile):
        return isinstance(
            error.__cause__, AttributeError | TypeError | requests.exceptions.InvalidHeader
        )
    return True


async def docker_problem(image: str, engine_runtime: str | None = None) -> str | None:
    """Why the engine cannot run containers of this image, with a remedy; None if it can.

    Args:
        image: The agent's image.
        engine_runtime: The engine's runtime that is asked for; None for its default.
    """
    engine = DockerEngine(PROBE_SECONDS)
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            await engine.call(lambda client: image_id(client, image))
            if engine_runtime is not None:
                facts = await engine.call(lambda client: client.info())
                return missing_runtime(engine_runtime, facts.get("Runtimes") or {})
    except TimeoutError:
        return f"The Docker engine does not answer within {PROBE_SECONDS} s. {REMEDY}"
    except APIError as error:
        return missing_image(image) if error.status_code == requests.codes.not_found else str(error)
    except RuntimeFailure as error:
        return error.detail
    finally:
        await engine.close()
    return None


def image_id(client: APIClient, image: str) -> str:
    """The id of an image."""
    answer = client.inspect_image(image)  # type: ignore[no-untyped-call]  # the stubs lack it
    return str(answer["Id"])


def missing_image(image: str) -> str:
    """A sentence on an image the engine does not have."""
    return f"The Docker engine has no image {image}; build it with ./scripts/images agent."


def missing_runtime(wanted: str, known: Collection[str]) -> str | None:
    """A sentence on a runtime that the engine does not have, or None if it has it."""
    if wanted in known:
        return None
    return (
        f"The Docker engine has no runtime {wanted}, only {', '.join(sorted(known))}. Install it "
        "and name it under `runtimes` in the engine's daemon.json, or unset BERTH_DOCKER_RUNTIME."
    )


def explanation(error: APIError) -> str:
    """What the engine said."""
    return str(error.explanation or error)


def _cause(error: BaseException) -> str:
    # The libraries wrap errors several deep; only the innermost says what happened.
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {error}"
