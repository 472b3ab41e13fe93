"""What the memory of a rank holds when it is fullest, part by part."""

from collections.abc import Iterable, Mapping

from parbench.figures.base import Figure, Launch
from parbench.records.memory_account import MemoryAccountRecord, MemoryPart
from parbench.records.trial import Trial

PART_TITLES: Mapping[MemoryPart, str] = {
    "parameters": "parameters",
    "optimizer_state": "optimizer",
    "gradients": "gradients",
    "activations": "activations",
    "buffers": "buffers",
    "rest": "rest",
}
"""Every part of an account, in the order in which tables and charts show them."""

PART_MEANINGS: Mapping[MemoryPart, str] = {
    "parameters": "the parameters that the rank keeps between steps",
    "optimizer_state": "the state of the rank's optimizer",
    "gradients": "gradients of parameters that are there at the peak",
    "activations": "what forward passes have made and backward passes still need",
    "buffers": "tensors that are handed to collectives or received into, and parameters gathered from their shards",
    "rest": "temporary results of backward passes and the optimizer, and constants of the model; with torch.compile, "
    "gradients that come and go and activations as well",
}


def fullest_account(trial: Trial) -> MemoryAccountRecord | None:
    """The account of the rank whose tensors take the most bytes at their peak; None where no rank has one."""
    accounts = [rank.memory_account for rank in trial.ranks if rank.memory_account and rank.memory_account.at_peak]
    return max(accounts, key=_peak, default=None)


def first_account(trials: Iterable[Trial]) -> MemoryAccountRecord | None:
    """That of the first launch that has one: launches differ little in what they hold. None where none has."""
    return next((account for trial in trials if (account := fullest_account(trial))), None)


def _peak(account: MemoryAccountRecord) -> int:
    return account.at_peak.total if account.at_peak else 0


def _total(launch: Launch) -> float | None:
    account = fullest_account(launch.trial)
    return _peak(account) if account else None


def _figure(name: str, part: MemoryPart) -> Figure:
    def of(launch: Launch) -> float | None:
        account = fullest_account(launch.trial)
        size: int | None = getattr(account.at_peak, part) if account else None
        return size

    return Figure(
        name=name,
        title=f"{PART_TITLES[part]} at peak",
        unit="bytes",
        better="lower",
        meaning=f"Of the tensor peak, {PART_MEANINGS[part]}; the median over rounds.",
        of=of,
        shown_in=("table",),
    )


TENSOR_PEAK_BYTES = Figure(
    name="tensor_peak_bytes",
    title="tensor peak",
    unit="bytes",
    better="lower",
    meaning="The most bytes that the tensors of the fullest rank take at one moment of a step, the median over rounds. "
    "CPU: the sum of all storages that steps use. CUDA: the peak that torch allocated on the first device in steps "
    "after the window.",
    of=_total,
    shown_in=("table",),
)

FIGURES = (
    TENSOR_PEAK_BYTES,
    _figure("parameter_bytes", "parameters"),
    _figure("optimizer_state_bytes", "optimizer_state"),
    _figure("gradient_bytes", "gradients"),
    _figure("activation_bytes", "activations"),
    _figure("buffer_bytes", "buffers"),
    _figure("other_tensor_bytes", "rest"),
)
