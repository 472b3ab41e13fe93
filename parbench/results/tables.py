"""Trials into pandas tables: a row a cell, whatever became of it. The one place where rounds are summarised."""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from parbench.figures import generation, losses, memory, speed, traffic
from parbench.figures.statistics import Summary, summarise
from parbench.records.cell import CellRecord
from parbench.records.trial import Trial
from parbench.results.judged_cells import JudgedCell, judge_cells
from parbench.results.store import Run

COLUMNS = (
    "workload",
    "scaling",
    "strategy",
    "label",
    "device_kind",
    "devices",
    "nodes",
    "models",
    "global_batch",
    "seq_len",
    "precision",
    "phase",
    "status",
    "parity",
    "reason",
    "rounds",
    "tokens_per_s",
    "tokens_per_s_ci_low",
    "tokens_per_s_ci_high",
    "speedup",
    "speedup_ci_low",
    "speedup_ci_high",
    "scaling_efficiency",
    "peak_memory_bytes",
    "step_time_s",
    "validation_perplexity",
    "parity_deviation",
    "differing_sequences",
    "parity_power",
    "verified_steps",
    "compile_s",
    "mfu",
    "bubble",
    "ideal_bubble",
    "makespan_s",
    "models_per_hour",
    "averaged_perplexity",
    "collectives",
    "communicated_bytes",
    "time_to_first_token_s",
    "time_per_output_token_p50_s",
    "time_per_output_token_p90_s",
    "time_per_output_token_p99_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
    "layout",
    "emulated",
    "oversubscribed",
    "emulated_hosts",
    "steady",
)


def cells_table(run: Run) -> pd.DataFrame:
    """A row for every cell of the run, as `table_of` makes it."""
    return table_of(judge_cells(run), emulated_nodes=run.record.emulated_nodes)


def table_of(cells: Sequence[JudgedCell], *, emulated_nodes: bool = False) -> pd.DataFrame:
    """A row for every cell, with the columns of `COLUMNS`; figures that are unknown are NaN.

    Ratios are formed within a round. A cell that failed in any round, or whose losses are not known to be the
    reference's, has none.
    """
    rows = [{**_row(cell), "emulated_hosts": emulated_nodes and cell.record.nodes > 1} for cell in cells]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(judged: JudgedCell) -> dict[str, Any]:
    cell, good, launches = judged.record, judged.trials, judged.launches.values()
    speeds = [speed.tokens_per_s(launch.trial, cell) for launch in launches]
    ratios = [
        speed.tokens_per_s(launch.trial, cell) / speed.tokens_per_s(launch.base.trial, launch.base.cell)
        for launch in launches
        if launch.base
    ]
    tokens, speedup = _summary(speeds), _summary(ratios)
    return {
        **cell.model_dump(include=set(COLUMNS) - {"reason"}),
        "status": judged.status,
        "parity": judged.parity.word,
        "reason": judged.reason,
        "rounds": len(good),
        "tokens_per_s": tokens.mean,
        "tokens_per_s_ci_low": tokens.low,
        "tokens_per_s_ci_high": tokens.high,
        "speedup": speedup.mean,
        "speedup_ci_low": speedup.low,
        "speedup_ci_high": speedup.high,
        "scaling_efficiency": speedup.mean / cell.devices,
        "peak_memory_bytes": _median(map(memory.peak_memory_bytes, good)),
        "step_time_s": _median(map(speed.step_time_s, good)),
        "validation_perplexity": _median(map(losses.validation_perplexity, good)),
        "parity_deviation": judged.parity.deviation,
        "differing_sequences": judged.parity.differing,
        "parity_power": judged.parity.power,
        "verified_steps": judged.parity.verified_steps,
        **_medians(cell, good, judged.peak_flops),
        "steady": all(job.steady for trial in good for rank in trial.ranks for job in rank.jobs) if good else None,
    }


def _medians(cell: CellRecord, trials: Sequence[Trial], peak_flops: float | None) -> dict[str, float]:
    """The median over rounds of every figure that a trial has or has not, by what it was."""
    each: list[dict[str, float | None]] = [
        {
            "compile_s": speed.compile_s(trial),
            "mfu": speed.mfu(trial, cell, peak_flops),
            "bubble": speed.bubble(trial),
            "averaged_perplexity": losses.averaged_perplexity(trial),
            "collectives": traffic.collectives(trial),
            "communicated_bytes": traffic.communicated_bytes(trial),
            **({"makespan_s": speed.makespan_s(trial)} if cell.models > 1 else {}),
            **({"models_per_hour": speed.models_per_hour(trial, cell)} if cell.models > 1 else {}),
            **generation.generation_figures(trial, cell),
        }
        for trial in trials
    ]
    return {name: _median(found.get(name) for found in each) for name in {name for found in each for name in found}}


def _summary(values: Iterable[float]) -> Summary:
    found = list(values)
    return summarise(found) if found else Summary(math.nan, None, None)


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan
