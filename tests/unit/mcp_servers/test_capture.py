import errno
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_servers.capture import INLINE_LIMIT, LOGS_KEPT, Capture, LogFile


def test_short_streams_are_whole() -> None:
    capture = Capture()
    for _ in range(INLINE_LIMIT // 8):
        capture.feed(b"12345678")
    assert capture.text() == "12345678" * (INLINE_LIMIT // 8)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=12), st.sampled_from("xé€😀"))
def test_head_tail_and_count_are_right_however_the_stream_arrives(
    sizes: list[int], character: str
) -> None:
    stream = (character * sum(sizes)).encode()[: sum(sizes)]
    capture = Capture()
    start = 0
    for size in sizes:
        capture.feed(stream[start : start + size])
        start += size
    text = capture.text()
    if len(stream) <= INLINE_LIMIT:
        assert text == stream.decode("utf-8", "replace")
        return
    head, _, rest = text.partition("\n[... ")
    note, _, tail = rest.partition(" ...]\n")
    assert set(head) == {character}
    assert set(tail) <= {character, "\ufffd"}
    left_out = int(note.split()[0])
    cut_short = len(stream) % len(character.encode())
    shown = len(head.encode()) + len(tail.replace("\ufffd", "").encode())
    assert shown + left_out + (cut_short if "\ufffd" in tail else 0) == len(stream)


def test_memory_stays_bounded() -> None:
    capture = Capture()
    for _ in range(2000):
        capture.feed(b"x" * 65536)
    assert len(capture._head) + len(capture._tail) <= 4 * INLINE_LIMIT
    assert f"{2000 * 65536 - INLINE_LIMIT} bytes left out" in capture.text()


def test_the_log_holds_the_whole_stream(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "stdout")
    capture = Capture(log)
    parts = [bytes([65 + n % 26]) * 1000 for n in range(200)]
    for part in parts:
        capture.feed(part)
    log.close()
    assert (tmp_path / log.path).read_bytes() == b"".join(parts)
    assert (tmp_path / ".berth/.gitignore").read_text() == "*\n"


def test_the_log_stops_at_its_limit(tmp_path: Path) -> None:
    log = LogFile(tmp_path, "stdout", limit=100_001)
    capture = Capture(log)
    for _ in range(10):
        capture.feed(b"x" * 50_000)
    log.close()
    assert (tmp_path / log.path).stat().st_size == 100_001
    assert "the first 100001 bytes are in .berth/outputs/" in capture.text()
    assert "the rest is lost" in capture.text()


def test_the_oldest_logs_give_way(tmp_path: Path) -> None:
    paths = []
    for number in range(LOGS_KEPT + 5):
        log = LogFile(tmp_path, "stdout")
        log.write(b"x")
        log.close()
        os.utime(tmp_path / log.path, (number, number))
        paths.append(tmp_path / log.path)
    assert [path.exists() for path in paths] == [False] * 5 + [True] * LOGS_KEPT


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    log = LogFile(tmp_path, "stdout")
    monkeypatch.setattr(os, "write", full)
    capture = Capture(log)
    capture.feed(b"x" * 100_000)
    capture.feed(b"x" * 100_000)
    monkeypatch.undo()
    log.close()
    assert "they were not all kept" in capture.text()
    assert "the disk is full" in capture.text()


def test_newest_line() -> None:
    capture = Capture()
    assert capture.newest_line() == ""
    capture.feed(b"one\ntwo\n\n")
    assert capture.newest_line() == "two"
    capture.feed(b"10%\r20%\r")
    assert capture.newest_line() == "20%"
    capture.feed(b"x" * 3000)
    assert capture.newest_line() == "x" * 500
