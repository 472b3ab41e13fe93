"""Two ranks: naive by hand with send and receive, all others by torch's schedules, with one or two stages a rank."""

import torch
from torch import distributed
from torch.distributed.pipelining import (
    PipelineStage,
    Schedule1F1B,
    ScheduleGPipe,
    ScheduleInterleaved1F1B,
    ScheduleInterleavedZeroBubble,
    ScheduleZBVZeroBubble,
)
from torch.distributed.pipelining.schedules import ScheduleDualPipeV

from tests.benchmarks.bare.models import GLOBAL_BATCH, LAYERS, LENGTH, WIDTH, Model, Setting, Step, adam, cross_entropy

MICRO_BATCHES = 4


def stage(setting: Setting) -> Model:
    each = LAYERS // setting.ranks
    return Model(setting.family, range(setting.rank * each, (setting.rank + 1) * each))


def naive(setting: Setting) -> Step:
    model = stage(setting)
    optimizer = adam(model.parameters())

    def first(tokens):
        hidden = model(tokens[:, :-1])
        distributed.send(hidden.detach(), 1)
        gradient = torch.empty_like(hidden)
        distributed.recv(gradient, 1)
        hidden.backward(gradient)

    def last(tokens):
        hidden = torch.empty(GLOBAL_BATCH, LENGTH, WIDTH, requires_grad=True)
        distributed.recv(hidden.detach(), 0)
        cross_entropy(model(hidden), tokens[:, 1:]).backward()
        distributed.send(hidden.grad, 0)

    def step(index):
        (last if setting.rank else first)(setting.batch(index, whole=True))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def scheduled(setting: Setting, schedule_class: type) -> Step:
    model = stage(setting)
    optimizer = adam(model.parameters())
    pipeline_stage = PipelineStage(model, setting.rank, setting.ranks, torch.device("cpu"))
    schedule = schedule_class(pipeline_stage, MICRO_BATCHES, loss_fn=cross_entropy)

    def step(index):
        tokens = setting.batch(index, whole=True)
        if setting.rank == 0:
            schedule.step(tokens[:, :-1])
        else:
            schedule.step(target=tokens[:, 1:], losses=[], return_outputs=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def in_two_stages(setting: Setting, schedule_class: type, numbers: tuple[int, int]) -> Step:
    """A block a stage; `numbers` are this rank's stages of the four."""
    stages, each = 2 * setting.ranks, LAYERS // (2 * setting.ranks)
    models = [Model(setting.family, range(number * each, (number + 1) * each)) for number in numbers]
    optimizer = adam([parameter for model in models for parameter in model.parameters()])
    made = [
        PipelineStage(model, number, stages, torch.device("cpu")) for model, number in zip(models, numbers, strict=True)
    ]
    schedule = schedule_class(made, MICRO_BATCHES, loss_fn=cross_entropy)

    def step(index):
        tokens = setting.batch(index, whole=True)
        inputs = (tokens[:, :-1],) if 0 in numbers else ()
        targets = {"target": tokens[:, 1:], "losses": []} if stages - 1 in numbers else {}
        schedule.step(*inputs, **targets, return_outputs=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def interleaved_1f1b(setting: Setting) -> Step:
    return in_two_stages(setting, ScheduleInterleaved1F1B, (setting.rank, setting.rank + setting.ranks))


def interleaved_zero_bubble(setting: Setting) -> Step:
    return in_two_stages(setting, ScheduleInterleavedZeroBubble, (setting.rank, setting.rank + setting.ranks))


def zbv(setting: Setting) -> Step:
    return in_two_stages(setting, ScheduleZBVZeroBubble, (setting.rank, 2 * setting.ranks - 1 - setting.rank))


def dualpipev(setting: Setting) -> Step:
    return in_two_stages(setting, ScheduleDualPipeV, (setting.rank, 2 * setting.ranks - 1 - setting.rank))


def gpipe(setting: Setting) -> Step:
    return scheduled(setting, ScheduleGPipe)


def one_forward_one_backward(setting: Setting) -> Step:
    return scheduled(setting, Schedule1F1B)
