"""ZeRO stage 1: replicas, each of which updates its share of the parameters and broadcasts it in one piece."""

from torch.nn.parallel import DistributedDataParallel
from torch.optim import Adam

from tests.benchmarks.bare.models import Model, Setting, Step, train


def build(setting: Setting) -> Step:
    # Importing it warns of what torch itself has deprecated, which a mere collection of tests must not meet.
    from torch.distributed.optim import ZeroRedundancyOptimizer

    model = DistributedDataParallel(Model(setting.family), gradient_as_bucket_view=True)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), Adam, parameters_as_bucket_view=True, lr=1e-3, fused=True)
    return train(model, setting, optimizer)
