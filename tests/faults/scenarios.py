"""The scenario that faults happen in, and how its processes are looked for."""

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from tests.conftest import OFFSPRING
from tests.support.waiting import PATIENCE_S

GOES_WRONG = "now it goes wrong"
"""What ranks of `misbehaving` say when they begin to hang."""
SCENARIO = """
name: faults
workloads:
  bag:
    model: {kind: bag}
    data: {source: synthetic, vocab_size: 16, tokens: 2000}
    seq_len: 4
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: STRATEGIES
devices: {kind: cpu, counts: [2], oversubscribe: true}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: 600}
"""


def scenario(*strategies: Any) -> str:
    return SCENARIO.replace("STRATEGIES", json.dumps(list(strategies)))


def trials_of(run: Path) -> list[dict[str, Any]]:
    path = run / "trials.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def under_deadline(run: Callable[[float], Path], deadline_s: float) -> Path:
    """The folder that `run` keeps its trials in. It runs again under a longer deadline while a trial meets it early.

    What happens at a deadline is to be tested, and not whether a slow machine comes to where ranks hang before it.
    """
    for factor in (1, 4, 16):
        folder = run(factor * deadline_s)
        ends = [each for each in trials_of(folder) if each["status"] == "timed_out"]
        if all(GOES_WRONG in each["log_tail"] for each in ends):
            break
    return folder


def offspring() -> list[psutil.Process]:
    """What ranks started that should have ended with them."""
    return [each for each in psutil.process_iter(["cmdline"]) if OFFSPRING in (each.info["cmdline"] or [])]


def end_offspring() -> None:
    """Kills what a failed test has left of it."""
    for process in offspring():
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait(PATIENCE_S)


def alive(pid: int, since: float) -> bool:
    """Whether the process `pid`, which was there before `since` (seconds since the epoch), still is."""
    try:
        process = psutil.Process(pid)
        return process.create_time() < since and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
