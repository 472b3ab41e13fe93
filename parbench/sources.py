"""The code that measures, as a hash: a resumed run counts only what the same code has measured."""

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

# A launcher gives ranks their cores, variables and memory layout: what it does shows in what they measure.
MEASURING = ("balance.py", "launch", "measure", "modules", "strategies", "training", "workloads")


def sources_digest(classes: Iterable[type]) -> str:
    """16 hexadecimal digits of what runs in ranks: parbench's own modules, and those that define `classes`."""
    package = Path(__file__).parent
    places = [package / name for name in MEASURING]
    files = {path for place in places for path in ([place] if place.is_file() else place.rglob("*.py"))}
    files |= {Path(file) for each in classes if (file := getattr(sys.modules[each.__module__], "__file__", None))}
    # In an order that is the same on nodes where the files lie elsewhere.
    contents = sorted(hashlib.sha256(path.read_bytes()).digest() for path in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()[:16]
