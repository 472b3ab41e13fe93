"""Waiting for what tests have started: as long as a slow machine takes, and no longer than what is waited for lives."""

import subprocess
import time
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE_S = 600.0
"""For how long at most, which is less than pytest gives a test (`timeout` in pyproject.toml)."""
PAUSE_S = 0.05


def wait_for(
    condition: Callable[[], T], what: str, *, ended: Callable[[], object] = lambda: None, patience_s: float = PATIENCE_S
) -> T:
    """What `condition` gives once that is true.

    Fails as soon as `ended` gives something, which is what became of who was to bring it about.
    """
    until = time.monotonic() + patience_s
    while True:
        # Asked before the condition is, which may have come true with the end.
        end = ended()
        if value := condition():
            return value
        assert not end, f"{what} never came: {end}"
        assert time.monotonic() < until, f"{what} did not come within {patience_s:g} s"
        time.sleep(PAUSE_S)


def ending(*processes: subprocess.Popen[Any]) -> str | None:
    """How the first of these processes that is over has ended, and what it has said; None while all run."""
    for process in processes:
        if process.poll() is not None:
            try:
                said = [text for text in process.communicate(timeout=10) if text]
            except subprocess.TimeoutExpired as others:  # who hold its pipes
                said = [others.output]
            return f"exit code {process.returncode}, {said}"
    return None
