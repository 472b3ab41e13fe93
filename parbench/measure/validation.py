"""The loss on held-out text, without a step: of a rank's own shards, and of one batch that all ranks share."""

from collections.abc import Iterable

import torch
from torch import Tensor

from parbench.data.batches import Batch, Batches, StackedBatches
from parbench.measure.failures import require_finite
from parbench.measure.team import Role
from parbench.scenario.specs import Options
from parbench.strategies.base import Strategy


def compute_mean_losses(
    role: Role, strategy: Strategy[Options], batches: Batches | StackedBatches
) -> list[float] | None:
    """The mean validation loss of each stacked model, in nats per token, over this rank's shard of every batch.

    None where this rank computes no loss, and where text is generated. Raises `FloatingPointError` where a loss is NaN
    or infinite.
    """
    if role.spec.phase == "generate":
        return None
    shards = role.layout.data_shards
    own = (batches.validation(index, role.shard, shards) for index in range(role.assignment.validation_batches))
    losses = [loss for loss in _evaluate(strategy, own) if loss is not None]
    return require_finite(torch.stack(losses).mean(dim=0), "the validation loss") if losses else None


def compute_shared_loss(role: Role, strategy: Strategy[Options], batches: Batches | StackedBatches) -> float | None:
    """The loss of a batch that every rank evaluates, whatever its shard: replicas that agree have the same loss.

    None where there is one data shard, or nothing is trained.
    """
    shards = role.layout.data_shards
    if shards == 1 or role.spec.phase != "train":
        return None
    loss = _evaluate(strategy, [batches.validation(0, 0, shards)])[0]
    return None if loss is None else float(loss.mean())


def _evaluate(strategy: Strategy[Options], batches: Iterable[Batch]) -> list[Tensor | None]:
    was_training = strategy.model.training
    strategy.model.eval()
    with torch.no_grad():
        losses = [strategy.evaluate(batch) for batch in batches]
    # Steps may follow, and cuDNN's recurrent layers have no backward pass in evaluation mode.
    strategy.model.train(was_training)
    return losses
