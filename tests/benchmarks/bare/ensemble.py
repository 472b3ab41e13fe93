"""Several models as one: stacked parameters, `torch.vmap` over a functional call."""

import copy

import torch
from torch.func import functional_call, stack_module_state

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy

MODELS = 4


def build(setting: Setting) -> Step:
    models = [Model(setting.family) for _ in range(MODELS)]
    parameters, buffers = stack_module_state(models)
    skeleton = copy.deepcopy(models[0]).to("meta")
    optimizer = adam(parameters.values())

    def loss(parameters, buffers, tokens):
        return cross_entropy(functional_call(skeleton, (parameters, buffers), tokens[:, :-1]), tokens[:, 1:])

    losses = torch.vmap(loss)

    def step(index):
        # Each model has batches of its own.
        tokens = torch.stack([setting.batch(index * MODELS + number, whole=True) for number in range(MODELS)])
        losses(parameters, buffers, tokens).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
