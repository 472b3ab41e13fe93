"""The algorithm of `nn.DataParallel` with a thread for each core, which that class does not do on CPU."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import torch

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy


class Replicas:
    """A model and its copies, each with a thread on a core of its own; this thread shares the first core."""

    def __init__(self, setting: Setting) -> None:
        cores = sorted(os.sched_getaffinity(0))

        def pin(core):
            os.sched_setaffinity(0, [core])
            torch.set_num_threads(1)

        self.pools = [ThreadPoolExecutor(1, initializer=pin, initargs=(core,)) for core in cores]
        pin(cores[0])
        self.root = Model(setting.family)
        self.modules = [self.root, *(copy.deepcopy(self.root) for _ in cores[1:])]
        self.parameters = [list(module.parameters()) for module in self.modules]

    def apart(self, function, *arguments):
        futures = [pool.submit(function, *each) for pool, *each in zip(self.pools, *arguments, strict=True)]
        return [future.result() for future in futures]

    def forward(self, tokens, run):
        with torch.no_grad():
            for others in self.parameters[1:]:
                torch._foreach_copy_(others, self.parameters[0])
        return self.apart(run, self.modules, tokens[:, :-1].chunk(len(self.modules)))


def train(setting: Setting) -> Step:
    replicas = Replicas(setting)
    parameters, optimizer = replicas.parameters, adam(replicas.root.parameters())

    def step(index):
        tokens = setting.batch(index, whole=True)
        outputs = replicas.forward(tokens, lambda module, part: module(part))
        logits = torch.cat([output.detach() for output in outputs]).requires_grad_()
        cross_entropy(logits, tokens[:, 1:]).backward()
        gradients = replicas.apart(torch.autograd.grad, outputs, parameters, logits.grad.chunk(len(outputs)))
        for others in gradients[1:]:
            torch._foreach_add_(gradients[0], others)
        for parameter, gradient in zip(parameters[0], gradients[0], strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def score(setting: Setting) -> Step:
    replicas = Replicas(setting)

    @torch.inference_mode()
    def run(module, part):
        return module(part)

    @torch.inference_mode()
    def step(index):
        tokens = setting.batch(index, whole=True)
        return cross_entropy(torch.cat(replicas.forward(tokens, run)), tokens[:, 1:])

    return step
