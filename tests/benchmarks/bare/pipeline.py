"""Two stages: naive by hand with send and receive, GPipe and 1F1B by torch's schedules."""

import torch
from torch import distributed
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

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


def gpipe(setting: Setting) -> Step:
    return scheduled(setting, ScheduleGPipe)


def one_forward_one_backward(setting: Setting) -> Step:
    return scheduled(setting, Schedule1F1B)
