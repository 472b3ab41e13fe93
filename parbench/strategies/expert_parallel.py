"""Expert parallelism: every rank has a shard of the batch, and a part of each layer's experts."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Context, Layout, Strategy, refuse, require_equal_parts
from parbench.strategies.ddp import DDPOptions, wrap_in_ddp
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.distributed.device_mesh import DeviceMesh

    from parbench.data.batches import Batch
    from parbench.models.base import ExpertPlan
    from parbench.models.nn.language_model import PartHook
    from parbench.training.expert_exchange import ExpertGradients
    from parbench.training.workload import Workload


class ExpertParallelOptions(Options):
    """`replicas` is how many times the experts are there: N devices are so many groups, over each of which they spread.

    With one, tokens may go to any device; with N, no token leaves its device, and it is data parallelism.
    """

    replicas: PositiveInt = 1


class ExpertParallel(Strategy[ExpertParallelOptions]):
    """Tokens go to the devices that hold their experts and back, all to all; all other layers are replicas, as in ddp.

    Method: Lepikhin et al. 2020, "GShard"; Fedus et al. 2022, "Switch Transformers".
    """

    name = "expert_parallel"
    options_type = ExpertParallelOptions
    imports = ("parbench.training.expert_exchange",)
    gradients: "ExpertGradients | None" = None
    """What averages the gradients of experts; None where none are spread, or trained."""

    @classmethod
    def layout(cls, options: ExpertParallelOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a data shard for each device; a group of neighbours holds all experts."""
        plan, degree = require_experts(options, workload, devices.count), devices.count // options.replicas
        refuse(workload, compile="torch.compile has not been shown to compile blocks that exchange tokens within")
        require_equal_parts(workload, devices.count, "data shards")
        return Layout(
            processes=devices.count,
            data_shards=devices.count,
            note=f"{plan.experts // degree} of {plan.experts} experts each" if degree > 1 else "",
            traffic_varies=degree > 1 and workload.model.changing_sizes(workload.phase) is not None,
        )

    @classmethod
    def pieces(
        cls,
        options: ExpertParallelOptions,
        workload: WorkloadSpec,
        layout: Layout,
        rank: int,
        outline: Sequence[Outline],
    ) -> list[Piece]:
        """An equal part of each layer's experts, and all of each other parameter."""
        plan = require_experts(options, workload, layout.processes)
        degree = layout.processes // options.replicas
        own = [each.cut(0, degree) if _is_of_experts(each, plan) else each for each in outline]
        return super().pieces(options, workload, layout, rank, own)

    def setup(self, workload: "Workload", job: int, context: Context) -> None:
        """Keeps of each block's experts this rank's part as soon as the block is built."""
        self.workload = workload
        replicas, degree = self.options.replicas, context.ranks // self.options.replicas
        mesh = None
        if degree > 1:
            from parbench.training.mesh import mesh_of

            mesh = mesh_of(context.group, context.devices[0].type, replica=replicas, expert=degree)
        self.model = workload.model(
            job,
            split=None if mesh is None else make_spreader(workload, mesh),
            wrap=partial(self._average, context=context, mesh=mesh) if workload.trains and context.ranks > 1 else None,
        )
        if workload.trains:
            self.updates = workload.updates(self.model.parameters(), job, group=context.group)

    def accumulate(self, batch: "Batch") -> "Tensor":
        """As every strategy does it; experts' gradients are averaged meanwhile."""
        loss = super().accumulate(batch)
        if self.gradients is not None:
            self.gradients.finish()
        return loss

    @contextmanager
    def part_of_step(self, *, last: bool) -> Iterator[None]:
        """Gradients are averaged in the last part only."""
        from torch.nn.parallel import DistributedDataParallel

        replicated = self.model if isinstance(self.model, DistributedDataParallel) else None
        if self.gradients is not None:
            self.gradients.exchanging = last
        with replicated.no_sync() if replicated and not last else nullcontext():
            yield

    def _average(self, model: "nn.Module", context: Context, mesh: "DeviceMesh | None") -> "nn.Module":
        """The model in DDP, which leaves the experts alone where they are spread: their ranks hold different ones."""
        from torch.nn.parallel import DistributedDataParallel

        from parbench.training.expert_exchange import ExpertGradients, SpreadExperts

        spread = [module for module in model.modules() if isinstance(module, SpreadExperts)]
        experts = {id(parameter) for module in spread for parameter in module.parameters()}
        of_experts = {name: each for name, each in model.named_parameters() if id(each) in experts}
        if mesh is not None:
            self.gradients = ExpertGradients(of_experts.values(), mesh["replica"].get_group(), context.ranks)
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, list(of_experts))
        return wrap_in_ddp(model, context.devices[0], DDPOptions(), process_group=context.group)


def require_experts(options: ExpertParallelOptions, workload: WorkloadSpec, devices: int) -> "ExpertPlan":
    """The family's plan. Raises `Unsupported` where there are no experts to spread, or not equally."""
    family, replicas = workload.model, options.replicas
    plan = family.expert_plan()
    if plan is None:
        raise Unsupported(f"model family {family.kind} has no experts to spread")
    if devices % replicas:
        raise Unsupported(f"{replicas} replicas need a multiple of {replicas} devices, not {devices}")
    if plan.experts % (devices // replicas):
        raise Unsupported(
            f"{plan.experts} experts do not divide over {devices // replicas} devices; set replicas so that they do"
        )
    return plan


def make_spreader(workload: "Workload", mesh: "DeviceMesh") -> "PartHook":
    """A hook that leaves of each block's experts this rank's part, and has tokens go to the others."""
    from parbench.models.nn.experts import Experts
    from parbench.training.expert_exchange import SpreadExperts

    plan, group = workload.family.expert_plan(), mesh["expert"].get_group()

    def spread(part: "nn.Module", name: str) -> None:
        if name == "block" and plan is not None:
            experts = part.get_submodule(plan.path)
            if not isinstance(experts, Experts):
                raise TypeError(f"{plan.path} of a block is no Experts, but {type(experts).__name__}")
            part.set_submodule(plan.path, SpreadExperts(experts, group))

    return spread


def _is_of_experts(parameter: Outline, plan: "ExpertPlan") -> bool:
    """Whether a parameter, such as `blocks.3.mlp.experts.up`, is one of the experts."""
    part, _, path = parameter.name.partition(".")
    return part == "blocks" and path.partition(".")[2].startswith(f"{plan.path}.")
