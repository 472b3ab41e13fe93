"""What models compute on the GPU: all strategies in a world of one, eight models at once, generated text, two ranks."""

from collections.abc import Iterator

from tests.gpu.campaigns import SCENARIOS, Campaign, run, run_program
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
    yield find_clients(campaign)
    yield find_guests(campaign)


def find_clients(campaign: Campaign) -> Claim:
    """MPS serves the ranks of cells that ask for it and no others; where it cannot be started, nobody asks."""
    served = {
        trial["cell"]: sorted({str(gpu["mps"]) for rank in trial["ranks"] for gpu in rank["surroundings"]["gpus"]})
        for trial in campaign.trials
        if trial["purpose"] == "measure" and trial["status"] == "ok"
    }
    holds = all(each == [str("sharing=mps" in cell)] for cell, each in served.items())
    return Claim("MPS serves the cells that ask for it, and no others", bool(served) and holds, served)


def find_guests(campaign: Campaign) -> Claim:
    """Nobody else computes here, so a server of MPS, or a client that counts twice, would show as one who does."""
    guests = {
        trial["cell"]: trial["warnings"]
        for trial in campaign.trials
        if any("computed on" in warning for warning in trial["warnings"])
    }
    return Claim("no rank and no server of MPS is taken for a guest", not guests, guests)


def generate(bench: Bench) -> Iterator[Claim]:
    """Tokens are those of the reference, also where a graph is replayed for each of them, which takes less time."""
    campaign = run(bench, SCENARIOS / "generation.yaml")
    yield campaign.parity()
    differing = {cell: row["differing_sequences"] for cell, row in campaign.rows.items() if row["precision"] == "fp32"}
    replayed = {cell: count for cell, count in differing.items() if "cuda_graphs" in cell}
    same = len(replayed) == 3 and set(replayed.values()) == {0}
    yield Claim("in fp32, a replayed graph chooses the same tokens", same, replayed)
    latencies = campaign.figures("time_per_output_token_p50_s")
    yield Claim("the time of a token is known", bool(latencies) and all(latencies.values()), latencies)
    graphs = "(cuda_graphs=True)"
    gains = {
        cell: latencies[cell.replace(graphs, "")] / latency
        for cell, latency in latencies.items()
        if graphs in cell and cell.replace(graphs, "") in latencies
    }
    yield Claim("a replayed graph takes less time a token", bool(gains) and min(gains.values()) > 1, gains)


def share_gpus(bench: Bench) -> Iterator[Claim]:
    """Two ranks on each GPU exchange over gloo, and compute what one does; nobody is told that they have their own."""
    from parbench.system.devices import detect

    ranks = 2 * detect().gpus
    campaign = run(bench, SCENARIOS / "two_ranks.yaml", f"devices.counts=[{ranks}]")
    yield campaign.parity()
    labelled = {cell: row["oversubscribed"] for cell, row in campaign.rows.items() if row["devices"] == ranks}
    yield Claim("ranks that share a GPU are labelled", bool(labelled) and all(labelled.values()), labelled)
