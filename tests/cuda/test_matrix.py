"""Every strategy on CUDA devices that are not there: fake tensors, a fake process group, real set-up and real steps.

It shows that tensors are where they belong and what is exchanged; it computes no values.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from parbench.measure.probes.traffic import Exchange
from tests.cuda.arithmetic import traffic_of
from tests.cuda.cells import CELLS
from tests.cuda.shim import build_shim

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What came of each cell, for its first and its last rank."""
    folder = tmp_path_factory.mktemp("fake")
    shim = build_shim(folder)
    if shim is None:
        pytest.skip("there is no C++ compiler here")
    out = folder / "results.jsonl"
    command = [sys.executable, "-m", "tests.cuda.worker", str(shim), str(out)]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    by_cell: dict[str, list[dict[str, Any]]] = {}
    for line in out.read_text().splitlines():
        result = json.loads(line)
        by_cell.setdefault(result["cell"], []).append(result)
    return by_cell


@pytest.mark.parametrize("cell", CELLS)
def test_a_rank_builds_steps_and_keeps_everything_on_its_device(results, cell: str) -> None:
    for result in results[cell]:
        assert "error" not in result, result["traceback"]
        device = f"cuda:{result['rank']}"
        # An optimizer that is neither fused nor capturable counts its steps on the host; parameters may be offloaded.
        assert set(result["devices"]) <= {device, "cpu"}
        assert device in result["devices"] or "offload=parameters" in cell
        if result.get("loss"):
            assert result["loss"][:2] == [device, "torch.float32"]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if cell.startswith("decode")])
def test_new_tokens_stay_on_the_device(results, cell: str) -> None:
    assert [result["tokens"] for result in results[cell]] == [["cuda:0", "torch.int64", [32, 4]]]


@pytest.mark.parametrize("cell", [cell for cell in CELLS if not cell.startswith("decode")])
def test_a_rank_exchanges_what_its_strategy_says_and_no_more(results, cell: str) -> None:
    for result in results[cell]:
        counted = {kind: Exchange(*each) for kind, each in result["exchanges"].items()}
        assert counted == traffic_of(CELLS[cell], result["rank"])


@pytest.mark.parametrize("cell", [cell for cell in CELLS if "sharing=streams" in cell or "/ensemble" in cell])
def test_each_model_of_a_device_has_its_own_loss(results, cell: str) -> None:
    assert [result["loss"][2] for result in results[cell]] == [[2]] * len(results[cell])


@pytest.mark.parametrize("cell", CELLS)
def test_a_rank_holds_what_its_strategys_arithmetic_says(results, cell: str) -> None:
    for result in results[cell]:
        assert result.get("held") == result.get("expected")
