"""Every rank by itself, and torch's periodic average of the parameters."""

from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager

from tests.benchmarks.bare.models import Model, Setting, Step, train

PERIOD = 8


def build(setting: Setting) -> Step:
    model = Model(setting.family)
    averager, alone = PeriodicModelAverager(period=PERIOD, warmup_steps=0), train(model, setting)

    def step(index):
        alone(index)
        averager.average_parameters(model.parameters())

    return step
