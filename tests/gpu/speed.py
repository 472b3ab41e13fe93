"""How fast a model that is worth a GPU is trained; and the machine's CPU cores, beyond two."""

import statistics
from collections.abc import Iterator
from dataclasses import replace

from tests.gpu.campaigns import REPOSITORY, SCENARIOS, Campaign, run, run_program
from tests.gpu.ledger import Bench, Claim

EVENTS_TOLERANCE = 0.02
CHUNKS_SAVE = 2**30
"""Bytes: less than the logits of 16 × 1024 tokens over 50,304 in 16 bits, of which there are several."""
SLOWER = 0.01
CPU_SCENARIOS = {
    "lstm_scaling": (),
    "transformer_scaling": ("scaling=strong",),
    "strategies_full": ("strategies=[single, ddp, fsdp, tensor_parallel, model_parallel, hybrid, local_sgd]",),
}
"""What is measured on CPU devices, as long as there is time, each with settings that make it shorter."""
LEAST_S = 45.0
"""A campaign that has less time measures next to nothing."""


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


def compare_with_script(bench: Bench) -> Iterator[Claim]:
    """An eager step of GPT-2 takes no longer than one that an expert writes by hand."""
    duel, errors = run_program(bench, "duel", SCENARIOS / "gpt2.yaml")
    holds = not errors and duel["ratio"] >= 1 - SLOWER and len(set(duel["parameters"])) == 1
    yield Claim(f"a step is at most {SLOWER:.0%} slower than one by hand", holds, {**duel, "errors": errors})
    used = duel.get("share_of_matmul_flops", 0.0)
    yield Claim("its part of the measured matmul peak is known, and below 1", 0 < used < 1, {"share": used})


def scale_on_cpu(bench: Bench) -> Iterator[Claim]:
    """The first cells on more than two CPU devices that do not share cores."""
    from parbench.system.cpus import allowed_cores

    cores = len(allowed_cores())
    counts = [count for count in (4, 8, 16) if count <= cores]
    if not counts:
        yield Claim("there are four cores or more", holds=False, figures={"cores": cores})
        return
    settings = (f"devices={{kind: cpu, counts: {counts}}}", "measure.rounds=1", "measure.window_s=1.0")
    for number, (name, shorter) in enumerate(CPU_SCENARIOS.items()):
        if number and bench.left_s < LEAST_S:
            return
        share = bench.until_a_part_is_over(len(CPU_SCENARIOS) - number)
        campaign = run(share, REPOSITORY / "scenarios" / f"{name}.yaml", *settings, *shorter)
        speeds = campaign.figures("speedup")
        if number and not speeds:
            return
        parity = campaign.parity(interrupted=True)
        yield replace(parity, what=f"{name}: {parity.what}")
        beyond = any(cell.endswith(tuple(f"/{count}" for count in counts)) for cell in speeds)
        yield Claim(f"{name}: a speedup is known on more than two devices", beyond, speeds)
