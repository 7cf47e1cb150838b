"""Files uploaded for tasks to come."""

from datetime import datetime

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from orchestrator.api.services import Use
from orchestrator.errors import InvalidRequest, RequestTooLarge
from orchestrator.ports import ObjectInfo

router = APIRouter(tags=["files"])

REPLACED = "\ufffd"  # what the server makes of bytes that are no UTF-8
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}


class UploadBody(BaseModel):
    """An uploaded file; `size` in bytes."""

    name: str
    size: int
    updated_at: datetime


@router.put(
    "/files/{name:path}",
    response_model=UploadBody,
    summary="Upload a file",
    openapi_extra={"requestBody": {"content": BINARY, "required": True}},
)
async def put_file(name: str, request: Request, services: Use) -> UploadBody:
    """Store or replace a file; the request's body is its content."""
    if REPLACED in name:
        raise InvalidRequest("The file's name in the address is not UTF-8: encode it as that.")
    content = await request.body()
    if len(content) > services.max_file_bytes:
        raise RequestTooLarge(
            f"The file has {len(content):,} bytes; at most {services.max_file_bytes:,} are taken.",
            file=name,
        )
    return _upload_body(await services.uploads.put(name, content))


@router.get("/files", response_model=list[UploadBody], summary="Uploaded files")
async def list_files(services: Use) -> list[UploadBody]:
    """All uploaded files, sorted by name."""
    return [_upload_body(each) for each in await services.uploads.list()]


@router.delete("/files/{name:path}", status_code=204, summary="Delete an uploaded file")
async def delete_file(name: str, services: Use) -> Response:
    """Delete a file; tasks that were given it keep their copy."""
    await services.uploads.delete(name)
    return Response(status_code=204)


def _upload_body(info: ObjectInfo) -> UploadBody:
    return UploadBody(name=info.key, size=info.size, updated_at=info.updated_at)
