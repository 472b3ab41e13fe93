"""The scenario that faults happen in, and how its processes are looked for."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil

from tests.conftest import OFFSPRING

T = TypeVar("T")

SCENARIO = """
name: faults
workloads:
  bag:
    model: {kind: bag}
    data: {source: synthetic, vocab_size: 16, tokens: 2000}
    seq_len: 4
    global_batch: 8
strategies: STRATEGIES
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 50}
"""


def scenario(*strategies: Any) -> str:
    return SCENARIO.replace("STRATEGIES", json.dumps(list(strategies)))


def trials_of(run: Path) -> list[dict[str, Any]]:
    path = run / "trials.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(condition: Callable[[], T], what: str) -> T:
    for _ in range(1200):
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"never came: {what}")


def offspring() -> list[psutil.Process]:
    """What ranks started that should have ended with them."""
    return [each for each in psutil.process_iter(["cmdline"]) if OFFSPRING in (each.info["cmdline"] or [])]


def alive(pid: int, since: float) -> bool:
    """Whether the process `pid`, which was there before `since` (seconds since the epoch), still is."""
    try:
        process = psutil.Process(pid)
        return process.create_time() < since and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
