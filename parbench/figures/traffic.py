"""What ranks hand each other in a step."""

from parbench.figures.base import Figure
from parbench.records.trial import Trial


def collectives(trial: Trial) -> float | None:
    """Calls of process groups in a step, on the rank with the most; None where ranks work alone, or it is unknown."""
    return max((rank.traffic.calls for rank in trial.ranks if rank.traffic), default=None)


def communicated_bytes(trial: Trial) -> float | None:
    """Bytes of the tensors handed to process groups in a step, on the rank with the most; None as for calls."""
    return max((rank.traffic.given_bytes for rank in trial.ranks if rank.traffic), default=None)


COLLECTIVES = Figure(
    name="collectives",
    title="collectives",
    unit="calls",
    better="lower",
    meaning="Calls of process groups in a step, collectives, sends and receives alike, on the rank with the "
    "most; the median over rounds.",
    of=lambda launch: collectives(launch.trial),
    gate="exact",
    portable=True,
)

COMMUNICATED_BYTES = Figure(
    name="communicated_bytes",
    title="communicated",
    unit="bytes",
    better="lower",
    meaning="Bytes of the tensors that the rank with the most hands to process groups in a step, the median "
    "over rounds. What that makes on the wire is up to the backend. Where it depends on the data, it is not gated.",
    of=lambda launch: communicated_bytes(launch.trial),
    gate="exact",
    gated_on=lambda cell: not cell.traffic_varies,
    portable=True,
)

FIGURES = (COLLECTIVES, COMMUNICATED_BYTES)
