"""The counter of collectives against torch's profiler, on gloo: two ways to see the same calls."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.profiler import ProfilerActivity, profile

from parbench.measure.probes.traffic import count_calls, sum_up

BYTES = {"double": 8, "long int": 8, "float": 4, "int": 4, "c10::Half": 2, "c10::BFloat16": 2}
Step = Callable[[int], None]


def profile_traffic(step: Step, steps: range) -> tuple[float, float]:
    """Calls and bytes given in a step, as the profiler sees them; it cannot tell what NCCL's are given."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for index in steps:
            step(index)
    calls = [each for each in profiled.profiler.kineto_results.events() if each.name().startswith("gloo:")]
    sizes = [
        sum(math.prod(shape) * BYTES.get(kind, 1) for shape, kind in zip(each.shapes(), each.dtypes(), strict=True))
        for each in calls
        if each.name() not in ("gloo:recv", "gloo:recvAnySource")
    ]
    return len(calls) / len(steps), sum(sizes) / len(steps)


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8))


def training(run: nn.Module) -> Step:
    def step(_: int) -> None:
        run(torch.ones(4, 8)).sum().backward()

    return step


def ddp(_: DeviceMesh) -> Step:
    return training(nn.parallel.DistributedDataParallel(model(), bucket_cap_mb=0.0001))


def fsdp(mesh: DeviceMesh) -> Step:
    whole = model()
    for part in whole:
        fully_shard(part, mesh=mesh)
    fully_shard(whole, mesh=mesh)
    return training(whole)


def tensor_parallel(mesh: DeviceMesh) -> Step:
    whole = model()
    return training(parallelize_module(whole, mesh, {"0": ColwiseParallel(), "1": RowwiseParallel()}))


def point_to_point(_: DeviceMesh) -> Step:
    def step(_: int) -> None:
        other = 1 - distributed.get_rank()
        sent, received = torch.ones(3, dtype=torch.bfloat16), torch.empty(3, dtype=torch.bfloat16)
        ops = [distributed.P2POp(distributed.isend, sent, other), distributed.P2POp(distributed.irecv, received, other)]
        for work in distributed.batch_isend_irecv(ops):
            work.wait()

    return step


EXACT = {
    # Weights and biases of both layers, in fp32.
    "ddp": 4 * (8 * 16 + 16 + 16 * 8 + 8),
    # A row-wise layer sums its output once; nothing is needed for the gradient of an input that is no parameter.
    "tensor_parallel": 4 * 4 * 8,
    "point_to_point": 3 * 2,
}


def work(rank: int, folder: Path, makers: list[Callable[[DeviceMesh], Step]]) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    lines = []
    for make in makers:
        step = make(mesh)
        step(0)
        step(1)  # DDP rebuilds its buckets after the first step
        ours, theirs = sum_up(count_calls(step, range(2)), 2), profile_traffic(step, range(2))
        lines.append(f"{make.__name__} {ours.calls} {ours.given_bytes} {theirs[0]} {theirs[1]}")
    (folder / f"{rank}.txt").write_text("\n".join(lines))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[float]]:
    folder = tmp_path_factory.mktemp("ranks")
    makers: Any = [ddp, fsdp, tensor_parallel, point_to_point]
    multiprocessing.spawn(work, (folder, makers), nprocs=2)
    lines = [line.split() for rank in range(2) for line in (folder / f"{rank}.txt").read_text().splitlines()]
    assert lines[: len(makers)] == lines[len(makers) :]
    return {name: list(map(float, numbers)) for name, *numbers in lines}


@pytest.mark.parametrize("name", ["ddp", "fsdp", "tensor_parallel", "point_to_point"])
def test_the_counter_sees_what_the_profiler_sees(counted, name) -> None:
    calls, given, profiled_calls, profiled_bytes = counted[name]
    assert (calls, given) == (profiled_calls, profiled_bytes)
    assert calls > 0
    assert given == EXACT.get(name, given)
