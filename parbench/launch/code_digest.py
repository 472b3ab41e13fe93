"""The code that measures, as a hash: a resumed run counts only what the same code has measured."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

# A launcher gives ranks their cores, variables and memory layout: what it does shows in what they measure.
MEASURING = ("data", "launch", "measure", "models", "strategies", "training")


def sources_digest(classes: Iterable[type]) -> str:
    """16 hexadecimal digits of what runs in ranks: parbench's own modules, and those that define `classes`."""
    package = Path(__file__).parents[1]
    files = {path for room in MEASURING for path in (package / room).rglob("*.py")}
    files |= {Path(file) for each in classes if (file := getattr(sys.modules[each.__module__], "__file__", None))}
    # In an order that is the same on nodes where the files lie elsewhere.
    contents = sorted(hashlib.sha256(path.read_bytes()).digest() for path in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]
