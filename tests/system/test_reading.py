import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from parbench.system import reading
from parbench.system.reading import read_whole


def bound(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.bind(str(path))


@pytest.mark.parametrize("size", [0, 1, 2999, 3000])
def test_a_file_is_read_whole_up_to_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(reading, "CHUNK_BYTES", 1000)
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    (tmp_path / "link").symlink_to("file")
    assert read_whole(tmp_path / "file", 3000) == read_whole(tmp_path / "link", 3000) == content


def test_a_file_beyond_its_limit_is_not_read_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(5 * 10**9)
    monkeypatch.delattr(reading, "_chunks")
    with pytest.raises(OSError, match=r"it has 5,000,000,000 bytes, and at most 3,000 are read: '.*/file'"):
        read_whole(path, 3000)


def test_a_file_that_grows_while_it_is_read_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    monkeypatch.setattr(reading, "CHUNK_BYTES", 1000)
    before = os.stat_result((stat.S_IFREG, *[0] * 9))
    monkeypatch.setattr(os, "fstat", lambda _: before)
    with pytest.raises(OSError, match="it has 3,001 bytes, and at most 3,000 are read"):
        read_whole(path, 3000)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (os.mkfifo, "a pipe"),
        (bound, "a socket"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to("/dev/zero"), "a device"),
        (lambda path: path.symlink_to("/dev/tty"), "a device"),
    ],
)
def test_what_is_no_regular_file_is_said_and_not_opened(
    tmp_path: Path, make: Callable[[Path], None], kind: str
) -> None:
    make(tmp_path / "file")
    (tmp_path / "link").symlink_to("file")
    for path in (tmp_path / "file", tmp_path / "link"):
        with pytest.raises(OSError, match=f"it is not a regular file but {kind}") as caught:
            read_whole(path, 3000)
        assert caught.value.filename == str(path)


def test_an_error_while_reading_names_the_file() -> None:
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_whole(Path("/proc/self/mem"), 3000)
    assert caught.value.filename == "/proc/self/mem"
