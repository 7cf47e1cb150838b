"""The calls to Google Cloud Storage; they block.

A write carries a random id in the object's metadata. If the answer to a conditional write is
lost, the library's retry of it fails on the condition that the write itself has changed; the id
then tells whose write it was.
"""

import base64
import secrets
import time
from collections.abc import Callable
from typing import BinaryIO

import google_crc32c
from google.api_core.exceptions import GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud import storage

from orchestrator.errors import ObjectConflict, ObjectNotFound, StorageFailure
from orchestrator.ports import ObjectInfo
from orchestrator.storage.objects.gcs_failures import RETRY, RETRY_SECONDS, TIMEOUTS, failures
from orchestrator.storage.objects.resumable_upload import ResumableUpload

MULTIPART_BYTES = 8 * 1024 * 1024  # what the library sends in one request
CHUNK_BYTES = 1024 * 1024
DAMAGE_TRIES = 3
WRITE_ID = "berth-write"
LISTED_FIELDS = "items(name,size,generation,updated),nextPageToken"


class GcsBucket:
    """One bucket. Methods may be called from several threads.

    Args:
        name: Name of the bucket.

    Raises:
        ConfigurationError: There are no credentials.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        with failures(name, None):
            self._client = storage.Client(project=None)
            self._bucket = self._client.bucket(name)

    def check(self, prefix: str) -> None:
        """Try to list the bucket."""
        with failures(self._name, None):
            found = self._client.list_blobs(
                self._bucket, prefix=prefix, max_results=1, retry=RETRY, timeout=TIMEOUTS
            )
            for _ in found:
                return

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def upload(
        self, key: str, name: str, content: BinaryIO, if_generation: int | None
    ) -> ObjectInfo:
        """Store all of `content`, which must be seekable, under `name`."""
        blob = self._bucket.blob(name)
        write_id = secrets.token_hex(16)
        blob.metadata = {WRITE_ID: write_id}
        size, checksum = _measured(content)
        blob.crc32c = checksum
        with failures(self._name, key):
            try:
                if size > MULTIPART_BYTES:
                    return self._upload_resumable(key, blob, content, size, if_generation)
                blob.upload_from_file(
                    content,
                    size=size,
                    content_type="application/octet-stream",
                    checksum="crc32c",
                    if_generation_match=if_generation,
                    retry=RETRY,
                    timeout=TIMEOUTS,
                )
                return _info(key, blob)
            except PreconditionFailed as error:
                stored = self._stored(name)
                if stored is not None and (stored.metadata or {}).get(WRITE_ID) == write_id:
                    return _info(key, stored)
                raise _conflict(key) from error

    def download(self, key: str, name: str, file: BinaryIO) -> ObjectInfo:
        """Write the object's content to `file`, and nothing else whatever happens meanwhile."""
        deadline = time.monotonic() + RETRY_SECONDS
        damaged = 0
        while damaged < DAMAGE_TRIES and time.monotonic() < deadline:
            with failures(self._name, key):
                stored = self._stored(name)
                if stored is None:
                    raise ObjectNotFound(f"Object storage holds nothing under {key!r}.", key=key)
                checksum = self._download_pinned(name, stored.generation, file)
            if checksum == stored.crc32c:
                return _info(key, stored)
            damaged += checksum is not None  # else replaced since we asked for its generation
        raise StorageFailure(
            f"The object {key!r} cannot be read: it arrives damaged, or changes all the time.",
            key=key,
        )

    def list(self, base: str, prefix: str) -> list[ObjectInfo]:
        """The objects whose name starts with `base` and `prefix`; their keys lack `base`."""
        with failures(self._name, None):
            found = self._client.list_blobs(
                self._bucket,
                prefix=base + prefix,
                fields=LISTED_FIELDS,
                retry=RETRY,
                timeout=TIMEOUTS,
            )
            return [_info(blob.name.removeprefix(base), blob) for blob in found]

    def delete(self, key: str, name: str, if_generation: int | None) -> bool:
        """Delete an object; False if there was none."""
        retry = _NotingRetry()
        with failures(self._name, key):
            try:
                self._bucket.delete_blob(
                    name, if_generation_match=if_generation, retry=retry, timeout=TIMEOUTS
                )
            except NotFound as error:
                _require_bucket(error)
                # If an answer was lost on the way, it was most likely the one to our own delete.
                return retry.answer_lost
            except PreconditionFailed as error:
                raise _conflict(key) from error
            return True

    def _stored(self, name: str) -> storage.Blob | None:
        blob = self._bucket.blob(name)
        try:
            blob.reload(retry=RETRY, timeout=TIMEOUTS)
        except NotFound as error:
            _require_bucket(error)
            return None
        return blob

    def _download_pinned(self, name: str, generation: int, file: BinaryIO) -> str | None:
        """Download a generation; returns the checksum of what came, or None if it is gone."""
        file.seek(0)
        file.truncate()
        summing = _Summing(file)
        try:
            # The library does not verify a download that it had to resume; our caller does.
            self._bucket.blob(name, generation=generation).download_to_file(
                summing, raw_download=True, checksum=None, retry=RETRY, timeout=TIMEOUTS
            )
        except NotFound:
            return None
        return summing.checksum()

    def _upload_resumable(
        self,
        key: str,
        blob: storage.Blob,
        content: BinaryIO,
        size: int,
        if_generation: int | None,
    ) -> ObjectInfo:
        address = blob.create_resumable_upload_session(
            content_type="application/octet-stream",
            size=size,
            if_generation_match=if_generation,
            retry=RETRY,
            timeout=TIMEOUTS,
        )
        resource = ResumableUpload(address, content, size).run()
        return ObjectInfo(key, resource.size, resource.updated, resource.generation)


class _Summing:
    """Passes what is written on to a file, and sums it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._sum = google_crc32c.Checksum()

    def write(self, chunk: bytes) -> int:
        self._sum.update(chunk)
        return self._file.write(chunk)

    def checksum(self) -> str:
        return base64.b64encode(self._sum.digest()).decode()


class _NotingRetry:
    """The usual retry, that notes whether a connection broke before an answer came."""

    def __init__(self) -> None:
        self.answer_lost = False

    def __call__(self, call: Callable[..., object]) -> Callable[..., object]:
        retried: Callable[..., object] = RETRY(call, on_error=self._note)
        return retried

    def _note(self, error: Exception) -> None:
        self.answer_lost |= not isinstance(error, GoogleAPICallError)


def _require_bucket(error: NotFound) -> None:
    """Raise the error on if it is the bucket that is missing, and not an object in it."""
    if "bucket does not exist" in str(error):
        raise error


def _measured(content: BinaryIO) -> tuple[int, str]:
    size = 0
    checksum = google_crc32c.Checksum()
    while chunk := content.read(CHUNK_BYTES):
        size += len(chunk)
        checksum.update(chunk)
    content.seek(0)
    return size, base64.b64encode(checksum.digest()).decode()


def _info(key: str, blob: storage.Blob) -> ObjectInfo:
    return ObjectInfo(key, blob.size, blob.updated, blob.generation)


def _conflict(key: str) -> ObjectConflict:
    return ObjectConflict(
        f"The object {key!r} was changed by another writer: read it again.", key=key
    )
