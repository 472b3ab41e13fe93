"""A workload as a rank runs it: models, batches, optimizers and the loss. A `job` is the number of a model."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from parbench.base_types import Precision
from parbench.data.batches import Batch, Batches
from parbench.models.base import Family
from parbench.models.nn.language_model import PartHook
from parbench.models.stages import Stage
from parbench.models.whole import WholeFamily
from parbench.records.corpus import Corpus
from parbench.scenario.specs import WorkloadSpec
from parbench.training.build import build_model
from parbench.training.holdings import Outline
from parbench.training.loss import chunked_loss, next_token_loss, whole_loss
from parbench.training.parallelize import Wrap, parallelize
from parbench.training.shares import Shares
from parbench.training.updates import Updates

AUTOCAST: dict[Precision, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""The type that matrix products are computed in; in fp32 and TF32 nothing is cast."""


class Workload:
    """`models` independent language models of one family, trained on one corpus; each has seeds of its own."""

    def __init__(self, spec: WorkloadSpec, corpus: Corpus, *, seed: int, device: torch.device) -> None:
        self.spec = spec
        self.corpus = corpus
        self.seed = seed
        self.device = device
        self.family.load()
        self._compiled_loss = torch.compile(next_token_loss, dynamic=False) if spec.compile else next_token_loss

    def varied(self, **changes: Any) -> "Workload":
        """The same models and data, with some fields of the workload changed."""
        return Workload(self.spec.model_copy(update=changes), self.corpus, seed=self.seed, device=self.device)

    @property
    def family(self) -> Family:
        """The model family with its sizes."""
        return self.spec.model

    @property
    def trains(self) -> bool:
        """Whether there are gradients and an optimizer."""
        return self.spec.phase == "train"

    def model(
        self,
        job: int,
        stage: Stage | None = None,
        *,
        split: PartHook | None = None,
        shard: PartHook | None = None,
        wrap: Wrap | None = None,
    ) -> nn.Module:
        """Model number `job` on this rank's device: whole, or one stage of it.

        `split`, `shard` and `wrap` are what a strategy does to it; `parallelize` says in which order.
        """
        build = partial(
            build_model,
            self.family,
            vocab_size=self.spec.vocab_size,
            seq_len=self.spec.seq_len,
            seed=f"{self.seed}/{job}",
            blocks=None if stage is None else stage.blocks,
            ends=None if stage is None else (stage.embed, stage.head),
        )
        dtype = AUTOCAST.get(self.spec.precision)
        return parallelize(
            lambda hook: build(on_part=hook),
            device=self.device,
            compiled=self.spec.compile,
            checkpointing=self.spec.activation_checkpointing,
            autocast=dtype,
            # Code of a user's model may read its weights itself, in the type that they were made in.
            cast=None if self.trains or isinstance(self.family, WholeFamily) else dtype,
            split=split,
            shard=shard,
            wrap=wrap,
        )

    def outline(self) -> list[Outline] | None:
        """The parameters of a whole model, which is built without memory; None where the family's code needs memory."""
        meta = torch.device("meta")
        imagined = Workload(self.spec, self.corpus, seed=self.seed, device=meta)
        try:
            with meta:
                parameters = list(imagined.model(0).named_parameters())
        except Exception:  # noqa: BLE001 - code that users bring may do anything with tensors that have no values
            return None
        return [
            Outline(name, tuple(parameter.shape), parameter.element_size(), parameter.requires_grad)
            for name, parameter in parameters
        ]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """`next_token_loss`, compiled where the workload is: in 16 bits no fp32 logits are ever written then."""
        loss = next_token_loss if isinstance(logits, DTensor) else self._compiled_loss
        return loss(logits, targets)

    def loss_of(self, model: nn.Module, batch: Batch) -> Tensor:
        """The loss of a whole model on a batch, by chunks of its tokens where the workload asks for them.

        What its blocks add to it has its gradients in it, and does not show in its value: it matters in training alone.
        """
        chunks = self.spec.loss_chunks
        if chunks == 1 and not (self.trains and self.family.auxiliary_loss):
            return self.loss(model(batch.inputs), batch.targets)
        of_head: Callable[..., Tensor] = partial(chunked_loss, chunks=chunks) if chunks > 1 else whole_loss
        return cast("Tensor", model(batch.inputs, loss=partial(of_head, targets=batch.targets, loss=self.loss)))

    def batches(self, job: int) -> Batches:
        """The batches of model number `job`, on this rank's device."""
        return Batches(
            self.corpus,
            seq_len=self.spec.seq_len,
            global_batch=self.spec.global_batch,
            seed=f"{self.seed}/{job}",
            device=self.device,
        )

    def updates(
        self, parameters: Iterable[nn.Parameter], job: int, *, group: ProcessGroup | None = None, **changes: Any
    ) -> Updates:
        """The optimizer of model number `job`, with its loss scale. `group` are the ranks that each hold a part of it.

        `changes` are arguments of the optimizer beyond the workload's; those that are None are left out.
        """
        optimizer, arguments = self.optimizer_class(job)
        shares = Shares(parameters)
        changes = {name: value for name, value in changes.items() if value is not None}
        return self.updates_with(optimizer(shares.parameters, **arguments, **changes), shares=shares, group=group)

    def updates_with(
        self, optimizer: Optimizer, *, shares: Shares | None = None, group: ProcessGroup | None = None
    ) -> Updates:
        """As `updates`, with an optimizer that a strategy has made itself; it steps `shares` if there are any."""
        scaled_on = self.device if self.spec.precision == "fp16" else None
        return Updates(optimizer, shares=shares, scaled_on=scaled_on, group=group)

    def optimizer_class(self, job: int) -> tuple[type[Optimizer], dict[str, Any]]:
        """The class of that optimizer, in its fused form, and its arguments besides the parameters."""
        spec = self.spec.optimizer
        arguments = {"lr": spec.lr_of(job), "weight_decay": spec.weight_decay, "fused": True}
        match spec.name:
            case "sgd":
                return SGD, {**arguments, "momentum": spec.momentum}
            case "adam":
                return Adam, arguments
            case "adamw":
                return AdamW, arguments
