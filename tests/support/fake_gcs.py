"""A stand-in for the JSON API of Google Cloud Storage, for tests. It is not the real service.

True to it: generations, preconditions on every call, checksums, paging, ranges, resumable
uploads that show nothing before they are complete. Left out: everything Berth does not use
(versions, batches, signed addresses, access control). Buckets exist if named on the command line.

Tests make it fail through `POST /faults`; see `Fault`. `GET /requests` tells what was asked.
Run: `python fake_gcs.py LISTENING_SOCKET_FD BUCKET...`; all state is in memory.
"""

import asyncio
import base64
import itertools
import json
import re
import socket
import sys
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import unquote

import google_crc32c
import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRANULE = 256 * 1024
MAX_PAGE = 1_000


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests that match.

    `kind` is one of:
        drop_before: the connection breaks before anything happened.
        drop_after: it breaks after everything happened, so that the answer is lost.
        unavailable: 503.
        slow: the answer comes `seconds` late.
        corrupt: the last byte of the answer is another one.
        half_answer: the connection breaks in the middle of the answer.
        half_piece: only the beginning of an upload's piece is kept, as the service may do.
    """

    kind: str
    method: str = ""
    address: str = ""
    times: int = 1
    seconds: float = 0.0

    def takes(self, method: str, address: str) -> bool:
        if self.times < 1 or (self.method and self.method != method) or self.address not in address:
            return False
        self.times -= 1
        return True


@dataclass(frozen=True)
class Stored:
    """An object; `resource` is what the API says about it."""

    content: bytes
    resource: dict[str, Any]

    @property
    def generation(self) -> int:
        return int(self.resource["generation"])


@dataclass
class Session:
    """A resumable upload under way."""

    bucket: str
    metadata: dict[str, Any]
    conditions: QueryParams
    content: bytearray = field(default_factory=bytearray)
    finished: dict[str, Any] | None = None


class Refusal(Exception):
    """An answer with an error."""

    def __init__(self, status: int, message: str, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Buckets:
    """All objects. Its methods never wait, so each happens at once."""

    def __init__(self, names: list[str]) -> None:
        self._buckets: dict[str, dict[str, Stored]] = {name: {} for name in names}
        self._generations = itertools.count(time.time_ns() // 1_000)

    def objects(self, bucket: str) -> dict[str, Stored]:
        if bucket == "forbidden":
            raise Refusal(403, "The caller does not have access to the bucket.", "forbidden")
        if bucket not in self._buckets:
            raise Refusal(404, "The specified bucket does not exist.", "notFound")
        return self._buckets[bucket]

    def require(self, bucket: str, name: str, query: QueryParams) -> None:
        """Refuse if a precondition does not hold."""
        stored = self.objects(bucket).get(name)
        generation = stored.generation if stored else 0
        wanted, unwanted = query.get("ifGenerationMatch"), query.get("ifGenerationNotMatch")
        if (wanted is not None and int(wanted) != generation) or (
            unwanted is not None and int(unwanted) == generation
        ):
            raise Refusal(
                412,
                "At least one of the pre-conditions you specified did not hold.",
                "conditionNotMet",
            )

    def existing(self, bucket: str, name: str, query: QueryParams) -> Stored:
        stored = self.objects(bucket).get(name)
        wanted = query.get("generation")
        if stored is None or (wanted is not None and int(wanted) != stored.generation):
            raise Refusal(404, f"No such object: {bucket}/{name}", "notFound")
        self.require(bucket, name, query)
        return stored

    def put(
        self, bucket: str, metadata: dict[str, Any], content: bytes, query: QueryParams
    ) -> dict[str, Any]:
        name = metadata["name"]
        if not 0 < len(name.encode()) <= 1_024 or "\n" in name or "\r" in name:
            raise Refusal(400, "Invalid object name", "invalid")
        checksum = base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()
        if metadata.get("crc32c", checksum) != checksum:
            raise Refusal(400, "Provided CRC32C does not match the calculated one.", "invalid")
        self.require(bucket, name, query)
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        resource = {
            "kind": "storage#object",
            "name": name,
            "bucket": bucket,
            "generation": str(next(self._generations)),
            "metageneration": "1",
            "contentType": metadata.get("contentType", "application/octet-stream"),
            "metadata": metadata.get("metadata", {}),
            "size": str(len(content)),
            "crc32c": checksum,
            "timeCreated": now,
            "updated": now,
        }
        self.objects(bucket)[name] = Stored(content, resource)
        return resource

    def delete(self, bucket: str, name: str, query: QueryParams) -> None:
        self.existing(bucket, name, query)
        del self.objects(bucket)[name]

    def page(self, bucket: str, query: QueryParams, largest: int) -> dict[str, Any]:
        after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode()
        prefix = query.get("prefix", "")
        objects = self.objects(bucket)
        names = sorted(name for name in objects if name.startswith(prefix) and name > after)
        size = min(int(query.get("maxResults", MAX_PAGE)), largest)
        page: dict[str, Any] = {
            "kind": "storage#objects",
            "items": [objects[name].resource for name in names[:size]],
        }
        if len(names) > size:
            page["nextPageToken"] = base64.urlsafe_b64encode(names[size - 1].encode()).decode()
        return page


class FakeGcs:
    """The routes."""

    def __init__(self, buckets: list[str]) -> None:
        self._buckets = Buckets(buckets)
        self._sessions: dict[str, Session] = {}
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._largest_page = MAX_PAGE
        self.app = Starlette(
            routes=[
                Route("/faults", self._set_faults, methods=["POST"]),
                Route("/requests", self._told_requests),
                Route("/storage/v1/b/{bucket}", self._bucket),
                Route("/storage/v1/b/{bucket}/o", self._list),
                Route("/upload/storage/v1/b/{bucket}/o", self._upload, methods=["POST"]),
                Route("/upload/storage/v1/b/{bucket}/o", self._piece, methods=["PUT"]),
                Route("/storage/v1/b/{bucket}/o/{name:path}", self._resource),
                Route("/storage/v1/b/{bucket}/o/{name:path}", self._delete, methods=["DELETE"]),
                Route("/download/storage/v1/b/{bucket}/o/{name:path}", self._download),
            ],
            exception_handlers={Refusal: _refused},
        )

    async def _set_faults(self, request: Request) -> Response:
        body = await request.json()
        self.faults[:] = [Fault(**fault) for fault in body["faults"]]
        self._largest_page = body.get("largest_page", MAX_PAGE)
        self.requests.clear()
        return Response(status_code=204)

    async def _told_requests(self, _request: Request) -> Response:
        return JSONResponse(self.requests)

    async def _bucket(self, request: Request) -> Response:
        self._buckets.objects(request.path_params["bucket"])
        return JSONResponse({"kind": "storage#bucket", "name": request.path_params["bucket"]})

    async def _list(self, request: Request) -> Response:
        bucket = request.path_params["bucket"]
        return JSONResponse(self._buckets.page(bucket, request.query_params, self._largest_page))

    async def _resource(self, request: Request) -> Response:
        stored = self._buckets.existing(*_object_of(request), request.query_params)
        return JSONResponse(stored.resource)

    async def _delete(self, request: Request) -> Response:
        self._buckets.delete(*_object_of(request), request.query_params)
        return Response(status_code=204)

    async def _download(self, request: Request) -> Response:
        stored = self._buckets.existing(*_object_of(request), request.query_params)
        size = len(stored.content)
        headers = {
            "X-Goog-Generation": stored.resource["generation"],
            "X-Goog-Hash": f"crc32c={stored.resource['crc32c']}",
            "X-Goog-Stored-Content-Length": str(size),
        }
        part = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("range", ""))
        if part is None:
            return Response(stored.content, headers=headers)
        first, last = int(part[1]), min(int(part[2] or size - 1), size - 1)
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
        return Response(stored.content[first : last + 1], 206, headers)

    async def _upload(self, request: Request) -> Response:
        bucket, query = request.path_params["bucket"], request.query_params
        body = await request.body()
        if query["uploadType"] == "multipart":
            metadata, content = _parts(request.headers["content-type"], body)
            return JSONResponse(self._buckets.put(bucket, metadata, content, query))
        metadata = json.loads(body)
        self._buckets.require(bucket, metadata["name"], query)
        session = uuid.uuid4().hex
        self._sessions[session] = Session(bucket, metadata, query)
        address = request.url.replace_query_params(uploadType="resumable", upload_id=session)
        return Response(headers={"Location": str(address)})

    async def _piece(self, request: Request) -> Response:
        session = self._sessions[request.query_params["upload_id"]]
        piece = await request.body()
        if session.finished is not None:
            return JSONResponse(session.finished)
        place = re.fullmatch(r"bytes (\*|(\d+)-\d+)/(\d+)", request.headers["content-range"])
        if place is None:
            raise Refusal(400, "Invalid content range", "invalid")
        first, total = int(place[2] or 0), int(place[3])
        if first > len(session.content) or (first + len(piece) != total and len(piece) % GRANULE):
            raise Refusal(400, "Invalid piece", "invalid")
        if request.scope.get("half_piece"):
            piece = piece[: len(piece) // 2 // GRANULE * GRANULE]
        session.content += piece[len(session.content) - first :]
        if len(session.content) == total:
            session.finished = self._buckets.put(
                session.bucket, session.metadata, bytes(session.content), session.conditions
            )
            return JSONResponse(session.finished)
        kept = len(session.content)
        return Response(status_code=308, headers={"Range": f"bytes=0-{kept - 1}"} if kept else {})


class Faulty:
    """Passes requests on to an app, except for what its faults say."""

    def __init__(self, app: ASGIApp, faults: list[Fault], requests: list[str]) -> None:
        self._app = app
        self._faults = faults
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        address = scope["path"] + "?" + scope.get("query_string", b"").decode()
        if scope["type"] != "http" or scope["path"] in ("/faults", "/requests"):
            await self._app(scope, receive, send)
            return
        self._requests.append(f"{scope['method']} {address}")
        fault = next((f for f in self._faults if f.takes(scope["method"], address)), None)
        if fault is None:
            await self._app(scope, receive, send)
        else:
            await self._fail(fault, scope, receive, send)

    async def _fail(self, fault: Fault, scope: Scope, receive: Receive, send: Send) -> None:
        if fault.kind == "unavailable":
            await JSONResponse({"error": {"message": "Try again."}}, 503)(scope, receive, send)
        elif fault.kind == "slow":
            await asyncio.sleep(fault.seconds)
            await self._app(scope, receive, send)
        elif fault.kind == "half_piece":
            await self._app({**scope, "half_piece": True}, receive, send)
        elif fault.kind == "drop_before":
            _break(send)
        else:
            await self._spoil(fault.kind, scope, receive, send)

    async def _spoil(self, kind: str, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        if kind == "drop_after":
            _break(send)
            return
        start, body = answer[0], answer[1]["body"]
        await send(start)
        if kind == "corrupt":
            spoiled = body[:-1] + bytes([body[-1] ^ 1])
            await send({"type": "http.response.body", "body": spoiled})
        else:
            await send(
                {"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True}
            )
            getattr(send, "__self__").transport.close()  # noqa: B009 - see `_break`


def _break(send: Send) -> None:
    # uvicorn's `send` is a method of the object that holds the connection.
    getattr(send, "__self__").transport.abort()  # noqa: B009 - not an attribute of every callable


def _object_of(request: Request) -> tuple[str, str]:
    # The name's slashes are encoded, those of its path are not: only the raw path tells.
    raw = request.scope["raw_path"].decode().split("?")[0]
    return request.path_params["bucket"], unquote(raw.split("/o/", 1)[1])


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    message = BytesParser(policy=HTTP).parsebytes(
        f"Content-Type: {content_type}\r\n\r\n".encode(), headersonly=True
    )
    boundary = b"--" + message.get_param("boundary", unquote=True).encode()  # type: ignore[union-attr]
    first, second = body.split(boundary)[1], body.split(boundary, 2)[2]
    metadata = json.loads(first.split(b"\r\n\r\n", 1)[1])
    content = second.split(b"\r\n\r\n", 1)[1]
    return metadata, content[: content.rindex(b"\r\n" + boundary + b"--")]


async def _refused(_request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    return JSONResponse(
        {
            "error": {
                "code": refusal.status,
                "message": str(refusal),
                "errors": [{"reason": refusal.reason, "message": str(refusal)}],
            }
        },
        refusal.status,
    )


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    fake = FakeGcs(sys.argv[2:])
    app = Faulty(fake.app, fake.faults, fake.requests)
    config = uvicorn.Config(app, log_level="error", lifespan="off", http="h11")
    asyncio.run(uvicorn.Server(config).serve([listener]))


if __name__ == "__main__":
    main()
