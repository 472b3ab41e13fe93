"""What a scenario says: workloads, strategies, devices, and how to measure them. Typed, frozen, without torch."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator

Scaling = Literal["strong", "weak"]


class Spec(BaseModel):
    """Frozen and strict: unknown keys, NaN and values of another type are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSpec(Spec):
    """A model family and its sizes. Families subclass it, each with its own `kind`."""

    kind: str


class Options(Spec):
    """A strategy's options. Strategies subclass it."""


class StandardLibraryText(Spec):
    """The source files of the running Python's standard library, as bytes."""

    source: Literal["python-stdlib"] = "python-stdlib"


class TextFile(Spec):
    """Any file, as bytes."""

    source: Literal["text"] = "text"
    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]

    @property
    def resolved(self) -> Path:
        """The file, with `~` expanded."""
        return Path(self.path).expanduser()


class SyntheticTokens(Spec):
    """Random tokens, drawn uniformly: for measuring a vocabulary size that no text at hand has."""

    source: Literal["synthetic"] = "synthetic"
    vocab_size: Annotated[int, Field(ge=2, le=2_000_000)]
    tokens: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000


DataSpec = Annotated[StandardLibraryText | TextFile | SyntheticTokens, Field(discriminator="source")]


class OptimizerSpec(Spec):
    """The optimizer and its learning rate; `lr_per_model` gives each of several models its own."""

    name: Literal["sgd", "adam", "adamw"] = "adam"
    lr: PositiveFloat = 1e-3
    lr_per_model: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _momentum_is_for_sgd(self) -> Self:
        if self.momentum and self.name != "sgd":
            raise ValueError(f"momentum belongs to sgd; {self.name} has none to set")
        return self

    def lr_of(self, job: int) -> float:
        """The learning rate of model number `job`."""
        return self.lr_per_model[job] if self.lr_per_model else self.lr


class WorkloadSpec(Spec):
    """What is trained. Sizes are in tokens (`seq_len`) and sequences (`global_batch`)."""

    model: SerializeAsAny[ModelSpec]
    data: DataSpec = StandardLibraryText()
    seq_len: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    global_batch: Annotated[int, Field(ge=1, le=10_000_000)] = 32
    models: PositiveInt | Literal["auto"] = "auto"
    optimizer: OptimizerSpec = OptimizerSpec()
    precision: Literal["fp32"] = "fp32"
    phase: Literal["train"] = "train"

    @model_validator(mode="after")
    def _one_learning_rate_a_model(self) -> Self:
        rates = self.optimizer.lr_per_model
        if rates is not None and len(rates) != self.models:
            raise ValueError(f"optimizer.lr_per_model has {len(rates)} values, so models must be {len(rates)}")
        return self


class StrategySpec(Spec):
    """A strategy's registry key, its options, and the label that tells its variants apart."""

    name: str
    options: SerializeAsAny[Options]
    label: str


class DevicesSpec(Spec):
    """What the work is spread over.

    `auto` counts are 1, 2, 4, … up to what the machine has. On CPU a device is `cores_per_device` physical cores;
    with `oversubscribe`, more devices than there are cores share them, and every result says so.
    """

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    counts: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)] | Literal["auto"] = "auto"
    cores_per_device: PositiveInt = 1
    oversubscribe: bool = False


class MeasureSpec(Spec):
    """How cells are measured.

    `rounds` fresh launches of every cell; `warmup` steps before the window (`auto`: until step times are steady);
    a measured window of about `window_s` seconds; `validation_batches` global batches of the validation split after
    it; and at most `deadline_s` seconds for a trial from its launch to its end.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 5
    warmup: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["auto"] = "auto"
    window_s: Annotated[PositiveFloat, Field(le=86_400)] = 2.0
    validation_batches: Annotated[int, Field(ge=1, le=100_000)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    deadline_s: Annotated[PositiveFloat, Field(le=604_800)] = 120.0


class Scenario(Spec):
    """Workloads × strategies × device counts, and how to measure them."""

    name: str
    description: str = ""
    workloads: dict[str, WorkloadSpec]
    strategies: tuple[StrategySpec, ...]
    devices: DevicesSpec = DevicesSpec()
    scaling: tuple[Scaling, ...] = ("strong",)
    measure: MeasureSpec = MeasureSpec()


def describe_options(values: dict[str, Any]) -> str:
    """`{"schedule": "gpipe", "micro_batches": 4}` as `(schedule=gpipe, micro_batches=4)`; nothing as nothing."""
    return f"({', '.join(f'{key}={value}' for key, value in values.items())})" if values else ""
