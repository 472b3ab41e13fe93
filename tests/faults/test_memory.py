"""Memory that runs out where ranks do not hear of it, or on a GPU: the rest of row 3, which begins in test_ranks."""

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from parbench.system.devices import detect
from tests.conftest import CommandLine
from tests.faults.scenarios import scenario, trials_of
from tests.support.waiting import wait_for

LIMIT = 1500 * 2**20
GROUPS = Path("/sys/fs/cgroup")


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 1500 MiB of memory; skips where none can be made."""
    v1 = (GROUPS / "memory").is_dir()
    folder = (GROUPS / "memory" if v1 else GROUPS) / f"parbench-test-{os.getpid()}"
    try:
        folder.mkdir()
        (folder / ("memory.limit_in_bytes" if v1 else "memory.max")).write_text(str(LIMIT))
    except OSError as error:
        if folder.is_dir():
            folder.rmdir()
        pytest.skip(f"no control group with limited memory can be made here: {error}")
    yield folder

    def is_removed() -> bool:
        # What a failed test has left in the group would keep it from being removed.
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        with contextlib.suppress(OSError):
            folder.rmdir()
        return not folder.is_dir()

    wait_for(is_removed, "the end of the control group")


def test_row_03_out_of_memory_in_a_control_group(parbench_with_plugins: CommandLine, small_group: Path) -> None:
    parbench = parbench_with_plugins
    (parbench.folder / "faults.yaml").write_text(scenario("single", {"misbehaving": {"how": "fill"}}, "averaging"))
    ended = subprocess.run(
        parbench.command("run", "faults.yaml", "--out", "out"),
        cwd=parbench.folder,
        env=parbench.environment,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: (small_group / "cgroup.procs").write_text("0"),
    )
    assert ended.returncode == 3, ended.stderr
    trials = {trial["cell"]: trial for trial in trials_of(parbench.folder / "out") if trial["purpose"] == "measure"}
    assert {name: trial["status"] for name, trial in trials.items()} == {
        "bag/single/1": "ok",
        "bag/misbehaving/2": "out_of_memory",
        "bag/averaging/2": "ok",
    }
    reason = trials["bag/misbehaving/2"]["reason"]
    assert reason.startswith("rank 1 was ended by SIGKILL in warm-up: out of memory (the peak of its control group was")


def test_row_03_out_of_memory_on_a_gpu(parbench_with_plugins: CommandLine) -> None:
    if not detect().gpus:
        pytest.skip("there is no CUDA device here")
    parbench = parbench_with_plugins
    text = scenario("single", {"misbehaving": {"how": "fill"}})
    text = text.replace("kind: cpu, counts: [2]", "kind: cuda, counts: [1]")
    (parbench.folder / "faults.yaml").write_text(text)
    ended = parbench("run", "faults.yaml", "--out", "out")
    assert ended.returncode == 3, ended.stderr
    rows = {row["strategy"]: row for row in json.loads(parbench("table", "out", "--format", "json").stdout)}
    assert {name: row["status"] for name, row in rows.items()} == {"single": "ok", "misbehaving": "out_of_memory"}
    (trial,) = (each for each in trials_of(parbench.folder / "out") if each["status"] == "out_of_memory")
    peak = trial["ranks"][0]["memory"]["devices"][0]["allocated_peak"]
    assert peak > 2**30
    assert f"(its peak was {peak / 2**20:,.0f} MiB)" in trial["reason"]
