"""Losses of held-out text, without a step: of this rank's shards, and of a batch that all ranks share."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from parbench.base_types import Phase
from parbench.data.batches import Batch, Batches, StackedBatches
from parbench.measure.failures import finite
from parbench.scenario.specs import Options
from parbench.strategies.base import Layout, Strategy


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What a rank validates: its `shard` of `count` batches."""

    phase: Phase
    layout: Layout
    shard: int
    count: int

    def mean_losses(self, strategy: Strategy[Options], batches: Batches | StackedBatches) -> list[float] | None:
        """The mean loss of each stacked model; None where this rank has none, and where text is generated."""
        if self.phase == "generate":
            return None
        mine = (batches.validation(index, self.shard, self.layout.data_shards) for index in range(self.count))
        losses = [loss for loss in _evaluate(strategy, mine) if loss is not None]
        return finite(torch.stack(losses).mean(dim=0), "the validation loss") if losses else None

    def shared_loss(self, strategy: Strategy[Options], batches: Batches | StackedBatches) -> float | None:
        """The loss of the same batch in every rank, whatever its shard: replicas that agree have the same."""
        if self.layout.data_shards == 1 or self.phase != "train":
            return None
        loss = _evaluate(strategy, [batches.validation(0, 0, self.layout.data_shards)])[0]
        return None if loss is None else float(loss.mean())


def _evaluate(strategy: Strategy[Options], batches: Iterable[Batch]) -> list[Tensor | None]:
    trained = strategy.model.training
    strategy.model.eval()
    with torch.no_grad():
        losses = [strategy.evaluate(batch) for batch in batches]
    # Steps may follow, and cuDNN's recurrent layers have no backward pass unless they train.
    strategy.model.train(trained)
    return losses
