"""What the profiler's events mean, told by made-up events; and by real ones on this machine."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from parbench.measure.account.marks import marked
from parbench.measure.account.trace import read_trace
from parbench.strategies.base import StepPart


def event(name, start, end, *, thread=1, device="CPU", correlation=0, annotation=False, hidden=False):
    values = {
        "name": name,
        "start_ns": start,
        "duration_ns": end - start,
        "start_thread_id": thread,
        "correlation_id": correlation,
        "device_type": SimpleNamespace(name=device),
        "is_user_annotation": annotation,
        "is_hidden_event": hidden,
    }
    return SimpleNamespace(**{key: lambda value=value: value for key, value in values.items()})


def test_events_are_sorted_by_what_they_mean() -> None:
    trace = read_trace(
        [
            event("parbench::step", 0, 100, annotation=True),
            event("parbench::forward", 0, 40, annotation=True),
            event("parbench::forward", 0, 99, thread=2, annotation=True),
            event("parbench::wait", 60, 70, annotation=True),
            event("aten::mm", 5, 20),
            event("aten::mm", 10, 30, thread=2),
            event("[memory]", 5, 90),
            event("Optimizer.step#Adam.step", 80, 95, annotation=True),
            event("autograd::engine::evaluate_function: MmBackward0", 40, 50),
            event("c10d::allreduce_", 55, 58),
            event("c10d::allreduce_", 55, 80, thread=2),
            event("gloo:all_reduce", 55, 69),
            event("## Call CompiledFxGraph abc ##", 71, 75, annotation=True),
        ]
    )
    assert trace.steps == [(0, 100)]
    assert trace.marks == {"forward": [(0, 40)]}
    assert trace.operators == [(5, 30), (71, 75)]
    assert trace.nodes == [(40, 50)]
    assert trace.waits == [(55, 58), (60, 70)]
    assert trace.exchanges == {"all_reduce": [(55, 69)]}


def test_kernels_are_told_from_exchanges_and_from_names() -> None:
    trace = read_trace(
        [
            event("parbench::step", 0, 10, annotation=True),
            event("cudaLaunchKernel", 2, 3, correlation=7),
            event("nccl:all_reduce", 4, 5),
            event("sgemm", 8, 20, device="CUDA", correlation=7),
            event("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)", 9, 30, device="CUDA"),
            event("ncclDevKernel_SendRecv(ncclDevKernelArgsStorage<4096ul>)", 31, 35, device="CUDA"),
            event("nccl:all_reduce", 9, 30, device="CUDA", annotation=True),
            event("parbench::step", 8, 40, device="CUDA", annotation=True),
        ]
    )
    assert trace.kernels == [((8, 20), 2)]
    assert trace.exchanges == {"all_reduce": [(9, 30)], "send_recv": [(31, 35)]}
    assert not trace.operators


def test_marks_are_there_while_steps_are_watched_and_at_no_other_time() -> None:
    class Model(nn.Module):
        def forward(self, tokens):
            return tokens @ tokens

    model, before = Model(), torch.autograd.backward
    with marked([StepPart(model, "forward", "forward")]):
        assert "forward" in vars(model)
        with profile(activities=[ProfilerActivity.CPU]) as profiler, record_function("parbench::step"):
            model(torch.ones(8, 8, requires_grad=True)).sum().backward()
    assert "forward" not in vars(model)
    assert torch.autograd.backward is before
    trace = read_trace(profiler.profiler.kineto_results.events())
    assert set(trace.marks) == {"forward", "backward"}
    assert trace.operators
    assert trace.nodes
    assert len(trace.steps) == 1


def test_marks_vanish_after_an_error() -> None:
    owner = SimpleNamespace(act=lambda: 1 / 0)
    before = owner.act
    with pytest.raises(ZeroDivisionError), marked([StepPart(owner, "act", "forward")]):
        owner.act()
    assert owner.act is before
