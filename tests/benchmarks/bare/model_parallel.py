"""Two stages: naive and inference by hand with send and receive, all else by torch's schedules.

A rank has one stage, or two of four.
"""

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

from tests.benchmarks.bare.models import (
    GLOBAL_BATCH,
    LAYERS,
    LENGTH,
    PROMPT,
    WIDTH,
    Cache,
    Model,
    Setting,
    Step,
    adam,
    cross_entropy,
)

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


def train(setting: Setting) -> Step:
    return scheduled(setting, Schedule1F1B)


def score(setting: Setting) -> Step:
    everything = Setting(setting.family, setting.tokens)
    return relay_scores(stage(setting).eval(), everything, setting.rank, None, torch.inference_mode)


def relay_scores(model: Model, setting: Setting, number: int, group, mode) -> Step:
    """Micro-batches go through stage `number` of two in a group; the last one computes the loss."""

    def first(parts):
        sent = []
        for part in parts:
            hidden = model(part[:, :-1])
            sent.append((distributed.isend(hidden, group=group, group_dst=1), hidden))
        for work, _ in sent:
            work.wait()

    def last(parts):
        losses = []
        for part in parts:
            hidden = torch.empty(len(part), LENGTH, WIDTH)
            distributed.recv(hidden, group=group, group_src=0)
            losses.append(cross_entropy(model(hidden), part[:, 1:]))
        return sum(losses) / len(losses)

    def step(index):
        with mode():
            return (last if number else first)(setting.batch(index).chunk(MICRO_BATCHES))

    return step


def generate(setting: Setting) -> Step:
    """The next token of a micro-batch starts when its last one has come back from the second stage."""
    model = stage(setting).eval()
    work_on = last_stage if setting.rank else first_stage

    @torch.inference_mode()
    def step(index):
        prompts = setting.batch(index, whole=True)[:, :PROMPT].chunk(MICRO_BATCHES)
        caches, sent, tokens = [[Cache() for _ in model.blocks] for _ in prompts], [], []
        for start in [0, *range(PROMPT, LENGTH - 1)]:
            for number, prompt in enumerate(prompts):
                tokens += work_on(model, prompt, caches[number], start, sent)
        for work, _ in sent:
            work.wait()
        return torch.cat(tokens) if tokens else None

    return step


def first_stage(model, prompt, caches, start, sent):
    tokens = prompt
    if start:
        tokens = torch.empty(len(prompt), 1, dtype=torch.int64)
        distributed.recv(tokens, 1)
    hidden = model(tokens, caches, start)
    sent.append((distributed.isend(hidden, 1), hidden))
    return []


def last_stage(model, prompt, caches, start, sent):
    hidden = torch.empty(len(prompt), 1 if start else PROMPT, WIDTH)
    distributed.recv(hidden, 0)
    token = model(hidden, caches).argmax(-1)
    if start < LENGTH - 2:
        sent.append((distributed.isend(token, 0), token))
    return [token]
