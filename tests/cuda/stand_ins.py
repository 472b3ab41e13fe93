"""Stand-ins for what `torch.cuda` and process groups ask of a driver. To be imported once the shim is loaded."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import wraps
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import schedules
from torch.distributed.pipelining.stage import InferenceMode
from torch.distributed.tensor import debug
from torch.futures import Future
from torch.nn.parallel import distributed as ddp

from parbench.models.nn import attention, folding
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies import hybrid
from parbench.training import pipeline
from parbench.training.workload import AUTOCAST

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


_TrueReducer = distributed.Reducer


class Reducer:
    """DDP's reducer, but for the exchange in which ranks agree on new buckets: fake ranks say nothing."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        self._reducer = _TrueReducer(*arguments, **keywords)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reducer, name)

    def _rebuild_buckets(self) -> bool:
        return False

    def set_logger(self, _: Any) -> None:
        """The logger is silent."""


class Silent:
    """Takes any call."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes what a logger takes."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


def exchange(_: Any, bucket: distributed.GradBucket) -> Future[Tensor]:
    """A communication hook that gives a bucket to the fake group, which hands nothing back."""
    distributed.all_reduce(bucket.buffer())
    done: Future[Tensor] = Future()
    done.set_result(bucket.buffer())
    return done


def with_exchange(set_up: Any) -> Any:
    """DDP's constructor, after which gradients go through `exchange`."""

    def set_up_with_exchange(self: Any, *arguments: Any, **keywords: Any) -> None:
        set_up(self, *arguments, **keywords)
        self.register_comm_hook(None, exchange)

    return set_up_with_exchange


def replace_parameters(module: nn.Module, change: Any, recurse: bool = True) -> nn.Module:
    """As `Module._apply`: fake parameters cannot be moved in place, so they are replaced, shared ones together."""
    memo: dict[int, Any] = {}

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


def with_real_tensors(function: Any) -> Any:
    """The function as it runs outside of the mode: meshes read the numbers of ranks back from their tensors."""

    @wraps(function)
    def call(*arguments: Any, **keywords: Any) -> Any:
        with unset_fake_temporarily():
            return function(*arguments, **keywords)

    return call


def give_shapes(patch: Any, spec: WorkloadSpec, shards: int) -> None:
    """Tells pipeline stages the shapes that they would learn from each other's messages."""
    chosen = {"micro_batches": 1}
    set_up = pipeline.Pipeline.__init__

    def set_up_shaped(self: Any, *arguments: Any, **keywords: Any) -> None:
        chosen["micro_batches"] = keywords["micro_batches"]
        set_up(self, *arguments, **keywords)

    class Stage(pipeline.PipelineStage):
        def __init__(self, module: Any, index: int, stages: int, device: torch.device, group: Any) -> None:
            shape = (spec.global_batch // spec.gradient_accumulation // shards // chosen["micro_batches"], spec.seq_len)
            hidden = torch.zeros(*shape, spec.model.d_model, device=device, requires_grad=True)
            tokens = torch.zeros(shape, dtype=torch.int64, device=device)
            logits = torch.zeros(
                *shape, spec.vocab_size, device=device, dtype=AUTOCAST.get(spec.precision, torch.float32)
            )
            super().__init__(
                module,
                index,
                stages,
                device,
                input_args=hidden if index else tokens,
                output_args=logits.requires_grad_() if index == stages - 1 else hidden,
                group=group,
            )

    def be_static(_: Any, stages: Any, *__: Any) -> None:
        for stage in stages:
            stage._inference_mode = InferenceMode.STATIC

    patch.setattr(pipeline.Pipeline, "__init__", set_up_shaped)
    patch.setattr(pipeline, "PipelineStage", Stage)
    patch.setattr(schedules._PipelineSchedule, "_warmup_p2p", be_static)


@contextmanager
def fake_cuda(patch: Any) -> Iterator[FakeTensorMode]:
    """Fake tensors on eight devices. `patch` sets attributes, as pytest's `monkeypatch` does."""
    for name in ("__init__", "__getitem__", "from_group", "get_group", "get_local_rank", "get_coordinate"):
        patch.setattr(DeviceMesh, name, with_real_tensors(getattr(DeviceMesh, name)))
    for name, stand_in in CUDA.items():
        patch.setattr(torch.cuda, name, stand_in)
    patch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
    patch.setattr(Tensor, "pin_memory", lambda tensor, *_: tensor)
    patch.setattr(Tensor, "record_stream", lambda *_: None)
    patch.setattr(nn.Module, "_apply", replace_parameters)
    patch.setattr(FakeTensorMode, "__deepcopy__", lambda mode, _: mode, raising=False)
    patch.setattr(attention, "scaled_dot_product_attention", attend)
    patch.setattr(folding, "scaled_dot_product_attention", attend)
    patch.setattr(ddp.dist, "Reducer", Reducer, raising=False)
    patch.setattr(ddp.dist, "Logger", Silent, raising=False)
    patch.setattr(ddp.DistributedDataParallel, "__init__", with_exchange(ddp.DistributedDataParallel.__init__))
    patch.setattr(ddp, "_verify_param_shape_across_processes", lambda *_: None)
    patch.setattr(ddp, "_sync_module_states", lambda *_, **__: None)
    patch.setattr(hybrid, "init_mesh", with_real_tensors(hybrid.init_mesh.__wrapped__))
    # What was worked out for one rank names its device.
    FakeTensorMode.cache_clear()
    debug._clear_sharding_prop_cache()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        yield mode
