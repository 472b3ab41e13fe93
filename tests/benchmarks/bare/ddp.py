"""DistributedDataParallel with gradients that are views of its buckets."""

from torch.nn.parallel import DistributedDataParallel

from tests.benchmarks.bare.models import Model, Setting, Step, train


def build(setting: Setting) -> Step:
    model = DistributedDataParallel(Model(setting.family), gradient_as_bucket_view=True)
    return train(model, setting)
