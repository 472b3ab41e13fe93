"""Trials into pandas tables: a row a cell, whatever became of it. The one place where rounds are summarised."""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from parbench.figures import generation, losses, memory, speed, traffic
from parbench.figures.peaks import peak_flops
from parbench.figures.statistics import Summary, summarise
from parbench.records.assignment import Purpose
from parbench.records.cell import CellRecord
from parbench.records.trial import Status, Trial
from parbench.results.parity import COMPARABLE, Evidence, Parity, judge
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

_SEVERITY: tuple[Status, ...] = ("out_of_memory", "killed", "timed_out", "failed")


def cells_table(run: Run) -> pd.DataFrame:
    """A row for every cell of the run, with the columns of `COLUMNS`; figures that are unknown are NaN.

    Speedups are formed within a round, against the reference strategy on one device with the same workload and
    scaling. A cell that failed in any round, or whose losses are not known to be the reference's, has no speedup.
    """
    trials = _by_key(run, "measure")
    references, proofs = newest_trials(run, "reference"), newest_trials(run, "proof")
    cap = run.record.scenario.get("measure", {}).get("verify_steps", math.inf)
    judged = [
        _Judged.of(cell, trials[cell.key], Evidence.of(cell, references, proofs, cap), run.record.rounds)
        for cell in run.record.cells
    ]
    bases: dict[tuple[str, str], dict[int, float]] = {}
    for each in judged:
        if each.cell.is_reference and each.cell.devices == 1 and each.comparable:
            # Of several variants of the reference, the first that was written is the base.
            bases.setdefault((each.cell.workload, each.cell.scaling), each.speeds)
    peak = _peak_flops(run.record.environment)
    emulated = run.record.emulated_nodes
    rows = [
        {
            **_row(each, bases.get((each.cell.workload, each.cell.scaling), {}), peak),
            "emulated_hosts": emulated and each.cell.nodes > 1,
        }
        for each in judged
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


@dataclass(frozen=True)
class _Judged:
    """A cell, its good trials, and what their status and their parity say of them."""

    cell: CellRecord
    good: list[Trial]
    status: Status
    parity: Parity
    reason: str | None

    @classmethod
    def of(cls, cell: CellRecord, trials: Sequence[Trial], evidence: Evidence, rounds: int) -> "_Judged":
        status, reason = _status(cell, trials, rounds)
        good = [trial for trial in trials if trial.status == "ok"]
        parity = judge(cell, good, evidence)
        return cls(cell, good, status, parity, "; ".join(filter(None, (reason, parity.reason))) or None)

    @property
    def comparable(self) -> bool:
        """Whether no round of it failed, and nothing shows that it computes something else than it should."""
        return self.status == "ok" and self.parity.word in COMPARABLE

    @property
    def speeds(self) -> dict[int, float]:
        """Tokens/s by round."""
        return {trial.round: speed.tokens_per_s(trial, self.cell) for trial in self.good}


def _row(judged: _Judged, base: Mapping[int, float], peak_flops: float | None) -> dict[str, Any]:
    cell, good, speeds = judged.cell, judged.good, judged.speeds
    ratios = [speed / base[number] for number, speed in speeds.items() if judged.comparable and number in base]
    tokens, speedup = _summary(speeds.values()), _summary(ratios)
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
        **_medians(cell, good, peak_flops),
        "steady": all(job.steady for trial in good for rank in trial.ranks for job in rank.jobs) if good else None,
    }


def _status(cell: CellRecord, trials: Sequence[Trial], rounds: int) -> tuple[Status, str | None]:
    """The worst that befell the cell in any round, and its reason."""
    if cell.reason is not None:
        return "skipped", cell.reason
    for status in _SEVERITY:
        bad = [trial for trial in trials if trial.status == status]
        if bad:
            times = "" if len(bad) == len(trials) == rounds else f" ({len(bad)} of {rounds} rounds)"
            return status, f"{bad[0].reason or 'no reason was recorded'}{times}"
    if not trials:
        return "skipped", "not measured: the run was interrupted before it"
    return "ok", None if len(trials) >= rounds else f"only {len(trials)} of {rounds} rounds were measured"


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


def _peak_flops(environment: Mapping[str, Any]) -> float | None:
    """What one accelerator can do at most; None where there is none, they differ, or it is not known."""
    names = {gpu.get("name") for gpu in environment.get("speed", {}).get("accelerators", ())}
    return peak_flops(str(names.pop())) if len(names) == 1 else None


def newest_trials(run: Run, purpose: Purpose) -> dict[str, Trial]:
    """Of the trials that are launched once, the newest by its key: one may have been launched again to go further."""
    return {key: trials[-1] for key, trials in _by_key(run, purpose).items()}


def counted_trials(run: Run, purpose: Purpose) -> Mapping[str, list[Trial]]:
    """The trials that the table is made of, by the key of their cell."""
    return _by_key(run, purpose)


def _by_key(run: Run, purpose: Purpose) -> defaultdict[str, list[Trial]]:
    """The trials that count, by the key of their cell."""
    found: defaultdict[str, list[Trial]] = defaultdict(list)
    for trial in run.trials:
        if trial.purpose == purpose and run.counts(trial):
            found[trial.key].append(trial)
    return found


def _summary(values: Iterable[float]) -> Summary:
    found = list(values)
    return summarise(found) if found else Summary(math.nan, None, None)


def _median(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else math.nan
