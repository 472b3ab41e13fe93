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
    compile: [true, false]
strategies: [single]
measure: {rounds: 1, window_s: 0.1, deadline_s: 250}
"""


def run(parbench: CommandLine):
    (parbench.folder / "s.yaml").write_text(SCENARIO)
    ended = parbench("run", "s.yaml", "--out", "out")
    rows = json.loads(parbench("table", "out", "--format", "json").stdout)
    return ended, {row["workload"]: row for row in rows}


def test_compiled_steps_compute_the_same_and_compiling_is_told_apart(parbench: CommandLine) -> None:
    ended, rows = run(parbench)
    if "No working C++ compiler" in ended.stderr:
        pytest.skip("there is no C++ compiler here")
    assert ended.returncode == 0, ended.stderr
    assert rows["w(compile=True)"]["parity"] == "reference"
    assert rows["w(compile=True)"]["compile_s"] > 0
    assert rows["w(compile=False)"]["compile_s"] is None


def test_a_compiler_that_fails_fails_its_cell_with_its_last_line(parbench: CommandLine) -> None:
    parbench.environment |= {"CXX": "/bin/false", "TORCHINDUCTOR_CACHE_DIR": str(parbench.folder / "cache")}
    ended, rows = run(parbench)
    assert ended.returncode == 3
    assert rows["w(compile=True)"]["status"] == "failed"
    assert "torch.compile failed: InvalidCxxCompiler: No working C++ compiler" in rows["w(compile=True)"]["reason"]
    assert rows["w(compile=False)"]["status"] == "ok"
