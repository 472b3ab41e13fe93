"""Token files: text as bytes, or synthetic tokens, kept in a cache under their own SHA-256. No torch."""

import hashlib
import os
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from parbench.errors import ResultsError, UsageError
from parbench.scenario import DataSpec, Spec, StandardLibraryText, SyntheticTokens, TextFile

BYTE_VOCABULARY = 256

# Tests hold odd encodings and megabytes of generated tables; what people installed is no part of the library.
_LEFT_OUT = {"__pycache__", "idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests"}


class Corpus(Spec):
    """A token file: `tokens` little-endian numbers of type `dtype`, each below `vocab_size`."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tokens: int
    vocab_size: int
    dtype: Literal["uint8", "int32"]


def prepare(data: DataSpec, *, seq_len: int, seed: int, folder: Path) -> Corpus:
    """Makes the token file of `data` unless the cache holds it; relative paths start at `folder`, the scenario's own.

    Raises `UsageError` where the text cannot be read, or is too short for a training and a validation sequence.
    """
    if isinstance(data, SyntheticTokens):
        content, vocab_size, dtype = _synthetic(data, seed), data.vocab_size, "int32"
    else:
        content, vocab_size, dtype = _text(data, folder), BYTE_VOCABULARY, "uint8"
    tokens = len(content) // (4 if dtype == "int32" else 1)
    if tokens < 2 * seq_len + 2:
        raise UsageError(
            f"data of source {data.source} has {tokens} tokens; seq_len {seq_len} needs at least {2 * seq_len + 2}, "
            "a sequence to train on and one to validate with"
        )
    sha256 = hashlib.sha256(content).hexdigest()
    path = _cached(content, sha256)
    return Corpus(path=str(path), sha256=sha256, tokens=tokens, vocab_size=vocab_size, dtype=dtype)  # type: ignore[arg-type]


def cache_folder() -> Path:
    """Where token files are kept: `$PARBENCH_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PARBENCH_CACHE") or Path(base) / "parbench")


def standard_library_files() -> Iterator[Path]:
    """The source files of the running Python's standard library, in a fixed order."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        if not _LEFT_OUT.intersection(path.relative_to(root).parts):
            yield path


def _text(data: StandardLibraryText | TextFile, folder: Path) -> bytes:
    if isinstance(data, StandardLibraryText):
        return b"".join(path.read_bytes() for path in standard_library_files())
    try:
        return (folder / data.resolved).read_bytes()
    except OSError as error:
        raise UsageError(f"data.path: {error.filename} cannot be read: {error.strerror}") from None
    except RuntimeError as error:  # of `~somebody`, who has no home here
        raise UsageError(f"data.path: {data.path} cannot be read: {error}") from None


def _synthetic(data: SyntheticTokens, seed: int) -> bytes:
    import numpy

    return numpy.random.default_rng(seed).integers(data.vocab_size, size=data.tokens, dtype="<i4").tobytes()


def _cached(content: bytes, sha256: str) -> Path:
    path = cache_folder() / "corpora" / f"{sha256}.tokens"
    try:
        if path.is_file() and path.read_bytes() == content:
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            whole = Path(scratch) / path.name
            whole.write_bytes(content)
            whole.replace(path)
    except OSError as error:
        raise ResultsError(
            f"the token file cannot be kept in {path.parent}: {error.strerror}; set PARBENCH_CACHE to another folder"
        ) from None
    return path
