"""How fast a model that is worth a GPU is trained; and the machine's CPU cores, beyond two."""

import statistics
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.campaigns import REPOSITORY, SCENARIOS, Campaign, run
from tests.gpu.ledger import Bench, Claim

EVENTS_TOLERANCE = 0.02
CHUNKS_SAVE = 2**30
"""Bytes: less than the logits of 16 × 1024 tokens over 50,304 in 16 bits, of which there are several."""


def train_gpt2(bench: Bench) -> Iterator[Claim]:
    """Compiling pays, events account for the window, and the model stays below what matrix products reach."""
    campaign = run(bench, SCENARIOS / "gpt2.yaml")
    yield campaign.parity()
    by_cell = campaign.figures("tokens_per_s")
    eager, compiled = (
        max((speed for cell, speed in by_cell.items() if f"compile={flag}" in cell), default=0.0)
        for flag in ("False", "True")
    )
    yield Claim("compiled is faster than eager", compiled > eager > 0, {"tokens_per_s": by_cell})
    yield _compare_memory(campaign)
    yield _account_for_windows(campaign)
    used = campaign.figures("mfu")
    yield Claim("utilisation is known and below 1", bool(used) and max(used.values()) < 1, {"mfu": used})


def _compare_memory(campaign: Campaign) -> Claim:
    """A compiled loss holds gigabytes of logits, which chunks of it do not."""
    peaks = {cell: peak for cell, peak in campaign.figures("peak_memory_bytes").items() if "compile=True" in cell}
    whole, chunked = (
        min((peak for cell, peak in peaks.items() if f"loss_chunks={chunks}" in cell), default=0.0) for chunks in (1, 8)
    )
    holds = 0 < chunked < whole - CHUNKS_SAVE
    return Claim("a loss in chunks needs less memory", holds, {"peak_memory_bytes": peaks})


def _account_for_windows(campaign: Campaign) -> Claim:
    jobs = [job for trial in campaign.trials for rank in trial["ranks"] for job in rank["jobs"] if job["step_times_s"]]
    shares = [sum(job["step_times_s"]) / job["window_s"] for job in jobs]
    worst = max((abs(share - 1) for share in shares), default=1.0)
    return Claim(
        f"the steps' events add up to the window within {EVENTS_TOLERANCE:.0%}",
        worst <= EVENTS_TOLERANCE,
        {"worst": worst, "median": statistics.median(shares) if shares else None},
    )


def scale_on_cpu(bench: Bench) -> Iterator[Claim]:
    """The first cells on more than two CPU devices that do not share cores."""
    from parbench.system.cpus import allowed_cores

    cores = len(allowed_cores())
    counts = [count for count in (1, 2, 4, 8, 16) if count <= cores]
    if cores < 4:
        yield Claim("there are four cores or more", holds=False, figures={"cores": cores})
        return
    scenario = Path(REPOSITORY) / "scenarios" / "lstm_scaling.yaml"
    campaign = run(bench, scenario, f"devices={{kind: cpu, counts: {counts}}}", "measure.rounds=3")
    yield campaign.parity()
    speeds = campaign.figures("speedup")
    yield Claim("a speedup is known on more than two devices", any(cell.endswith("/4") for cell in speeds), speeds)
