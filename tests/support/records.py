"""Made-up records. Unless told otherwise a model trains 10 steps of 8 × 64 tokens in 2 s: 2,560 tokens/s."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parbench.records.assignment import Assignment
from parbench.records.cell import CellRecord
from parbench.records.corpus import Corpus
from parbench.records.run import RunRecord
from parbench.records.trial import JobRecord, RankRecord, Trial
from parbench.results.store import Run

LOSSES = (5.5, 5.4, 5.3, 5.2, 5.1)


def job(number: int = 0, *, steps: int = 10, window_s: float = 2.0, **changes: Any) -> JobRecord:
    return JobRecord(
        **{
            "job": number,
            "parameters": 1000,
            "warmup_steps": 5,
            "warmup_s": 1.0,
            "steady": True,
            "losses": LOSSES,
            "steps": steps,
            "window_s": window_s,
            "step_times_s": (window_s / max(1, steps),) * steps,
            "validation_loss": 5.0,
            **changes,
        }
    )


def rank(number: int = 0, **changes: Any) -> RankRecord:
    return RankRecord(
        **{"rank": number, "host": "here", "pid": 100 + number, "stage": "done", "jobs": (job(),), **changes}
    )


def cell(strategy: str = "single", devices: int = 1, **changes: Any) -> CellRecord:
    values = {"workload": "lstm", "label": strategy, "scaling": "strong", "global_batch": 8, **changes}
    name = f"{values['workload']}/{values['label']}/{devices}/{values['scaling']}"
    return CellRecord(
        **{
            "id": name,
            "key": f"key of {name}",
            "reference": f"losses of {values['workload']} with {values['global_batch']}",
            "family": "lstm",
            "strategy": strategy,
            "is_reference": strategy == "single",
            "exact": True,
            "device_kind": "cpu",
            "devices": devices,
            "models": 1,
            "seq_len": 64,
            "precision": "fp32",
            **values,
        }
    )


def trial(of: CellRecord | None = None, number: int = 0, *, window_s: float = 2.0, **changes: Any) -> Trial:
    """A trial of a cell in round `number`; with a status other than ok its ranks left nothing."""
    of = of or cell()
    ranks = (rank(jobs=(job(window_s=window_s),)),) if changes.get("status", "ok") == "ok" else ()
    return Trial(
        **{
            "purpose": "measure",
            "cell": of.id,
            "key": of.key,
            "round": number,
            "environment": "0123456789abcdef",
            "started_at": "2026-01-01T00:00:00+00:00",
            "wall_s": 5.0,
            "status": "ok",
            "ranks": ranks,
            **changes,
        }
    )


def reference(of: CellRecord | None = None, **changes: Any) -> Trial:
    """The trial whose losses a cell must reproduce."""
    of = of or cell()
    return trial(of, **{"purpose": "reference", "key": of.reference, **changes})


def assignment(**changes: Any) -> Assignment:
    """The assignment of DDP on two CPU devices of one node."""
    return Assignment(
        **{
            "purpose": "measure",
            "cell": "lstm/ddp/2",
            "key": "key",
            "round": 0,
            "workload": {"model": {"kind": "lstm"}},
            "strategy": "ddp",
            "options": {},
            "device_kind": "cpu",
            "devices": 2,
            "threads": 1,
            "cores": ((0,), (1,)),
            "corpus": Corpus(path="tokens", sha256="0" * 64, tokens=1000, vocab_size=16, dtype="int32"),
            "seed": 0,
            "warmup": 5,
            "window_s": 1.0,
            "validation_batches": 1,
            "deadline_s": 9.0,
            **changes,
        }
    )


def run_record(cells: Sequence[CellRecord] = (), *, rounds: int = 1, **changes: Any) -> RunRecord:
    return RunRecord(
        **{
            "id": "made-up",
            "created_at": "2026-01-01T00:00:00+00:00",
            "command": ("parbench", "run", "made_up.yaml"),
            "scenario": {"name": "made_up"},
            "rounds": rounds,
            "environment": {},
            "environment_digest": "0123456789abcdef",
            "corpora": {},
            "cells": tuple(cells),
            **changes,
        }
    )


def run(cells: Sequence[CellRecord] = (), trials: Sequence[Trial] = (), *, rounds: int = 1) -> Run:
    return Run(Path("made-up"), run_record(cells, rounds=rounds), tuple(trials), ())
