"""What torch.compile has done, by counters that are set by hand; real caches are in training/test_compile.py."""

import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
import torch._dynamo.utils

from parbench.measure.probes.compile_time import Compilation, read_compilation, use_fresh_caches


def test_graphs_that_no_cache_may_hold_are_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    counters: defaultdict[str, Counter[str]] = defaultdict(Counter)
    monkeypatch.setattr(torch._dynamo.utils, "counters", counters)
    monkeypatch.setattr(torch._dynamo.utils, "calculate_time_spent", lambda: {"total_wall_time": 1.5})
    assert read_compilation() == Compilation(1.5, 0, 0)
    counters["inductor"].update(fxgraph_cache_hit=4, fxgraph_cache_miss=2, fxgraph_cache_bypass=1)
    assert read_compilation() == Compilation(1.5, cache_hits=4, cache_misses=3)
    assert read_compilation().since(Compilation(0.5, 1, 3)) == Compilation(1.0, 3, 0)


def test_each_rank_begins_with_an_empty_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.setenv(name, "the user's")
    monkeypatch.chdir(tmp_path)
    for rank in (0, 1, 1):
        use_fresh_caches(Path(), rank)
        caches = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
        assert caches.parent == tmp_path.resolve()
        assert not list(caches.iterdir())
        assert Path(os.environ["TRITON_CACHE_DIR"]).parent == caches
        found.append(caches.name.rpartition("-")[0])
        (caches / "code.so").write_text("")
    assert found == ["rank0-compiled", "rank1-compiled", "rank1-compiled"]
