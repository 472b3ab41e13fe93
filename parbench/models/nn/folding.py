"""Attention of several models at once, for `torch.vmap`: the models become more sequences of one batch."""

from typing import Any

import torch
from torch import Tensor

from parbench.models.nn.kernels import attend


class _Folded(torch.autograd.Function):
    """Runs below `torch.vmap`, where tensors say whether they need gradients.

    Under it none says so, and then CUDA's memory-efficient kernel leaves out the sums that the backward pass reads; and
    CPUs' kernel has no batching rule, so it would run model by model.
    """

    @staticmethod
    def forward(query: Tensor, key: Tensor, value: Tensor, is_causal: bool, enable_gqa: bool) -> Tensor:
        return attend(query, key, value, is_causal=is_causal, enable_gqa=enable_gqa)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keeps nothing: below `torch.vmap`, autograd follows the operations themselves."""

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Any) -> tuple[Tensor, int]:
        models: int = info.batch_size
        is_causal, enable_gqa = inputs[3:]
        query, key, value = (_fold(part, dim, models) for part, dim in zip(inputs[:3], in_dims[:3], strict=True))
        mixed = attend(query, key, value, is_causal=is_causal, enable_gqa=enable_gqa)
        return mixed.unflatten(0, (models, -1)), 0


def attend_folded(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool, enable_gqa: bool) -> Tensor:
    """`attend` for use under `torch.vmap`, in one kernel for all models.

    Shapes are those of one model: (batch, heads, length, head size).
    """
    mixed: Tensor = _Folded.apply(query, key, value, is_causal, enable_gqa)  # type: ignore[no-untyped-call]
    return mixed


def _fold(part: Tensor, dim: int | None, models: int) -> Tensor:
    stacked = part.expand(models, *part.shape) if dim is None else part.movedim(dim, 0)
    return stacked.flatten(0, 1)
