"""The models of a scenario: workloads, strategies, devices, and how cells are measured and checked. Without torch."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SerializeAsAny, model_validator
from pydantic_core import CoreSchema, PydanticKnownError, core_schema

from parbench.base_types import CompileCache, DeviceKind, MallocPolicy, Phase, Precision, Scaling, Spec
from parbench.data.sources import DataSpec, StandardLibraryText
from parbench.figures.definitions import gated_figures
from parbench.models.base import Family
from parbench.models.checkpointing import Checkpointing
from parbench.scenario.exclude import Rule
from parbench.scenario.fields import Expect, OneOrMany, OrEmpty, OrWord

MAX_NAME = 100


MAX_TEXT = 10_000


MAX_CURRENCY = 10


Text = Annotated[str, Field(max_length=MAX_TEXT), Expect(f"must be text of at most {MAX_TEXT:,} characters")]


class _MetricChoice:
    """Makes pydantic take the name of a figure that `check` compares, and nothing else, as it does for a `Literal`."""

    def __get_pydantic_core_schema__(self, *_: object) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._checked)

    def __get_pydantic_json_schema__(self, *_: object) -> dict[str, Any]:
        return {"enum": list(gated_figures()), "type": "string"}

    @staticmethod
    def _checked(name: object) -> str:
        metrics = list(gated_figures())
        if isinstance(name, str) and name in metrics:
            return name
        *first, last = map(repr, metrics)
        raise PydanticKnownError("literal_error", {"expected": f"{', '.join(first)} or {last}"})


MetricName = Annotated[str, _MetricChoice()]
"""The name of a figure that `check` compares."""


class Options(Spec):
    """A strategy's options. Strategies subclass it.

    `later_options` are those that older versions lack, which measured as their defaults say: cells that have these keep
    their keys.
    """

    later_options: ClassVar[frozenset[str]] = frozenset()


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


class WorkloadSettings(Spec):
    """A workload without its model. `seq_len` is in tokens, `global_batch` in sequences.

    A `precision` below fp32 is mixed: matrix products use it, while parameters and their updates stay in fp32. In phase
    `generate` a sequence is a prompt followed by `new_tokens` (half of `seq_len` if left out), which are decoded
    greedily. `length_per_model` gives relative numbers of steps, so that some models train longer than others.
    With `activation_checkpointing` the backward pass computes activations again instead of keeping them: those of all
    blocks (`full`), of every so many blocks (`every`), or all but the results of matrix products (`selective`). With
    `offloaded`, the rest that is kept waits in the host's memory.
    `loss_chunks` is the number of parts of a rank's tokens whose logits and loss are computed one after another.
    """

    data: DataSpec = StandardLibraryText()
    seq_len: Annotated[int, Field(ge=1, le=1_000_000)] = 64
    global_batch: Annotated[int, Field(ge=1, le=10_000_000)] = 32
    models: PositiveInt | Literal["auto"] = "auto"
    length_per_model: Annotated[tuple[PositiveFloat, ...], Field(strict=False)] | None = None
    optimizer: OptimizerSpec = OptimizerSpec()
    precision: Precision = "fp32"
    phase: Phase = "train"
    new_tokens: PositiveInt | None = None
    compile: bool = False
    activation_checkpointing: Annotated[
        Checkpointing,
        OrWord(none=False, full=True),
        Expect("must be none, full, selective, offloaded, or a mapping such as {every: 2}", whole=True),
    ] = False
    gradient_accumulation: PositiveInt = 1
    loss_chunks: PositiveInt = 1

    @model_validator(mode="after")
    def _one_value_a_model(self) -> Self:
        for name, values in (
            ("optimizer.lr_per_model", self.optimizer.lr_per_model),
            ("length_per_model", self.length_per_model),
        ):
            if values is not None and len(values) != self.models:
                raise ValueError(f"{name} has {len(values)} values, so models must be {len(values)}")
        return self

    @model_validator(mode="after")
    def _only_training_has_a_backward_pass(self) -> Self:
        if self.phase != "train" and (self.activation_checkpointing or self.gradient_accumulation > 1):
            raise ValueError(
                f"activation_checkpointing and gradient_accumulation are for phase train, not {self.phase}"
            )
        return self

    @model_validator(mode="after")
    def _a_sequence_is_prompt_and_new_tokens(self) -> Self:
        if self.phase != "generate":
            if self.new_tokens is not None:
                raise ValueError(f"new_tokens is for phase generate, not {self.phase}")
        elif self.seq_len < 2 or (self.new_tokens is not None and self.new_tokens >= self.seq_len):
            raise ValueError(f"seq_len {self.seq_len} must be longer than new_tokens: a prompt comes first")
        elif self.compile:
            raise ValueError("compile is for phases train and score: a cache grows with every token that is generated")
        elif self.loss_chunks > 1:
            raise ValueError("loss_chunks is for phases train and score: what is generated has no loss")
        return self

    @property
    def generated(self) -> int:
        """The number of tokens that follow a prompt in phase `generate`."""
        return self.new_tokens or self.seq_len // 2


class WorkloadSpec(WorkloadSettings):
    """What is trained or run: a model on data."""

    model: SerializeAsAny[Family]

    @model_validator(mode="after")
    def _the_model_knows_every_token(self) -> Self:
        vocab_size = self.model.vocab_size
        if vocab_size is not None and vocab_size < self.data.vocab_size:
            raise ValueError(f"model.vocab_size {vocab_size} is less than the data's {self.data.vocab_size:,} tokens")
        return self

    @property
    def vocab_size(self) -> int:
        """The size of the model's vocabulary: its own, or else the data's."""
        return self.model.vocab_size or self.data.vocab_size


class StrategySpec(Spec):
    """A strategy's name in the registry, its options, and the label by which its variants differ."""

    name: str
    options: SerializeAsAny[Options]
    label: str


