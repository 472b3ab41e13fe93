"""What a report costs: seconds and peak memory of `parbench report`, in a process of its own, at several sizes."""

import subprocess
import sys
import time
from itertools import islice, product
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from parbench.results.seal import seal
from parbench.results.store import RUN_FILE, TRIALS_FILE, Run, read_run
from parbench.results.tables import cells_table
from tests.support.records import cell, job, rank, reference, run_record, trial

# (cells, rounds, steps): an ordinary run, and three sizes that grow fourfold up to two million step times.
SIZES = [(20, 5, 50), (32, 20, 200), (125, 20, 200), (500, 20, 200)]
LONGEST_S, MOST_GB = 60.0, 1.5
STORED = Path(__file__).parents[2] / "results/stored"

REPORT = """
import resource, sys
from parbench.cli.main import main

try:
    main()
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, file=sys.stderr)
"""


def store(folder: Path, size: int, rounds: int, steps: int) -> int:
    """A run of `size` cells: up to 10 strategies on up to 5 device counts, for as many workloads as it takes.

    Returns how many trials it holds. Unlike `Store` it does not wait for the disk after each.
    """
    names = ["single", *(f"strategy{number}" for number in range(9))]
    every = product((f"workload{number}" for number in range(size)), (1, 2, 4, 8, 16), names)
    cells = [cell(name, devices, workload=workload) for workload, devices, name in islice(every, size)]
    folder.mkdir()
    (folder / RUN_FILE).write_text(seal(run_record(cells, rounds=rounds).model_dump_json()))
    expected = {each.reference: reference(each) for each in cells}
    with (folder / TRIALS_FILE).open("w") as file:
        file.writelines(f"{seal(each.model_dump_json())}\n" for each in expected.values())
        for number, each in product(range(rounds), cells):
            seconds = (1 + number % 7 / 100) / each.devices**0.8
            times = tuple(seconds / steps * (1 + (step * 37 % 11) / 50) for step in range(steps))
            ranks = (rank(jobs=(job(steps=steps, window_s=sum(times), step_times_s=times),)),)
            file.write(f"{seal(trial(each, number, ranks=ranks).model_dump_json())}\n")
    return len(expected) + rounds * size


def figures_of(run: Run) -> set[str]:
    """The speed of every cell as the page must write it."""
    return {f"{speed:,.0f}" for speed in cells_table(run)["tokens_per_s"]}


def render(folder: Path, out: Path, forms: str) -> tuple[float, float, float]:
    """Seconds of the clock and of CPU, and the peak memory (GB), of `parbench report` on a run's folder."""
    started = time.monotonic()
    arguments = ["report", str(folder), "--out", str(out), "--format", forms]
    ended = subprocess.run([sys.executable, "-c", REPORT, *arguments], capture_output=True, text=True, check=True)
    cpu_s, peak_bytes = map(float, ended.stderr.splitlines()[-1].split())
    return time.monotonic() - started, cpu_s, peak_bytes / 1e9


@pytest.mark.parametrize("name", ["lstm_scaling-cpu-2-cores", "strategies_full-cpu-2-cores"])
def test_report_of_a_stored_run(tmp_path: Path, benchmark: BenchmarkFixture, name: str) -> None:
    wall_s, cpu_s, peak_gb = benchmark.pedantic(render, (STORED / name, tmp_path, "html"), rounds=3)
    cells, size = len(read_run(STORED / name).record.cells), (tmp_path / "index.html").stat().st_size
    print(
        f"\n{name}, {cells} cells: {wall_s:.1f} s, of CPU {cpu_s:.1f} s, {peak_gb:.2f} GB at most, "
        f"page of {size / 1e6:.2f} MB"
    )
    assert size < 1_500_000


@pytest.mark.parametrize("forms", ["html", "html,png,svg"])
@pytest.mark.parametrize(("size", "rounds", "steps"), SIZES)
def test_report(tmp_path: Path, benchmark: BenchmarkFixture, size: int, rounds: int, steps: int, forms: str) -> None:
    folder = tmp_path / "run"
    stored = store(folder, size, rounds, steps)
    loaded = read_run(folder)
    assert (len(loaded.trials), loaded.problems) == (stored, ())

    wall_s, cpu_s, peak_gb = benchmark.pedantic(render, (folder, tmp_path / "out", forms), rounds=1)
    page = (tmp_path / "out" / "index.html").read_text()
    for figure in figures_of(loaded):
        assert figure in page
    print(
        f"\n{size} cells × {rounds} rounds × {steps} steps as {forms}: {wall_s:.1f} s, of CPU {cpu_s:.1f} s "
        f"({1000 * cpu_s / size:.0f} ms a cell), {peak_gb:.2f} GB at most, page of {len(page) / 1e6:.1f} MB"
    )
    # Of CPU time, because the process does nothing side by side: on a quiet machine it is as long as the wall's.
    assert cpu_s < LONGEST_S
    assert peak_gb < MOST_GB
