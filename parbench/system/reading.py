"""Reads files that users name: only regular ones of bounded size, so that no read blocks or fills the memory."""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

CHUNK_BYTES = 1 << 24


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def read_whole(path: Path, most: int) -> bytes:
    """The bytes of a regular file, which are at most `most`. Raises `OSError` that names the file and says why not."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= most:
            content = b"".join(_chunks(file, path, most))
            size = len(content)
        if size > most:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, and at most {most:,} are read", str(path))
        return content


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file, also through a link. Raises `OSError` for anything else.

    Nothing else is opened: opening a pipe waits for its other end, and opening a device may change its state.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is not a regular file but {kind}", str(path))
    return path.open("rb")


def _chunks(file: BinaryIO, path: Path, most: int) -> Iterator[bytes]:
    """The content, of a file that grows meanwhile only so much as shows that it has become too large.

    It is read chunk by chunk, because signals are handled between two reads only.
    """
    left = most + 1
    while left > 0:
        try:
            chunk = file.read(min(left, CHUNK_BYTES))
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from None  # a failed read does not name its file
        if not chunk:
            return
        left -= len(chunk)
        yield chunk
