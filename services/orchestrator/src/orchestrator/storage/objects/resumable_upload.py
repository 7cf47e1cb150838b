"""An upload in pieces that survives broken connections.

The library's own one trusts that a piece arrives whole; the service may keep only its beginning.
"""

import re
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import BinaryIO

import requests
from google.api_core.exceptions import from_http_response
from pydantic import BaseModel

from orchestrator.errors import StorageFailure
from orchestrator.storage.objects.gcs_failures import RETRY, TIMEOUTS

PIECE_BYTES = 8 * 1024 * 1024  # a multiple of 256 KiB, as the service wants it
MAX_STALLS = 8

_KEPT = re.compile(r"bytes=0-(\d+)")


class Resource(BaseModel):
    """What the service says about a finished upload."""

    size: int
    generation: int
    updated: datetime


class ResumableUpload:
    """One upload session.

    Args:
        address: The session's address; it is all the authority needed.
        content: Seekable.
        size: Bytes in `content`, at least one.
    """

    def __init__(self, address: str, content: BinaryIO, size: int) -> None:
        self._address = address
        self._content = content
        self._size = size
        self._kept: int | None = 0
        self._stalls = 0

    def run(self) -> Resource:
        """Send everything; nothing is visible before the last byte has arrived.

        Raises:
            GoogleAPICallError: The service refuses; `PreconditionFailed` if another writer won.
            RetryError: It fails for longer than is waited for.
            StorageFailure: It answers but keeps nothing.
        """
        advance: Callable[[requests.Session], Resource | None] = RETRY(self._advance)
        with requests.Session() as session:
            while True:
                resource = advance(session)
                if resource is not None:
                    return resource

    def _advance(self, session: requests.Session) -> Resource | None:
        """Send the next piece; after a failure, ask how far the service has got."""
        start, self._kept = self._kept, None
        if start is None:
            response = self._put(session, f"bytes */{self._size}", b"")
        else:
            self._content.seek(start)
            piece = self._content.read(PIECE_BYTES)
            place = f"bytes {start}-{start + len(piece) - 1}/{self._size}"
            response = self._put(session, place, piece)
        if response.status_code in (HTTPStatus.OK, HTTPStatus.CREATED):
            return Resource.model_validate_json(response.content)
        if response.status_code != HTTPStatus.PERMANENT_REDIRECT:
            raise from_http_response(response)
        kept = _KEPT.fullmatch(response.headers.get("Range", ""))
        self._kept = int(kept[1]) + 1 if kept else 0
        self._count_stalls(start)
        return None

    def _put(self, session: requests.Session, place: str, piece: bytes) -> requests.Response:
        return session.put(
            self._address,
            data=piece,
            headers={"Content-Range": place},
            timeout=TIMEOUTS,
            allow_redirects=False,
        )

    def _count_stalls(self, start: int | None) -> None:
        self._stalls = self._stalls + 1 if self._kept == start else 0
        if self._stalls > MAX_STALLS:
            raise StorageFailure(
                "Google Cloud Storage keeps nothing of an upload: try again later."
            )
