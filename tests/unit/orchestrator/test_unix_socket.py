"""Connecting to a socket where somebody else can write."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.worker_process import short_directory

from orchestrator.unix_socket import pinned_socket


@pytest.fixture
def place() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture
def listener(place: Path) -> Iterator[Path]:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "worker.sock"))
        listening.listen()
        yield place / "worker.sock"


def reach(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_a_socket_is_reached(listener: Path) -> None:
    with pinned_socket(str(listener)) as path:
        reach(path)


def test_what_is_put_in_its_place_meanwhile_is_not(listener: Path, place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / "other.sock"))  # does not listen
        with pinned_socket(str(listener)) as path:
            listener.rename(place / "moved.sock")
            listener.symlink_to("other.sock")
            reach(path)


def test_a_link_is_refused_although_it_leads_to_a_socket(listener: Path, place: Path) -> None:
    link = place / "link"
    link.symlink_to(listener)
    reach(str(link))
    with pytest.raises(ConnectionRefusedError), pinned_socket(str(link)):
        pass


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_socket_is_refused(place: Path, kind: str) -> None:
    path = place / "thing"
    path.touch() if kind == "file" else path.mkdir()
    with pytest.raises(ConnectionRefusedError), pinned_socket(str(path)):
        pass


def test_nothing_is_not_found(place: Path) -> None:
    with pytest.raises(FileNotFoundError), pinned_socket(str(place / "none")):
        pass
