"""Objects in a bucket of Google Cloud Storage."""

import asyncio
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from orchestrator.errors import InvalidRequest
from orchestrator.ports import ObjectInfo, StoredObject
from orchestrator.storage.objects.arrival import arriving
from orchestrator.storage.objects.keys import MAX_KEY_BYTES, can_start_key, check_key

if TYPE_CHECKING:
    from orchestrator.storage.objects.gcs_bucket import GcsBucket

THREADS = 8

Answer = TypeVar("Answer")


class GcsObjectStore:
    """`ports.ObjectStore` on a bucket; its calls run in threads, at most eight at once.

    A call that is cancelled may still take effect: its thread goes on.

    Args:
        bucket: Name of a bucket that exists.
        prefix: What all object names begin with, such as `berth/`.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        self._bucket_name = bucket
        self._prefix = prefix
        self._opened: GcsBucket | None = None
        self._opening = Lock()
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="gcs")

    async def check(self) -> None:
        """Find out whether the bucket can be used. Call it at start-up.

        Raises:
            ConfigurationError: No credentials, no such bucket, or no right to it.
            StorageFailure: The service does not answer.
        """
        await self._do(lambda bucket: bucket.check(self._prefix))

    async def close(self) -> None:
        """Close the connections; calls that still run are not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._opened is not None:
            self._opened.close()

    async def put(
        self, key: str, content: bytes, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """See the port.

        Without a condition, a put whose confirmation was lost is sent once more, which may
        replace what somebody else has put meanwhile: the last writer wins.
        """
        return await self._upload(key, lambda: io.BytesIO(content), if_generation)

    async def put_file(
        self, key: str, path: Path, *, if_generation: int | None = None
    ) -> ObjectInfo:
        """See the port, and `put`."""
        return await self._upload(key, lambda: path.open("rb"), if_generation)

    async def read(self, key: str) -> StoredObject:
        """See the port."""
        name = self._name(key)

        def read(bucket: "GcsBucket") -> StoredObject:
            content = io.BytesIO()
            info = bucket.download(key, name, content)
            return StoredObject(content.getvalue(), info)

        return await self._do(read)

    async def get_file(self, key: str, path: Path) -> ObjectInfo:
        """See the port."""
        name = self._name(key)

        def get_file(bucket: "GcsBucket") -> ObjectInfo:
            with arriving(path) as file:
                return bucket.download(key, name, file)

        return await self._do(get_file)

    async def list(self, prefix: str) -> Sequence[ObjectInfo]:
        """See the port."""
        if not can_start_key(prefix):
            return []
        return await self._do(lambda bucket: bucket.list(self._prefix, prefix))

    async def delete(self, key: str, *, if_generation: int | None = None) -> bool:
        """See the port."""
        name = self._name(key)
        return await self._do(lambda bucket: bucket.delete(key, name, if_generation))

    async def _upload(
        self,
        key: str,
        opened: Callable[[], AbstractContextManager[BinaryIO]],
        if_generation: int | None,
    ) -> ObjectInfo:
        name = self._name(key)

        def upload(bucket: "GcsBucket") -> ObjectInfo:
            with opened() as content:
                return bucket.upload(key, name, content, if_generation)

        return await self._do(upload)

    def _name(self, key: str) -> str:
        check_key(key)
        name = self._prefix + key
        if len(name.encode()) > MAX_KEY_BYTES:
            raise InvalidRequest(
                f"The name {key[:100]!a} cannot be stored: with its prefix it is longer than "
                f"{MAX_KEY_BYTES} bytes in UTF-8."
            )
        return name

    async def _do(self, action: "Callable[[GcsBucket], Answer]") -> Answer:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: action(self._bucket()))

    def _bucket(self) -> "GcsBucket":
        with self._opening:
            if self._opened is None:
                from orchestrator.storage.objects.gcs_bucket import (  # noqa: PLC0415 - half a second
                    GcsBucket,
                )

                self._opened = GcsBucket(self._bucket_name)
            return self._opened
