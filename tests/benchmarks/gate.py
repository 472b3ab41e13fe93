"""Can the gate be trusted here? Real launches: an unchanged program checked many times, and known slowdowns.

    python -m tests.benchmarks.gate --checks 20 --slowdowns 10                  against a baseline of one session
    python -m tests.benchmarks.gate --checks 20 --slowdowns 10 --sessions 10    of ten, whose spread is the yardstick
    python -m tests.benchmarks.gate --checks 20 --slowdowns 10 --arms           two arms in turns (--against git:HEAD)

A plug-in strategy burns 0, 10, 20 or 50 % of extra time in every step. Best on a machine that does nothing else: what
else it does is noise that comes and goes.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

SOURCE = (Path(__file__).parents[1] / "foreign_package" / "parbench_foreign.py").read_text()
CELL = "lstm/sluggish/1"
JUDGED = (0, 1)
"""Exit codes of a check that came to a verdict."""
SCENARIO = """
name: proof
workloads:
  lstm:
    model: {kind: lstm, layers: 2, d_model: 64}
    seq_len: 32
    global_batch: 16
strategies: [single, sluggish]
devices: {kind: cpu, counts: [1]}
measure: {rounds: ROUNDS, window_s: 0.3, validation_batches: 1}
"""


def program(folder: Path, extra: float) -> None:
    """The user's package in its working tree, slower by `extra`."""
    (folder / "src").mkdir(exist_ok=True)
    changed = SOURCE.replace('"SLUGGISH_EXTRA", "0"', f'"SLUGGISH_EXTRA", "{extra}"')
    (folder / "src" / "parbench_foreign.py").write_text(changed)


def prepare(folder: Path, rounds: int) -> None:
    """A repository with the package, its entry point and the scenario, committed while nothing is slow."""
    program(folder, 0)
    (folder / "proof.yaml").write_text(SCENARIO.replace("ROUNDS", str(rounds)))
    metadata = folder / "src" / "parbench_foreign-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: parbench-foreign\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[parbench.strategies]\nsluggish = parbench_foreign:Sluggish\n")
    author = ["-c", "user.name=proof", "-c", "user.email=proof@localhost"]
    for command in (["init", "-q"], ["add", "."], [*author, "commit", "-qm", "as it was"]):
        subprocess.run(["git", *command], cwd=folder, check=True, capture_output=True)


def parbench(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "parbench", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode not in JUDGED:
        sys.exit(ended.stdout + ended.stderr)
    return ended.stdout


def check(folder: Path, *, arms: bool) -> dict[tuple[str, str], str]:
    """One check: the verdict on each gated cell and metric."""
    how = ["--against", "git:HEAD"] if arms else ["--baseline", "proof"]
    report = json.loads(parbench(folder, "check", "proof.yaml", *how, "--format", "json"))
    return {(each["cell"], each["metric"]): each["verdict"] for each in report["findings"] if each["gated"]}


def tell(extra: float, found: list[dict[tuple[str, str], str]], seconds: float) -> None:
    """How many checks cried wolf, how many found what was slower, and how often each metric did."""
    alarms = [{where for where, verdict in each.items() if verdict == "regressed"} for each in found]
    slowed = [{metric for cell, metric in each if cell == CELL} for each in alarms]
    false = sum(any(extra == 0 or cell != CELL for cell, _ in each) for each in alarms)
    caught = f"{sum(map(bool, slowed))} of {len(found)} found, " if extra else ""
    print(f"{f'{extra:+.0%} a step' if extra else 'unchanged'}: {caught}{false} of {len(found)} with a false alarm")
    by_metric = Counter(where for each in alarms for where in each)
    for (cell, metric), count in by_metric.most_common():
        print(f"    {cell}, {metric}: regressed in {count}")
    unsure = Counter(metric for each in found for (_, metric), verdict in each.items() if verdict == "inconclusive")
    for metric, count in unsure.most_common():
        print(f"    {metric}: inconclusive {count} times")
    print(f"    {seconds / len(found):.0f} s a check", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checks", type=int, default=20, help="checks of the unchanged program")
    parser.add_argument("--slowdowns", type=int, default=10, help="checks of each slowdown")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--sessions", type=int, default=1, help="sessions to store first; from 10 on they are tested")
    parser.add_argument("--arms", action="store_true", help="two arms in turns instead of a stored baseline")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder, options.rounds)
        for _ in range(0 if options.arms else options.sessions):
            parbench(folder, "run", "proof.yaml")
            parbench(folder, "baseline", "save", "latest", "--name", "proof")
        for extra, count in ((0.0, options.checks), *((extra, options.slowdowns) for extra in (0.1, 0.2, 0.5))):
            program(folder, extra)
            started = time.monotonic()
            found = [check(folder, arms=options.arms) for _ in range(count)]
            if found:
                tell(extra, found, time.monotonic() - started)


if __name__ == "__main__":
    main()
