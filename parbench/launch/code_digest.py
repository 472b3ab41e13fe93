"""A hash of the code that measures: a resumed run keeps only trials that the same code measured."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

# `launch` too: a launcher sets cores, variables and memory layout of ranks, which changes what they measure.
MEASURING = ("data", "launch", "measure", "models", "strategies", "training")


def sources_digest(classes: Iterable[type]) -> str:
    """16 hexadecimal digits of the code that runs in ranks: parbench's own modules and those that define `classes`."""
    package = Path(__file__).parents[1]
    files = {path for room in MEASURING for path in (package / room).rglob("*.py")}
    files |= {Path(file) for each in classes if (file := getattr(sys.modules[each.__module__], "__file__", None))}
    # Sorted by content: paths differ between nodes.
    contents = sorted(hashlib.sha256(path.read_bytes()).digest() for path in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]
