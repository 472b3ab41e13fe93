"""Predictions as a table, and as data for programs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from parbench.predict.judge import Judgement
from parbench.predict.ranking import Prediction, Ranking

BASIS = "published"
"""Where the constants come from: rows that others have published."""


def predictions_table(rankings: Sequence[Ranking]) -> pd.DataFrame:
    """A row a layout: throughput in tokens per second, times in seconds, memory in bytes, all else shares of one."""
    return pd.DataFrame([row for ranking in rankings for row in _rows(ranking)])


def rankings_data(rankings: Sequence[Ranking]) -> list[dict[str, Any]]:
    """The same with what was looked at, refused and assumed."""
    return [
        {
            "workload": ranking.workload,
            "cluster": ranking.cluster.name,
            "devices": ranking.devices,
            "layouts": ranking.layouts,
            "fitting": ranking.fitting,
            "assumed": list(ranking.assumed),
            "refused": ranking.refusals,
            "predictions": [{**row, "layout": prediction.layout} for row, prediction in _with_rows(ranking)],
        }
        for ranking in rankings
    ]


def judgement_table(judgement: Judgement) -> pd.DataFrame:
    """A row a measurement."""
    return pd.DataFrame(
        [
            {
                "row_id": row.case.row_id,
                "source": row.case.fold,
                "device": row.case.device,
                "devices": row.case.devices,
                "measured_tokens_per_s": row.case.tokens_per_s,
                "predicted_tokens_per_s": row.predicted,
                "low": row.low,
                "high": row.high,
                "error": row.error,
                "assumed": " ".join(row.case.assumed),
            }
            for row in judgement.rows
        ]
    )


def _rows(ranking: Ranking) -> list[dict[str, Any]]:
    return [row for row, _ in _with_rows(ranking)]


def _with_rows(ranking: Ranking) -> list[tuple[dict[str, Any], Prediction]]:
    predictions = list(ranking.predictions)
    rows = []
    for place, each in enumerate(predictions, start=1):
        following = predictions[place].tokens_per_s if place < len(predictions) else None
        row = {
            "workload": ranking.workload,
            "devices": ranking.devices,
            "rank": place,
            "tie": each.tie,
            "layout": each.words,
            "tokens_per_s": each.tokens_per_s,
            "low": each.low,
            "high": each.high,
            "over_next": each.tokens_per_s / following if following else None,
            "mfu": each.mfu,
            "step_time_s": each.step_s,
            **{f"{name}_share": share for name, share in each.shares.items()},
            "memory_bytes": sum(each.memory.values()),
            **{f"{name}_bytes": size for name, size in each.memory.items()},
            "fits": each.fits,
            "extrapolated": each.extrapolated,
            "basis": BASIS,
        }
        rows.append((row, each))
    return rows
