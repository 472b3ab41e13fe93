"""Fake tensors, which have shapes and no data, where torch or a model would need data.

What they cost is a few milliseconds an operation; what they take of memory is a few bytes each.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed import device_mesh
from torch.distributed.tensor import debug

from parbench.measure.rehearsal.replacing import replaced, wrapped
from parbench.models.nn import kernels

F = TypeVar("F", bound=Callable[..., Any])

MESHES = ("__init__", "__getitem__", "from_group", "get_group", "get_local_rank", "get_coordinate")
"""The methods of a mesh that read numbers of ranks back from its tensors."""


@contextmanager
def fake_tensors(device: torch.device) -> Iterator[FakeTensorMode]:
    """All tensors are fake while the block runs; those of a model go to `device`, which need not be there."""
    with ExitStack() as stack:
        for name in MESHES:
            stack.enter_context(wrapped(device_mesh.DeviceMesh, name, _with_real_tensors))
        stack.enter_context(wrapped(device_mesh, "init_device_mesh", _with_real_tensors))
        stack.enter_context(replaced(nn.Module, "_apply", _replace_parameters))
        # A copied model belongs to the same mode as the model.
        stack.enter_context(replaced(FakeTensorMode, "__deepcopy__", lambda mode, _: mode))
        if device.type == "cpu":
            stack.enter_context(replaced(kernels, "scaled_dot_product_attention", _attend_on_cpu))
        stack.enter_context(warnings.catch_warnings())
        # A copied tensor is asked whether it has data.
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        stack.callback(_forget)
        _forget()
        yield stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))


def _forget() -> None:
    """Clears what torch has worked out for the tensors of one mode, which names their device, and keeps for others."""
    FakeTensorMode.cache_clear()
    debug._clear_sharding_prop_cache()


def _with_real_tensors(function: F) -> F:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **named)

    return call  # type: ignore[return-value]


def _replace_parameters(module: nn.Module, change: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """As `Module._apply`: fake parameters cannot be moved in place, so they are replaced, shared ones together."""
    memo: dict[int, nn.Parameter] = {}

    def changed(parameter: nn.Parameter) -> nn.Parameter:
        if id(parameter) not in memo:
            with torch.no_grad():
                memo[id(parameter)] = nn.Parameter(change(parameter.detach()), parameter.requires_grad)
        return memo[id(parameter)]

    for part in module.modules() if recurse else [module]:
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = changed(parameter)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = change(buffer)
    return module


def _attend_on_cpu(
    query: Tensor, key: Tensor, value: Tensor, *, is_causal: bool = False, enable_gqa: bool = False
) -> Tensor:
    """CPUs' fused kernel, by name: for fake tensors torch chooses the one that writes all scores out."""
    if enable_gqa:
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    attended: Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, is_causal)[0]
    return attended
