"""One device."""

from tests.benchmarks.bare.inference import generating, scoring
from tests.benchmarks.bare.models import Model, Setting, Step, training


def train(setting: Setting) -> Step:
    return training(Model(setting.family), setting, whole=True)


def score(setting: Setting) -> Step:
    return scoring(Model(setting.family), setting, whole=True)


def generate(setting: Setting) -> Step:
    return generating(Model(setting.family), setting, whole=True)
