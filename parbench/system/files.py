"""How files of a run's folder are opened: never through a link, and with errors that are sentences."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from parbench.errors import ResultsError, UnwrittenError

ROOM_BYTES = 2**16
"""More than a failed trial leaves: with less room than that, it may have failed for want of it."""


def opened(path: Path, mode: str) -> BinaryIO:
    """The file itself, unbuffered; a link that was planted in its place is an error: it may lead anywhere."""
    return open(path, mode, buffering=0, opener=_no_link)  # type: ignore[return-value]


def made(folder: Path) -> None:
    """Makes a folder inside a run's folder. Raises `ResultsError` where it, or the one above, is a link."""
    for each in (folder.parent, folder):
        if each.is_symlink():
            raise ResultsError(f"{each} is a link, which parbench does not follow out of a run's folder; remove it")
    folder.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Errors of the system while something is written to `folder`, as `UnwrittenError`."""
    try:
        yield
    except OSError as error:
        what = "a link stands in a file's place" if error.errno == errno.ELOOP else error.strerror
        raise UnwrittenError(f"results cannot be written to {folder}: {what}") from None


@contextlib.contextmanager
def keeping(folder: Path) -> Iterator[None]:
    """Errors of the system while a place for results is made, as `ResultsError`."""
    try:
        yield
    except OSError as error:
        raise ResultsError(f"results cannot be kept in {folder}: {error.strerror}; choose another with --out") from None


def require_room(folder: Path) -> None:
    """Raises `UnwrittenError` where nothing more can be written to `folder`.

    It is tried: how much is free tells nothing of quotas, nor of a disk that has become read-only.
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
    """Straight to the file, all of it: a disk that gets full takes less than it is given.

    A buffer would write what is left of a line when it is closed, after the line was cut.
    """
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]


def sync_names(folder: Path) -> None:
    """Waits until the names of new files are on the disk: syncing a file alone does not keep its name."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
