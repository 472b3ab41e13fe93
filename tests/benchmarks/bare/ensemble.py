"""Several models as one: stacked parameters, `torch.vmap` over a functional call."""

import copy

import torch
from torch.func import functional_call, stack_module_state

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy

MODELS = 4


def stacked(setting: Setting):
    """The parameters of all models, and what gives the loss of each, from its parameters and tokens."""
    models = [Model(setting.family) for _ in range(MODELS)]
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")

    def loss(parameters, buffers, tokens):
        return cross_entropy(functional_call(skeleton, (parameters, buffers), tokens[:, :-1]), tokens[:, 1:])

    losses = torch.vmap(loss)
    return parameters, lambda tokens: losses(parameters, buffers, tokens)


def batches(setting: Setting, index: int):
    """Each model has batches of its own."""
    return torch.stack([setting.batch(index * MODELS + number, whole=True) for number in range(MODELS)])


def train(setting: Setting) -> Step:
    parameters, losses = stacked(setting)
    optimizer = adam(parameters.values())

    def step(index):
        losses(batches(setting, index)).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def score(setting: Setting) -> Step:
    _, losses = stacked(setting)

    @torch.inference_mode()
    def step(index):
        return losses(batches(setting, index))

    return step
