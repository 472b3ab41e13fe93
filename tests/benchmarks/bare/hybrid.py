"""Two stages of two ranks each: their tensors split under an attention model, their replicas averaged under an LSTM."""

from contextlib import nullcontext

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B
from torch.distributed.tensor.parallel import loss_parallel
from torch.nn.parallel import DistributedDataParallel

from tests.benchmarks.bare.model_parallel import MICRO_BATCHES, relay_scores
from tests.benchmarks.bare.models import LAYERS, Model, Setting, Step, adam, cross_entropy
from tests.benchmarks.bare.tensor_parallel import adam_of, over_split_logits, split

STAGES = 2


class Place:
    """A rank's stage of the model, its pipeline, and its part of the batch."""

    def __init__(self, setting: Setting) -> None:
        self.is_split = setting.family != "lstm"
        # The more two ranks speak, the closer they are: data, pipeline, tensor.
        names = ("pipeline", "tensor") if self.is_split else ("data", "pipeline")
        self.mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=names)
        self.number = self.mesh.get_local_rank("pipeline")
        each = LAYERS // STAGES
        self.model = Model(setting.family, range(self.number * each, (self.number + 1) * each))
        if self.is_split:
            split(self.model, self.mesh["tensor"])
            self.data = Setting(setting.family, setting.tokens)
        else:
            self.data = Setting(setting.family, setting.tokens, self.mesh.get_local_rank("data"), 2)
        self.group = self.mesh.get_group("pipeline")


def train(setting: Setting) -> Step:
    place = Place(setting)
    if place.is_split:
        model, optimizer, context = place.model, adam_of(place.model), loss_parallel
    else:
        group = place.mesh.get_group("data")
        model = DistributedDataParallel(place.model, process_group=group, gradient_as_bucket_view=True)
        optimizer, context = adam(model.parameters()), nullcontext
    stage = PipelineStage(model, place.number, STAGES, torch.device("cpu"), group=place.group)
    schedule = Schedule1F1B(stage, MICRO_BATCHES, loss_fn=loss)

    def step(index):
        tokens = place.data.batch(index)
        with context():
            if place.number == 0:
                schedule.step(tokens[:, :-1])
            else:
                schedule.step(target=tokens[:, 1:], losses=[], return_outputs=False)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def loss(logits, targets):
    value = cross_entropy(logits, targets)
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def score(setting: Setting) -> Step:
    place = Place(setting)
    mode = over_split_logits if place.is_split else torch.inference_mode
    return relay_scores(place.model.eval(), place.data, place.number, place.group, mode)
