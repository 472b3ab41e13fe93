"""What the parity gate saw of a cell in all its rounds. The gate computes it, not a formula for one launch."""

from parbench.figures.base import Figure

PARITY_DEVIATION = Figure(
    name="parity_deviation",
    title="deviation",
    unit="nats",
    better="lower",
    meaning="The largest distance between the losses of the verified steps and the reference's on the same "
    "global batch, over all models and rounds, in nats per token.",
    shown_in=("table",),
)

DIFFERING_SEQUENCES = Figure(
    name="differing_sequences",
    title="differing",
    unit="sequences",
    better="lower",
    meaning="How many of the verified steps' generated sequences are not, token by token, the reference's.",
    shown_in=("table",),
)

PARITY_POWER = Figure(
    name="parity_power",
    title="power",
    unit="tolerances",
    better="higher",
    meaning="How far a mistake that is made on purpose (gradients that are not synchronised, half of a batch, "
    "a strategy that stops to learn) leads away from the reference's losses, in tolerances: the least of "
    "them. Below 10 parity is undecided.",
    shown_in=("table",),
)

VERIFIED_STEPS = Figure(
    name="verified_steps",
    title="verified",
    unit="steps",
    better=None,
    meaning="How many of each trial's steps, warm-up first, were compared with the reference's.",
    shown_in=("table",),
)

FIGURES = (PARITY_DEVIATION, DIFFERING_SEQUENCES, PARITY_POWER, VERIFIED_STEPS)
