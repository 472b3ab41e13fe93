"""Files that people name, read whole: regular ones of bounded size, so that no read lasts forever or fills memory."""

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
    """A regular file to read, also through a link. Raises `OSError` for anything else.

    What is no regular file is not even opened: that waits for the other end of a pipe, and may move a device.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "something else")
        raise OSError(errno.EINVAL, f"it is not a regular file but {kind}", str(path))
    return path.open("rb")


def _chunks(file: BinaryIO, path: Path, most: int) -> Iterator[bytes]:
    """What there is to read, and of a file that grows meanwhile no more than shows that it has become too large.

    Chunk by chunk: a signal is heeded between two of them, and not within one call that reads all.
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