class Section(Spec):
    """A part of a scenario that is the same for all its cells, so that no list in it makes a matrix."""


class DevicesSpec(Section):
    """What the work is spread over.

    `auto` counts are 1, 2, 4, … up to what the machine has. On CPU a device is `cores_per_device` physical cores. With
    `oversubscribe`, more devices than there are share what there is, and every result says so: cores, and GPUs where
    `kind: cuda` names them. Ranks that share a GPU exchange through the host, by gloo. With `kind: auto`, counts that
    the machine does not have are skipped, as long as it has one of them.
    """

    kind: Literal["auto", "cpu", "cuda"] = "auto"
    counts: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1), OneOrMany(int)] | Literal["auto"] = (
        "auto"
    )
    cores_per_device: PositiveInt = 1
    oversubscribe: bool = False

    def may_share(self, kind: DeviceKind) -> bool:
        """Whether devices of this kind may be more than there are: a GPU is shared only where the kind is written."""
        return self.oversubscribe and kind in ("cpu", self.kind)


class CostSpec(Section):
    """What a device costs in an hour, in any currency, for the cost of a million tokens. It changes no measurement.

    On CPU a device is `devices.cores_per_device` cores. `currency` is written beside the cost as it stands here.
    """

    per_device_hour: Annotated[PositiveFloat, Expect("must be a price above zero, such as 2.50")]
    currency: Annotated[
        str, Field(max_length=MAX_CURRENCY), Expect(f"must be a currency's name of at most {MAX_CURRENCY} characters")
    ] = ""


class MeasureSpec(Section):
    """How cells are measured.

    `rounds` fresh launches of every cell, and in each round `base_launches` of the one on one device that ratios are
    over (`auto`: about the square root of the number of cells that are compared with it); `warmup` steps before the
    window (`auto`: until step times are steady); a measured window of about `window_s` seconds; `validation_batches`
    global batches of the validation split after it; and at most `deadline_s` seconds for a trial from its launch to its
    end. What was computed in the first `verify_steps` steps of a trial, warm-up and window, is compared with the
    reference step by step. `malloc: trim` has freed blocks of 4 MiB and more return to the system at once, in every
    rank; `default` leaves that to the C library. With `compile_cache: fresh` torch.compile finds nothing of an earlier
    trial on the disk; with `kept`, it finds all that it has compiled for this user. With `account`, some steps after
    the window are watched, to tell where their time goes; with `trace`, all events of these steps are kept for
    `parbench trace`. With `explain`, every round also launches what tells why cells on several devices are not as many
    times as fast as one: one device with the batch that each of them computes, and as many independent copies of that
    at once.
    """

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 5
    base_launches: Annotated[int, Field(ge=1, le=100)] | Literal["auto"] = "auto"
    warmup: Annotated[int, Field(ge=0, le=1_000_000)] | Literal["auto"] = "auto"
    window_s: Annotated[PositiveFloat, Field(le=86_400)] = 2.0
    validation_batches: Annotated[int, Field(ge=1, le=100_000)] = 2
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    deadline_s: Annotated[PositiveFloat, Field(le=604_800)] = 120.0
    verify_steps: Annotated[int, Field(ge=5, le=100_000)] = 200
    malloc: MallocPolicy = "default"
    account: bool = True
    trace: bool = False
    explain: bool = False
    compile_cache: CompileCache = "fresh"


