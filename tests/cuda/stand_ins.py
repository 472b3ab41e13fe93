"""Stand-ins for what `torch.cuda` asks of a driver, and for CUDA's choice of kernels. To be imported after the shim."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from parbench.models.nn import kernels

DEVICES = 8
PROPERTIES = SimpleNamespace(
    name="NVIDIA H100 80GB HBM3", total_memory=80 * 2**30, major=9, minor=0, multi_processor_count=132, uuid="fake"
)


class Stream:
    """A stream on which nothing runs."""

    device = torch.device("cuda", 0)
    device_index = stream_id = cuda_stream = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what `torch.cuda.Stream` takes."""

    def nothing(self, *_: Any) -> None:
        """Nothing has to be waited for."""

    wait_stream = wait_event = synchronize = nothing
    query = staticmethod(lambda: True)
    record_event = staticmethod(lambda event=None: event or Event())


class Event(Stream):
    """A moment at which nothing happens."""

    record = wait = Stream.nothing
    elapsed_time = staticmethod(lambda _: 1.0)


CUDA: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "is_bf16_supported": lambda *_, **__: True,
    "is_current_stream_capturing": lambda: False,
    "device_count": lambda: DEVICES,
    "current_device": torch._C._accelerator_getDeviceIndex,
    "set_device": lambda device: torch._C._accelerator_setDeviceIndex(torch.device(device).index),
    "get_device_properties": lambda *_: PROPERTIES,
    "get_device_capability": lambda *_: (9, 0),
    "get_device_name": lambda *_: PROPERTIES.name,
    "synchronize": lambda *_: None,
    "current_stream": lambda *_: Stream(),
    "default_stream": lambda *_: Stream(),
    "stream": lambda _: nullcontext(),
    "Stream": Stream,
    "Event": Event,
    "_lazy_init": lambda: None,
    "empty_cache": lambda: None,
    "reset_peak_memory_stats": lambda *_: None,
    "max_memory_allocated": lambda *_: 0,
    "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
    "set_rng_state": lambda *_: None,
    "manual_seed": lambda _: None,
    "manual_seed_all": lambda _: None,
}


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Tensor:
    """The kernels that CUDA chooses, by name: without a device, torch would choose the one that writes scores out."""
    if enable_gqa:
        assert query.dtype != torch.float32, "no fused fp32 kernel shares heads"
        groups = query.shape[1] // key.shape[1]
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    if attn_mask is not None:
        # A mask goes to this kernel in any precision, as what is added to the scores.
        shape = (*query.shape[:3], key.shape[2])
        added = torch.zeros(shape, dtype=query.dtype, device=query.device).masked_fill(~attn_mask, float("-inf"))
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, added, False)[0]
    if query.dtype == torch.float32:
        with_sums = query.requires_grad or key.requires_grad or value.requires_grad
        return torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, with_sums, 0.0, is_causal
        )[0]
    return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, is_causal)[0]


def stand_in_for_cuda(patch: Any) -> None:
    """Eight devices on which fake tensors can be. `patch` sets attributes, as pytest's `monkeypatch` does."""
    for name, stand_in in CUDA.items():
        patch.setattr(torch.cuda, name, stand_in)
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(Tensor, "pin_memory", lambda tensor, *_: tensor)
    patch.setattr(Tensor, "is_pinned", lambda *_: True)
    patch.setattr(Tensor, "record_stream", lambda *_: None)
    patch.setattr(kernels, "scaled_dot_product_attention", attend)
    # It asks for the versions of CUDA and NCCL that torch was built with.
    patch.setattr(DistributedDataParallel, "_check_comm_hook", lambda *_: None)
