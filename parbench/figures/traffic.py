"""What ranks hand each other in a step."""

from parbench.records.trial import Trial


def collectives(trial: Trial) -> float | None:
    """Calls of process groups in a step, on the rank with the most; None where ranks work alone, or it is unknown."""
    return max((rank.traffic.calls for rank in trial.ranks if rank.traffic), default=None)


def communicated_bytes(trial: Trial) -> float | None:
    """Bytes of the tensors handed to process groups in a step, on the rank with the most; None as for calls."""
    return max((rank.traffic.given_bytes for rank in trial.ranks if rank.traffic), default=None)
