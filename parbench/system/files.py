"""Writing files: those of a run's folder never through a link, and with errors that are sentences."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from parbench.errors import ResultsError, UnwrittenError

ROOM_BYTES = 2**16
"""More than the files of a failed trial take: where there is less room, that may be why it failed."""


def opened(path: Path, mode: str) -> BinaryIO:
    """Opens a file, unbuffered. A link in its place, which may lead anywhere, raises `OSError`."""
    return open(path, mode, buffering=0, opener=_no_link)  # type: ignore[return-value]


def made(folder: Path) -> None:
    """Makes a folder inside a run's folder. Raises `ResultsError` where it, or the one above, is a link."""
    for each in (folder.parent, folder):
        if each.is_symlink():
            raise ResultsError(f"{each} is a link, which parbench does not follow out of a run's folder; remove it")
    folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns an `OSError` while something is written to `folder` into an `UnwrittenError`."""
    try:
        yield
    except OSError as error:
        reason = "a link stands in a file's place" if error.errno == errno.ELOOP else error.strerror
        raise UnwrittenError(f"results cannot be written to {folder}: {reason}") from None


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Turns an `OSError` while a folder for results is made into a `ResultsError`."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"results cannot be kept in {folder}: {error.strerror}; choose another with --out") from None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, so that nobody reads half of it. Raises `OSError`."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        temporary = Path(folder) / path.name
        temporary.write_bytes(content)
        temporary.replace(path)


def require_room(folder: Path) -> None:
    """Raises `UnwrittenError` where nothing more can be written to `folder`.

    It writes a file to find out: the free space of a file system does not show quotas or a read-only disk.
    """
    probe = folder / "room"
    with writing(folder):
        try:
            probe.unlink(missing_ok=True)
            with opened(probe, "xb") as file:
                write_all(file, bytes(ROOM_BYTES))
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)


def write_all(file: BinaryIO, content: bytes) -> None:
    """Writes all of `content` to an unbuffered file, which takes only a part of it where the disk becomes full.

    A buffered file would write the rest of a line when it is closed, after the caller has truncated the file.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def sync_names(folder: Path) -> None:
    """Waits until the names of new files are on the disk; syncing a file does not sync its name in the folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
