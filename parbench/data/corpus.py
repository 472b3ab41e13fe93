"""Token files: text as bytes or byte pairs, or synthetic tokens, in a cache under their own SHA-256. No torch.

A token file holds numbers only. When it is read back it is compared or hashed, never unpickled or run.
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
"""The largest size of a text, or of all files of a folder together: more than a measurement needs."""


MAX_NOTE_BYTES = 100


# Tests hold odd encodings and megabytes of generated tables; installed packages differ from machine to machine.
_EXCLUDED_FOLDERS = {"__pycache__", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests"}


def prepare(data: DataSpec, *, seq_len: int, seed: int, folder: Path) -> Corpus:
    """Writes the token file of `data` to the cache unless it is there; relative paths start at the scenario's `folder`.

    Raises `UsageError` where the text cannot be read, or is too short for a training and a validation sequence.
    """
    dtype: Literal["uint8", "int32"] = "int32"
    if isinstance(data, SyntheticTokens):
        content = _draw_tokens(data, seed)
    elif data.bpe:
        content = _encode_pairs(_read_text(data, folder), data.bpe)
    else:
        content, dtype = _read_text(data, folder), "uint8"
    tokens = len(content) // (4 if dtype == "int32" else 1)
    if tokens < 2 * seq_len + 2:
        raise UsageError(
            f"data of source {data.source} has {tokens} tokens; seq_len {seq_len} needs at least {2 * seq_len + 2}, "
            "a sequence to train on and one to validate with"
        )
    sha256 = digest_of_bytes(content)
    path = _store(content, sha256)
    return Corpus(path=str(path), sha256=sha256, tokens=tokens, vocab_size=data.vocab_size, dtype=dtype)


def cache_folder() -> Path:
    """Where token files are kept: `$PARBENCH_CACHE`, else parbench's folder in the user's cache folder."""
    return Path(os.environ.get("PARBENCH_CACHE") or platformdirs.user_cache_dir("parbench"))


def standard_library_files() -> Iterator[Path]:
    """The source files of the running Python's standard library, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not _EXCLUDED_FOLDERS.intersection(path.relative_to(root).parts):
            yield path


def _read_text(data: StandardLibraryText | TextFile, folder: Path) -> bytes:
    try:
        if isinstance(data, StandardLibraryText):
            return _join(standard_library_files())
        return _join(_list_files(data, folder / _resolve(data)))
    except OSError as error:
        field = "path" if isinstance(data, TextFile) else "source"
        raise UsageError(f"data.{field}: {error.filename} cannot be read: {error.strerror}") from None


def _resolve(data: TextFile) -> Path:
    try:
        return data.resolved
    except RuntimeError as error:  # `~user`, where this machine has no such user
        raise UsageError(f"data.path: {data.path} cannot be read: {error}") from None


def _join(paths: Iterable[Path]) -> bytes:
    """The contents of the files, one after another; at most `MAX_TEXT_BYTES`."""
    parts, left = list[bytes](), MAX_TEXT_BYTES
    for path in paths:
        parts.append(read_whole(path, left))
        left -= len(parts[-1])
    return b"".join(parts)


def _list_files(data: TextFile, path: Path) -> list[Path]:
    """The file itself; of a folder, all files that match, in the order of their paths."""
    if not path.is_dir():
        return [path]
    try:
        paths = sorted(each for each in path.glob(data.files) if not each.is_dir())
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"data.files: {data.files} is not a pattern of relative paths: {error}") from None
    if not paths:
        raise UsageError(f"data.files: no file below {path} matches {data.files}")
    size = sum(each.stat().st_size for each in paths)
    if size > MAX_TEXT_BYTES:
        raise UsageError(
            f"data.files: the files below {path} that match {data.files} have {size:,} bytes together; at most "
            f"{MAX_TEXT_BYTES:,} are read; choose fewer files"
        )
    return paths


def _encode_pairs(text: bytes, pairs: BytePairs) -> bytes:
    """The tokens of the text in its own vocabulary; from the cache where it has been encoded before."""
    key = digest_of_bytes(bpe.write_recipe(pairs.vocab_size) + b"\0" + text)
    note = _corpora_folder() / f"{key}.bpe"
    content = _read_encoded(note)
    if content is None:
        content = bpe.encode(text, pairs.vocab_size)
        sha256 = digest_of_bytes(content)
        _store(content, sha256)
        _write(note, sha256.encode())
    return content


def _read_encoded(note: Path) -> bytes | None:
    """The tokens whose hash is in the file `note`; None where they are missing or have changed."""
    try:
        sha256 = read_whole(note, MAX_NOTE_BYTES).decode("ascii")
        if re.fullmatch(r"[0-9a-f]{64}", sha256) is None:
            return None
        content = read_whole(_corpora_folder() / f"{sha256}.tokens", 4 * MAX_TEXT_BYTES)
    except (OSError, UnicodeError):
        return None
    return content if digest_of_bytes(content) == sha256 else None


def _draw_tokens(data: SyntheticTokens, seed: int) -> bytes:
    import numpy

    return numpy.random.default_rng(seed).integers(data.vocab_size, size=data.tokens, dtype="<i4").tobytes()


def _corpora_folder() -> Path:
    return cache_folder() / "corpora"


def _store(content: bytes, sha256: str) -> Path:
    path = _corpora_folder() / f"{sha256}.tokens"
    if not _holds(path, content):
        _write(path, content)
    return path


def _holds(path: Path, content: bytes) -> bool:
    try:
        return read_whole(path, len(content)) == content
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    """Writes the file whole or not at all. Raises `ResultsError` where the cache cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise ResultsError(
            f"the token file cannot be written to {path.parent}: {error.strerror}; set PARBENCH_CACHE to another folder"
        ) from None
