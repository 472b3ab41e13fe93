"""torch.compile in real trials: it computes the same, its time is told apart, and where it fails only its cell does."""

import json

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


def run(parbench: CommandLine, strategies: str = "[single]", change: str = "compile=[true, false]"):
    (parbench.folder / "s.yaml").write_text(SCENARIO.replace("STRATEGIES", strategies))
    devices = "devices={kind: cpu, counts: [2], oversubscribe: true}"
    ended = parbench("run", "s.yaml", "--out", "out", "--set", f"workloads.w.{change}", "--set", devices)
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    return ended, {f"{row['workload']}/{row['strategy']}": row for row in rows}


def test_compiled_steps_compute_the_same_and_compiling_is_told_apart(parbench: CommandLine) -> None:
    ended, rows = run(parbench)
    if "No working C++ compiler" in ended.stderr:
        pytest.skip("there is no C++ compiler here")
    assert ended.returncode == 0, ended.stderr
    assert rows["w(compile=True)/single"]["parity"] == "reference"
    assert rows["w(compile=True)/single"]["compile_s"] > 0
    assert rows["w(compile=False)/single"]["compile_s"] is None


def test_every_kind_of_strategy_computes_the_same_with_compiled_blocks(parbench: CommandLine) -> None:
    ended, rows = run(parbench, "[single, ddp, fsdp, tensor_parallel, model_parallel]", "compile=true")
    if "No working C++ compiler" in ended.stderr:
        pytest.skip("there is no C++ compiler here")
    assert ended.returncode == 0, ended.stderr
    assert len(rows) == 5
    assert {row["parity"] for row in rows.values()} == {"reference", "ok"}
    assert all(row["compile_s"] > 0 for row in rows.values())
    assert "leaked" not in ended.stderr


def test_a_compiler_that_fails_fails_its_cell_with_its_last_line(parbench: CommandLine) -> None:
    parbench.environment |= {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(parbench.folder / "cache")}
    ended, rows = run(parbench)
    assert ended.returncode == 3
    assert rows["w(compile=True)/single"]["status"] == "failed"
    assert (
        "torch.compile failed: InvalidCxxCompiler: No working C++ compiler" in rows["w(compile=True)/single"]["reason"]
    )
    assert rows["w(compile=False)/single"]["status"] == "ok"
