"""Every rank by itself, and torch's periodic average of the parameters."""

from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy

PERIOD = 8


def train(setting: Setting) -> Step:
    model = Model(setting.family)
    optimizer, parameters = adam(model.parameters()), list(model.parameters())
    averager = PeriodicModelAverager(period=PERIOD, warmup_steps=0)

    def step(index):
        tokens = setting.batch(index)
        # Here and not at the end: parameters without gradients are not averaged.
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()
        averager.average_parameters(parameters)

    return step
