"""Made-up runs whose cells can be explained: ddp on two devices, one device with half the batch, and two of those."""

from parbench.records.account import AccountRecord, ExchangeRecord, Part
from parbench.records.cell import CellRecord, CompanionRecord, CompanionsRecord
from parbench.records.trial import TrafficRecord, Trial
from parbench.results.store import Run
from tests.support.records import cell, job, rank, reference, run, trial

COMPANIONS = CompanionsRecord(
    alone=CompanionRecord(key="alone", global_batch=4), together=CompanionRecord(key="together", global_batch=4)
)
PARTS: dict[Part, float] = {"forward": 0.8, "communication": 0.15, "pipeline": 0.05}
SINGLE, DDP = cell(), cell("ddp", 2, companions=COMPANIONS)
CALM = (1.0, 1.01, 0.99, 1.01, 0.99)


def explained(
    *,
    measured: float = 1.44,
    alone: float | None = 0.95,
    together: float | None = 1.85,
    parts: dict[Part, float] | None = PARTS,
    of: CellRecord = DDP,
    spread: tuple[float, ...] = CALM,
) -> Run:
    """A run with one round for each number of `spread`, by which the cell's speed varies.

    Speeds are over the base's, which takes two seconds for as many steps of a whole batch.
    """
    trials: list[Trial] = [reference(SINGLE)]
    for number, factor in enumerate(spread):
        trials += [trial(SINGLE, number, window_s=2.0), _spread_cell(of, number, 2.0 / measured / factor, parts)]
        if alone is not None:
            trials.append(_companion(number, "alone", models=1, window_s=1.0 / alone))
        if together is not None:
            trials.append(_companion(number, "together", models=2, window_s=2.0 / together))
    return run([SINGLE, of], trials, rounds=len(spread))


def _spread_cell(of: CellRecord, number: int, window_s: float, parts: dict[Part, float] | None) -> Trial:
    account = parts and AccountRecord(
        steps=3,
        profiled_s=sum(parts.values()),
        parts=parts,
        exchanges=(ExchangeRecord(name="all_reduce", calls=2, seconds=0.1),),
    )
    ranks = tuple(
        rank(
            index,
            jobs=(job(window_s=window_s),),
            account=account,
            traffic=TrafficRecord(calls=2, given_bytes=2.3 * 2**20),
        )
        for index in range(2)
    )
    return trial(of, number, ranks=ranks)


def _companion(number: int, key: str, *, models: int, window_s: float) -> Trial:
    ranks = tuple(rank(model, lane=model, jobs=(job(model, window_s=window_s),)) for model in range(models))
    return trial(number=number, purpose="companion", cell=f"{key} (companion)", key=key, ranks=ranks)
