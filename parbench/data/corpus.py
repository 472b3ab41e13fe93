"""Token files: text as bytes or byte pairs, or synthetic tokens, kept in a cache under their own SHA-256. No torch.

A token file is numbers and nothing else: what is read back is compared or hashed, and never unpickled or run.
"""

import os
import re
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import platformdirs

from parbench.data import bpe
from parbench.data.sources import BytePairs, DataSpec, StandardLibraryText, SyntheticTokens, TextFile
from parbench.errors import ResultsError, UsageError
from parbench.records.corpus import Corpus
from parbench.system.digests import digest_of_bytes
from parbench.system.files import write_whole
from parbench.system.reading import read_whole

MAX_TEXT_BYTES = 1_000_000_000
"""Of a file, or of all files of a folder together: more than a measurement needs, and what memory has room for."""


MAX_NOTE_BYTES = 100


# Tests hold odd encodings and megabytes of generated tables; what people installed is no part of the library.
_LEFT_OUT = {"__pycache__", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests"}


def prepare(data: DataSpec, *, seq_len: int, seed: int, folder: Path) -> Corpus:
    """Makes the token file of `data` unless the cache holds it; relative paths start at `folder`, the scenario's own.

    Raises `UsageError` where the text cannot be read, or is too short for a training and a validation sequence.
    """
    dtype: Literal["uint8", "int32"] = "int32"
    if isinstance(data, SyntheticTokens):
        content = _synthetic(data, seed)
    elif data.bpe:
        content = _pairs(_text(data, folder), data.bpe)
    else:
        content, dtype = _text(data, folder), "uint8"
    tokens = len(content) // (4 if dtype == "int32" else 1)
    if tokens < 2 * seq_len + 2:
        raise UsageError(
            f"data of source {data.source} has {tokens} tokens; seq_len {seq_len} needs at least {2 * seq_len + 2}, "
            "a sequence to train on and one to validate with"
        )
    sha256 = digest_of_bytes(content)
    path = _cached(content, sha256)
    return Corpus(path=str(path), sha256=sha256, tokens=tokens, vocab_size=data.vocab_size, dtype=dtype)


def cache_folder() -> Path:
    """Where token files are kept: `$PARBENCH_CACHE`, else parbench's folder in the user's cache folder."""
    return Path(os.environ.get("PARBENCH_CACHE") or platformdirs.user_cache_dir("parbench"))


def standard_library_files() -> Iterator[Path]:
    """The source files of the running Python's standard library, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not _LEFT_OUT.intersection(path.relative_to(root).parts):
            yield path


def _text(data: StandardLibraryText | TextFile, folder: Path) -> bytes:
    try:
        if isinstance(data, StandardLibraryText):
            return _joined(standard_library_files())
        return _joined(_files(data, folder / _resolved(data)))
    except OSError as error:
        field = "path" if isinstance(data, TextFile) else "source"
        raise UsageError(f"data.{field}: {error.filename} cannot be read: {error.strerror}") from None


def _resolved(data: TextFile) -> Path:
    try:
        return data.resolved
    except RuntimeError as error:  # of `~somebody`, who has no home here
        raise UsageError(f"data.path: {data.path} cannot be read: {error}") from None


def _joined(paths: Iterable[Path]) -> bytes:
    """One text after another, of at most `MAX_TEXT_BYTES` together."""
    parts, left = list[bytes](), MAX_TEXT_BYTES
    for path in paths:
        parts.append(read_whole(path, left))
        left -= len(parts[-1])
    return b"".join(parts)


def _files(data: TextFile, path: Path) -> list[Path]:
    """The file itself; of a folder, all files that match, in the order of their paths."""
    if not path.is_dir():
        return [path]
    try:
        found = sorted(each for each in path.glob(data.files) if not each.is_dir())
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"data.files: {data.files} is no pattern of relative paths: {error}") from None
    if not found:
        raise UsageError(f"data.files: no file below {path} matches {data.files}")
    size = sum(each.stat().st_size for each in found)
    if size > MAX_TEXT_BYTES:
        raise UsageError(
            f"data.files: what matches {data.files} below {path} has {size:,} bytes, and at most {MAX_TEXT_BYTES:,} "
            "are read; choose fewer files"
        )
    return found


def _pairs(text: bytes, pairs: BytePairs) -> bytes:
    """The text in its own vocabulary; out of the cache where it has been encoded before, which takes long."""
    key = digest_of_bytes(bpe.recipe(pairs.vocab_size) + b"\0" + text)
    note = _corpora() / f"{key}.bpe"
    known = _noted(note)
    if known is None:
        known = bpe.encoded(text, pairs.vocab_size)
        sha256 = digest_of_bytes(known)
        _cached(known, sha256)
        _write(note, sha256.encode())
    return known


def _noted(note: Path) -> bytes | None:
    """The tokens whose hash a note holds, if they are still what they were."""
    try:
        sha256 = read_whole(note, MAX_NOTE_BYTES).decode("ascii")
        if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
            return None
        content = read_whole(_corpora() / f"{sha256}.tokens", 4 * MAX_TEXT_BYTES)
    except (OSError, UnicodeError):
        return None
    return content if digest_of_bytes(content) == sha256 else None


def _synthetic(data: SyntheticTokens, seed: int) -> bytes:
    import numpy

    return numpy.random.default_rng(seed).integers(data.vocab_size, size=data.tokens, dtype="<i4").tobytes()


def _corpora() -> Path:
    return cache_folder() / "corpora"


def _cached(content: bytes, sha256: str) -> Path:
    path = _corpora() / f"{sha256}.tokens"
    if not _holds(path, content):
        _write(path, content)
    return path


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_whole(path, len(content)) == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Writes a file of the cache. Raises `ResultsError` where that is impossible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ResultsError(
            f"the token file cannot be kept in {path.parent}: {error.strerror}; set PARBENCH_CACHE to another folder"
        ) from None
