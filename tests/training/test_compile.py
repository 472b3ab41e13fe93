"""torch.compile in real trials: it computes the same, its time is told apart, and where it fails only its cell does."""

import json
from typing import Any

import pytest

from tests.conftest import CommandLine

SCENARIO = """
workloads:
  w:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 8
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: STRATEGIES
measure: {rounds: 1, window_s: 0.1, deadline_s: 600}
"""


def run(parbench: CommandLine, strategies: str, *changes: str):
    (parbench.folder / "s.yaml").write_text(SCENARIO.replace("STRATEGIES", strategies))
    settings = ["devices={kind: cpu, counts: [2], oversubscribe: true}", *changes]
    ended = parbench("run", "s.yaml", "--out", "out", *(word for each in settings for word in ("--set", each)))
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    return ended, {f"{row['workload']}/{row['strategy']}": row for row in rows}


def run_compiled(parbench: CommandLine, strategies: str, *changes: str):
    ended, rows = run(parbench, strategies, *changes)
    if "No working C++ compiler" in ended.stderr:
        pytest.skip("there is no C++ compiler here")
    assert ended.returncode == 0, ended.stderr
    return ended, rows


def timed_jobs(parbench: CommandLine) -> list[dict[str, Any]]:
    trials = map(json.loads, (parbench.folder / "out" / "trials.jsonl").read_text().splitlines())
    return [job for trial in trials if trial["purpose"] == "measure" for rank in trial["ranks"] for job in rank["jobs"]]


def test_compiled_steps_compute_the_same_and_every_launch_compiles_anew(parbench: CommandLine) -> None:
    """The proof has compiled the same graphs before, into the caches that torch keeps."""
    _, rows = run_compiled(parbench, "[single]", "workloads.w.compile=[true, false]")
    compiled, eager = (rows[f"w(compile={flag})/single"] for flag in (True, False))
    assert compiled["parity"] == "reference"
    assert compiled["compile_s"] > 0
    assert compiled["warm_compile_s"] is eager["compile_s"] is eager["warm_compile_s"] is None
    assert sorted(job["cache_misses"] > 0 for job in timed_jobs(parbench)) == [False, True]
    assert not list((parbench.folder / "out").rglob("*compiled*"))


def test_every_kind_of_strategy_computes_the_same_with_compiled_blocks_also_from_caches(parbench: CommandLine) -> None:
    strategies = "[single, ddp, fsdp, tensor_parallel, context_parallel, model_parallel]"
    ended, rows = run_compiled(parbench, strategies, "workloads.w.compile=true", "measure.compile_cache=kept")
    assert len(rows) == 6
    assert {row["parity"] for row in rows.values()} == {"reference", "ok"}
    assert all(row["warm_compile_s"] > 0 for row in rows.values())
    assert all(row["compile_s"] is None for row in rows.values())
    assert all(job["cache_hits"] > 0 == job["cache_misses"] for job in timed_jobs(parbench))
    assert "leaked" not in ended.stderr


def test_a_compiler_that_fails_fails_its_cell_with_its_last_line(parbench: CommandLine) -> None:
    parbench.environment |= {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(parbench.folder / "cache")}
    ended, rows = run(parbench, "[single]", "workloads.w.compile=[true, false]")
    assert ended.returncode == 3
    assert rows["w(compile=True)/single"]["status"] == "failed"
    assert (
        "torch.compile failed: InvalidCxxCompiler: No working C++ compiler" in rows["w(compile=True)/single"]["reason"]
    )
    assert rows["w(compile=False)/single"]["status"] == "ok"
