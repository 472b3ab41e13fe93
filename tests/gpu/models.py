"""What models compute on the GPU: all strategies in a world of one, eight models at once, generated text, two ranks."""

from collections.abc import Iterator

from tests.gpu.campaigns import SCENARIOS, run, run_program
from tests.gpu.ledger import Bench, Claim


def compare_all(bench: Bench) -> Iterator[Claim]:
    """Every strategy × family × precision takes steps in one process, and its losses are those of `single`."""
    cells, errors = run_program(bench, "world_of_one", SCENARIOS / "parity.yaml")
    bad = {name: each for name, each in cells.items() if not each["ok"]}
    holds = bool(cells) and not errors and not bad
    yield Claim(f"{len(cells)} cells compute what single computes", holds, {"bad": bad, "errors": errors})
    rounded = {
        name: each["losses"] != cells[name.replace("precision=tf32", "precision=fp32")]["losses"]
        for name, each in cells.items()
        if "precision=tf32" in name and name.endswith("/single/1")
    }
    yield Claim("TF32 rounds otherwise than fp32", bool(rounded) and all(rounded.values()), rounded)


def train_eight(bench: Bench) -> Iterator[Claim]:
    """Which way trains the most models in an hour, each of them right?"""
    campaign = run(bench, SCENARIOS / "eight_models.yaml")
    yield campaign.parity()
    rates = campaign.figures("models_per_hour")
    yield Claim("models per hour are known by each way", bool(rates) and all(rates.values()), rates)


def generate(bench: Bench) -> Iterator[Claim]:
    """Tokens are those of the reference."""
    campaign = run(bench, SCENARIOS / "generation.yaml")
    yield campaign.parity()
    latencies = campaign.figures("time_per_output_token_p50_s")
    yield Claim("the time of a token is known", bool(latencies) and all(latencies.values()), latencies)


def share_gpus(bench: Bench) -> Iterator[Claim]:
    """Two ranks on each GPU exchange over gloo, and compute what one does; nobody is told that they have their own."""
    from parbench.system.devices import detect

    ranks = 2 * detect().gpus
    campaign = run(bench, SCENARIOS / "two_ranks.yaml", f"devices.counts=[{ranks}]")
    yield campaign.parity()
    labelled = {cell: row["oversubscribed"] for cell, row in campaign.rows.items() if row["devices"] == ranks}
    yield Claim("ranks that share a GPU are labelled", bool(labelled) and all(labelled.values()), labelled)
