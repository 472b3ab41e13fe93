"""DistributedDataParallel with gradients that are views of its buckets; for inference, replicas that never speak."""

from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam

from tests.benchmarks.bare.inference import generating, scoring
from tests.benchmarks.bare.models import Model, Setting, Step, training


def train(setting: Setting) -> Step:
    return training(DistributedDataParallel(Model(setting.family), gradient_as_bucket_view=True), setting)


def zero1(setting: Setting) -> Step:
    """Each rank updates its share of the parameters and broadcasts it in one piece (ZeRO stage 1)."""
    # Importing it warns of what torch itself has deprecated, which a mere collection of tests must not meet.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(Model(setting.family), gradient_as_bucket_view=True)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), Adam, parameters_as_bucket_view=True, lr=1e-3, fused=True)
    return training(model, setting, optimizer)


def score(setting: Setting) -> Step:
    return scoring(Model(setting.family), setting)


def generate(setting: Setting) -> Step:
    return generating(Model(setting.family), setting)
