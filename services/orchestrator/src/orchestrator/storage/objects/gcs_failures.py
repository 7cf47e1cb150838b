"""What goes wrong with Google Cloud Storage, and for how long it is tried again."""

from collections.abc import Iterator
from contextlib import contextmanager

import requests
from google.api_core.exceptions import (
    BadRequest,
    Forbidden,
    GoogleAPICallError,
    NotFound,
    RetryError,
    Unauthorized,
)
from google.auth.exceptions import GoogleAuthError, TransportError
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from google.cloud.storage.retry import DEFAULT_RETRY

from orchestrator.errors import ConfigurationError, StorageFailure

RETRY_SECONDS = 30.0
RETRY = DEFAULT_RETRY.with_timeout(RETRY_SECONDS).with_delay(initial=0.1, maximum=4, multiplier=2)
"""Tries again what the library holds to be passing: broken connections, 408, 429 and 5xx."""
TIMEOUTS = (5.0, 60.0)
"""Seconds to connect, and of silence from the server."""


@contextmanager
def failures(bucket: str, key: str | None) -> Iterator[None]:
    """Say in our words what failed; `key` is the object concerned, if it is about one."""
    try:
        yield
    except (Forbidden, Unauthorized) as error:
        raise ConfigurationError(
            f"Google Cloud Storage refuses access to the bucket {bucket!r}: give the service's "
            "account the role Storage Object User on it, or mend GCS_BUCKET.",
            bucket=bucket,
        ) from error
    except NotFound as error:
        raise ConfigurationError(
            f"Google Cloud Storage has no bucket {bucket!r}: create it or mend GCS_BUCKET.",
            bucket=bucket,
        ) from error
    except TransportError as error:
        raise _unavailable(key, error) from error
    except GoogleAuthError as error:
        raise ConfigurationError(
            "There are no usable Google Cloud credentials for GCS_BUCKET: set "
            "GOOGLE_APPLICATION_CREDENTIALS, or unset GCS_BUCKET to store objects as files.",
            bucket=bucket,
        ) from error
    except (DataCorruption, BadRequest) as error:
        raise StorageFailure(
            f"Google Cloud Storage did not take {key!r} as it was sent: try again.", key=key
        ) from error
    except (GoogleAPICallError, RetryError, InvalidResponse, requests.RequestException) as error:
        raise _unavailable(key, error) from error


def _unavailable(key: str | None, error: Exception) -> StorageFailure:
    cause = error.cause if isinstance(error, RetryError) else error
    return StorageFailure(
        f"Google Cloud Storage does not answer ({type(cause).__name__}): try again later.",
        key=key,
    )
