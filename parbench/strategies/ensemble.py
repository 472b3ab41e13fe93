"""An ensemble: each device trains several independent models as one, with stacked parameters and vectorised steps."""

import copy
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, refuse, require_equal_parts
from parbench.system.devices import Devices

if TYPE_CHECKING:
    from torch import Tensor, nn

    from parbench.data.batches import Batch
    from parbench.training.workload import Workload


class EnsembleOptions(Options):
    """`models_per_device` are stacked where the workload leaves the number of models open (`models: auto`)."""

    models_per_device: PositiveInt = 4


class Ensemble(Strategy[EnsembleOptions]):
    """Each device trains its share of the models in the same operations (`torch.vmap` over stacked parameters)."""

    name = "ensemble"
    phases = ("train", "score")
    options_type = EnsembleOptions
    imports = ("torch.func",)

    @classmethod
    def layout(cls, options: EnsembleOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a lane for each device, with equally many models stacked in each."""
        family = workload.model
        if not family.stacks:
            raise Unsupported(f"models of family {family.kind} have not been shown to run stacked, under torch.vmap")
        refuse(
            workload,
            compile="torch.compile cannot compile torch.vmap over functional calls",
            activation_checkpointing="activations under torch.vmap cannot be checkpointed",
            loss_chunks="loss_chunks takes gradients within the forward pass, which torch.vmap cannot",
        )
        require_equal_parts(workload, 1, "batches")
        if workload.optimizer.lr_per_model:
            raise Unsupported("stacked models share one optimizer; leave lr_per_model out")
        if workload.length_per_model:
            raise Unsupported("stacked models take their steps together; leave length_per_model out")
        models = workload.models if workload.models != "auto" else options.models_per_device * devices.count
        if models % devices.count:
            raise Unsupported(f"{models} models do not divide into {devices.count} equal stacks")
        return Layout(processes=devices.count, lanes=devices.count, stacked=models // devices.count)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Builds models `job`, `job + 1`, … and stacks them."""
        self.workload = workload
        self.model = stack_models([workload.model(job + index) for index in range(context.stacked)])
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job)

    def loss(self, batch: "Batch") -> "Tensor":
        """The mean loss of each model (models); the batch is (models, sequences, seq_len)."""
        inputs, targets = add_model_dimension(batch)
        losses: Tensor = self.model(inputs, targets)
        return losses

    def accumulate(self, batch: "Batch") -> "Tensor":
        """One backward pass from the sum of the losses: each model's gradients are its own."""
        count = self.workload.spec.gradient_accumulation
        chunks = (tokens.chunk(count, dim=1) for tokens in add_model_dimension(batch))
        parts = [type(batch)(*part) for part in zip(*chunks, strict=True)]
        total: Tensor | None = None
        for part in parts:
            losses = self.loss(part) / count
            self.updates.scaled(losses.sum()).backward()
            total = losses.detach() if total is None else total + losses.detach()
        if total is None:
            raise RuntimeError("a step has at least one part")
        return total


def add_model_dimension(batch: "Batch") -> "Batch":
    """The batch as (models, sequences, seq_len), also where there is only one model."""
    return batch if batch.inputs.dim() == 3 else type(batch)(*(tokens.unsqueeze(0) for tokens in batch))


def stack_models(models: "list[nn.Module]") -> "nn.Module":
    """One module with the parameters of all `models`, stacked. It computes the loss of each model (models)."""
    import torch
    from torch import Tensor, nn

    from parbench.models.nn.attention import Attention
    from parbench.models.nn.folding import attend_folded
    from parbench.training.loss import next_token_loss

    skeleton = copy.deepcopy(models[0]).to("meta")
    for module in skeleton.modules():
        if isinstance(module, Attention):
            module.attend = attend_folded
    parameters, buffers = torch.func.stack_module_state(models)

    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor, targets: Tensor) -> Tensor:
        logits = torch.func.functional_call(skeleton, (parameters, buffers), (inputs,))
        return next_token_loss(logits, targets)

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # torch allows no dots in a parameter's own name.
            self.names = {name.replace(".", "/"): name for name in parameters}
            for safe, name in self.names.items():
                self.register_parameter(safe, nn.Parameter(parameters[name].detach()))

        def forward(self, inputs: Tensor, targets: Tensor) -> Tensor:
            own: dict[str, Tensor] = {name: self.get_parameter(safe) for safe, name in self.names.items()}
            losses: Tensor = torch.vmap(loss)(own, buffers, inputs, targets)
            return losses

    return Stack()