LEAST_MARGINS: dict[MetricName, float] = {"tokens_per_s": 0.05}
"""Of metrics that vary more than others, unless the scenario names a margin for them."""


class CheckSpec(Section):
    """What `parbench check` calls worse. Shares of one: 0.05 is five per cent.

    Metrics in `gate` decide; a change within `margin` (or the metric's own in `margins`) is no regression; that of
    `tokens_per_s`, which also sees slow steps beside fast ones and so varies more, is at least 0.05. From `sessions`
    stored sessions on, a new one is judged by the spread between them; as long as that is unknown, margins
    are at least `margin_few_sessions`. `alpha` is the family-wise share of false alarms, `min_effect` the worsening
    that should be found with probability `power`.
    """

    gate: Annotated[tuple[MetricName, ...], Field(strict=False, min_length=1)] = (
        "step_time_min_s",
        "relative_step_time",
        "tokens_per_s",
        "peak_memory_bytes",
        "parameters",
        "collectives",
        "communicated_bytes",
    )
    margin: Annotated[float, Field(ge=0, le=10)] = 0.02
    margins: dict[MetricName, Annotated[float, Field(ge=0, le=10)]] = {}  # noqa: RUF012 - pydantic copies it
    margin_few_sessions: Annotated[float, Field(ge=0, le=10)] = 0.05
    min_effect: Annotated[PositiveFloat, Field(le=10)] = 0.2
    alpha: Annotated[PositiveFloat, Field(lt=0.5)] = 0.05
    power: Annotated[float, Field(ge=0.5, lt=1)] = 0.8
    sessions: Annotated[int, Field(ge=3, le=1000)] = 10

    @model_validator(mode="after")
    def _effects_lie_beyond_margins(self) -> Self:
        largest = max(self.margin_few_sessions, *map(self.margin_of, self.gate))
        if largest >= self.min_effect:
            raise ValueError(f"min_effect {self.min_effect} must be larger than every margin, also {largest}")
        return self

    def margin_of(self, metric: MetricName) -> float:
        """The share by which a metric may worsen."""
        return self.margins.get(metric, max(self.margin, LEAST_MARGINS.get(metric, 0.0)))


class Scenario(Section):
    """Workloads × strategies × device counts, and how to measure them.

    Each rule of `exclude` leaves out the cells that have, in every field that it names, one of the values it lists.
    """

    name: Text
    description: Text = ""
    workloads: dict[str, WorkloadSpec]
    strategies: tuple[StrategySpec, ...]
    devices: Annotated[DevicesSpec, OrEmpty()] = DevicesSpec()
    scaling: Annotated[
        tuple[Scaling, ...],
        Field(strict=False, min_length=1),
        OneOrMany(str, distinct=True),
        Expect("must be strong, weak or [strong, weak]", whole=True),
    ] = ("strong",)
    exclude: Annotated[
        tuple[Rule, ...],
        Field(strict=False),
        Expect("must be a list of rules such as {strategy: ddp, devices: 4}"),
        OrEmpty(list),
    ] = ()
    measure: Annotated[MeasureSpec, OrEmpty()] = MeasureSpec()
    check: Annotated[CheckSpec, OrEmpty()] = CheckSpec()
    cost: CostSpec | None = None

    def resolved(self) -> dict[str, Any]:
        """The scenario with all defaults as plain data; of a strategy's options, only those that were written."""
        strategies = [
            {**each.model_dump(mode="json"), "options": each.options.model_dump(mode="json", exclude_unset=True)}
            for each in self.strategies
        ]
        return {**self.model_dump(mode="json"), "strategies": strategies}


def describe_options(values: dict[str, Any]) -> str:
    """Writes `{"schedule": "gpipe", "micro_batches": 4}` as `(schedule=gpipe, micro_batches=4)`; `{}` as nothing."""
    return f"({', '.join(f'{key}={value}' for key, value in values.items())})" if values else ""


def relabelled(label: str, values: dict[str, Any]) -> str:
    """A label with more options: `hybrid(schedule=gpipe)` and `{"data": 2}` give `hybrid(schedule=gpipe, data=2)`."""
    if not values:
        return label
    more = describe_options(values)
    return f"{label[:-1]}, {more[1:]}" if label.endswith(")") else label + more
