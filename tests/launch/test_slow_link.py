"""What a throttled link costs shows as exposed communication, between two emulated hosts."""

import json
import tempfile
from pathlib import Path

import pytest

from tests.launch.hosts import hosts, together

SCENARIO = """
workloads:
  w:
    model: {kind: transformer, layers: 2, d_model: 64, heads: 2}
    data: {source: synthetic, vocab_size: 512, tokens: 20000}
    seq_len: 8
    global_batch: 4
strategies: [ddp, {fsdp: {reshard_after_forward: false}}]
devices: {kind: cpu, counts: [2]}
measure: {rounds: 1, warmup: 5, window_s: 0.001, validation_batches: 1, deadline_s: 600}
"""


def measure(rate: str) -> dict[str, list[dict[str, float]]]:
    """The parts of a step in each rank, in seconds, by strategy."""
    with tempfile.TemporaryDirectory() as folder, hosts(2, Path(folder), rate) as both:
        for host in both:
            (host.folder / "s.yaml").write_text(SCENARIO)
        nodes = together(both, "s.yaml", "--out", "out")
        said = [node.communicate() for node in nodes]
        assert nodes[0].returncode == 0, said[0]
        lines = (both[0].folder / "out" / "trials.jsonl").read_text().splitlines()
    trials = [trial for trial in map(json.loads, lines) if trial["purpose"] == "measure"]
    return {trial["cell"].split("/")[1]: [rank["account"]["parts"] for rank in trial["ranks"]] for trial in trials}


@pytest.fixture(scope="module")
def steps() -> dict[str, dict[str, list[dict[str, float]]]]:
    """The parts at a rate at which a step takes a second and more, and at one that hardly matters."""
    try:
        return {rate: measure(rate) for rate in ("5mbit", "1gbit")}
    except LookupError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_what_a_throttled_link_adds_to_a_step_is_exposed_communication(steps, strategy) -> None:
    label = next(label for label in steps["5mbit"] if label.startswith(strategy))
    for slow, fast in zip(steps["5mbit"][label], steps["1gbit"][label], strict=True):
        grown = sum(slow.values()) - sum(fast.values())
        assert grown > 0.3
        assert slow["communication"] - fast["communication"] >= 0.9 * grown
