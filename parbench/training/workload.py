"""A workload as a rank runs it: models, batches, optimizers and the loss, each by the number of the model (the job)."""

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, Adam, AdamW, Optimizer

from parbench.scenario import WorkloadSpec
from parbench.training.batches import Batches
from parbench.training.model import LanguageModel, build_model
from parbench.workloads.base import Family
from parbench.workloads.corpus import Corpus


class Workload:
    """`models` independent language models of one family, trained on one corpus; each has seeds of its own."""

    def __init__(self, spec: WorkloadSpec, corpus: Corpus, *, seed: int, device: torch.device) -> None:
        self.spec = spec
        self.corpus = corpus
        self.seed = seed
        self.device = device

    @property
    def family(self) -> Family:
        """The model family with its sizes."""
        return cast("Family", self.spec.model)

    def model(self, job: int, blocks: range | None = None) -> LanguageModel:
        """Model number `job` on this rank's device: whole, or the stage of it that holds `blocks`."""
        sizes = {"vocab_size": self.corpus.vocab_size, "seq_len": self.spec.seq_len}
        return build_model(self.family, **sizes, seed=f"{self.seed}/{job}", blocks=blocks).to(self.device)

    def batches(self, job: int) -> Batches:
        """The batches of model number `job`, on this rank's device."""
        return Batches(
            self.corpus,
            seq_len=self.spec.seq_len,
            global_batch=self.spec.global_batch,
            seed=f"{self.seed}/{job}",
            device=self.device,
        )

    def optimizer(self, parameters: Iterable[nn.Parameter], job: int) -> Optimizer:
        """The optimizer of model number `job`, in its fused form."""
        spec, parameters = self.spec.optimizer, list(parameters)
        lr, decay = spec.lr_of(job), spec.weight_decay
        match spec.name:
            case "sgd":
                return SGD(parameters, lr=lr, momentum=spec.momentum, weight_decay=decay, fused=True)
            case "adam":
                return Adam(parameters, lr=lr, weight_decay=decay, fused=True)
            case "adamw":
                return AdamW(parameters, lr=lr, weight_decay=decay, fused=True)


def next_token_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy in nats per token; logits (batch, seq_len, vocab_size), targets (batch, seq_len)."""
    return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
