"""Replicas that score or generate: they never speak, so one device and several run the same script."""

import torch

from tests.benchmarks.bare.models import LENGTH, PROMPT, Cache, Model, Setting, Step, cross_entropy


def score(setting: Setting) -> Step:
    model = Model(setting.family).eval()

    @torch.inference_mode()
    def step(index):
        tokens = setting.batch(index)
        return cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])

    return step


def generate(setting: Setting) -> Step:
    model = Model(setting.family).eval()

    @torch.inference_mode()
    def step(index):
        tokens, start = setting.batch(index)[:, :PROMPT], 0
        caches, generated = [Cache() for _ in model.blocks], []
        for _ in range(LENGTH - PROMPT):
            logits = model.onward(tokens, caches, start)
            start += tokens.shape[1]
            tokens = logits.argmax(-1)
            generated.append(tokens)
        return torch.cat(generated, 1)

    return step
