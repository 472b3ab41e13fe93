"""torch's fused attention kernels: over all keys, or over some of them, with what puts such parts together again.

Queries, keys and values are (batch, heads, length, head size). Equal groups of heads may share keys and values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

Attend = Callable[..., Tensor]
"""Takes what `attend` takes."""

ALIGNMENT = 32
"""CUDA's fp32 kernel keeps the sums of a multiple of so many queries."""


def attend(query: Tensor, key: Tensor, value: Tensor, *, enable_gqa: bool = False, **limits: Any) -> Tensor:
    """`scaled_dot_product_attention`, in a fused kernel also where heads share keys and values."""
    if enable_gqa and query.is_cuda and query.dtype == torch.float32:
        # Only CUDA's 16-bit kernel shares heads by itself: in fp32 each score would be written out.
        key, value = (repeat_heads(part, query.shape[1]) for part in (key, value))
        enable_gqa = False
    return scaled_dot_product_attention(query, key, value, enable_gqa=enable_gqa, **limits)


def repeat_heads(part: Tensor, heads: int) -> Tensor:
    """Keys or values of `heads` heads, neighbours among them being equal."""
    return part if part.shape[1] == heads else part.repeat_interleave(heads // part.shape[1], dim=1)


class Mixture(NamedTuple):
    """What queries have mixed of the values of some keys, by the softmax of their scores over these keys.

    `values` is (batch, heads, length, head size). `log_sums` (batch, heads, length) is the logarithm of the sum of the
    scores' exponentials: how much these keys weigh beside others.
    """

    values: Tensor
    log_sums: Tensor

    def copied(self) -> "Mixture":
        """A copy in the type of the sums, which is not of 16 bits. A checkpoint may keep what the kernel gave."""
        return Mixture(self.values.to(self.log_sums.dtype, copy=True), self.log_sums.clone())

    def of(self, queries: slice) -> "Mixture":
        """That of some queries, in the same memory."""
        return Mixture(self.values[:, :, queries], self.log_sums[:, :, queries])

    def take_in(self, other: "Mixture") -> None:
        """Becomes that of its own and the other's keys, in place; the queries are the same."""
        weight = torch.sigmoid(other.log_sums - self.log_sums).unsqueeze(-1)
        self.values.lerp_(other.values.to(self.values.dtype), weight)
        self.log_sums.copy_(torch.logaddexp(self.log_sums, other.log_sums))


def mix(query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool) -> Mixture:
    """What queries mix of the values of these keys; with `is_causal`, each of its own key's and those before."""
    key, value = (repeat_heads(part, query.shape[1]) for part in (key, value))
    if not query.is_cuda:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        return Mixture(*kernel(query, key, value, 0.0, is_causal))
    if query.dtype == torch.float32:
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention
        values, log_sums, *_ = kernel(query, key, value, None, True, 0.0, is_causal)
        return Mixture(values, log_sums[..., : query.shape[2]])
    values, log_sums, *_ = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)
    return Mixture(values, log_sums)


def differentiate(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, whole: Mixture, *, is_causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What these keys add to the gradient of the queries; and the gradients of these keys and their values.

    `whole` is the mixture over all keys, and `gradient` that of its values. The kernels compute weights anew, as the
    exponentials of scores less `log_sums`: with those of all keys, the weights of a part are those that it has in all.
    """
    shared = key.shape[1]
    key, value = (repeat_heads(part, query.shape[1]) for part in (key, value))
    of_query, *of_pair = _call_backward_kernel(gradient, query, key, value, whole, is_causal)
    of_key, of_value = (
        part if part.shape[1] == shared else part.unflatten(1, (shared, -1)).sum(dim=2) for part in of_pair
    )
    return of_query, of_key, of_value


def _call_backward_kernel(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, whole: Mixture, is_causal: bool
) -> tuple[Tensor, ...]:
    inputs, (values, log_sums) = (gradient, query, key, value), whole
    gradients: tuple[Tensor, ...]
    if not query.is_cuda:
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
        gradients = kernel(*inputs, values, log_sums, 0.0, is_causal)
        return gradients
    # CUDA's kernels read sums without asking how they lie, and states of random numbers for dropout alone.
    log_sums, length = log_sums.contiguous(), query.shape[2]
    if query.dtype == torch.float32:
        kernel = torch.ops.aten._scaled_dot_product_efficient_attention_backward
        log_sums, state = pad(log_sums, (0, -length % ALIGNMENT)), query.new_zeros((), dtype=torch.int64)
        which = [True, True, True, False]
        gradients = kernel(*inputs, None, values, log_sums, state, state, 0.0, which, is_causal)
        return gradients[:3]
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_backward
    seed, offset = (query.new_zeros(shape, dtype=torch.uint64) for shape in ((2,), ()))
    gradients = kernel(*inputs, values, log_sums, None, None, length, key.shape[2], 0.0, is_causal, seed, offset)
    return gradients
