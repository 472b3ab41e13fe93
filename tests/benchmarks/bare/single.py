"""One device."""

from tests.benchmarks.bare.models import Model, Setting, Step, train


def build(setting: Setting) -> Step:
    return train(Model(setting.family), setting, whole=True)
