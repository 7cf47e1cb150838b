"""Object storage behind `ports.ObjectStore`."""

from orchestrator.storage.objects.files import FileObjectStore

__all__ = ["FileObjectStore"]
