"""The algorithm of `nn.DataParallel` with a thread for each core, which that class does not do on CPU."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import torch

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy


def build(setting: Setting) -> Step:
    cores = sorted(os.sched_getaffinity(0))

    def pin(core):
        os.sched_setaffinity(0, [core])
        torch.set_num_threads(1)

    pools = [ThreadPoolExecutor(1, initializer=pin, initargs=(core,)) for core in cores]
    pin(cores[0])
    root = Model(setting.family)
    replicas = [root, *(copy.deepcopy(root) for _ in cores[1:])]
    parameters = [list(replica.parameters()) for replica in replicas]
    optimizer = adam(root.parameters())

    def apart(function, *arguments):
        futures = [pool.submit(function, *each) for pool, *each in zip(pools, *arguments, strict=True)]
        return [future.result() for future in futures]

    def step(index):
        tokens = setting.batch(index, whole=True)
        with torch.no_grad():
            for others in parameters[1:]:
                torch._foreach_copy_(others, parameters[0])
        outputs = apart(lambda replica, part: replica(part), replicas, tokens[:, :-1].chunk(len(cores)))
        logits = torch.cat([output.detach() for output in outputs]).requires_grad_()
        cross_entropy(logits, tokens[:, 1:]).backward()
        gradients = apart(torch.autograd.grad, outputs, parameters, logits.grad.chunk(len(cores)))
        for others in gradients[1:]:
            torch._foreach_add_(gradients[0], others)
        for parameter, gradient in zip(parameters[0], gradients[0], strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
