"""Megatron's columns and rows by `parallelize_module`, and a loss over logits that stay split."""

from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, loss_parallel, parallelize_module

from tests.benchmarks.bare.models import Model, Setting, Step, adam, cross_entropy


def build(setting: Setting) -> Step:
    model, mesh = Model(setting.family), init_device_mesh("cpu", (setting.ranks,))
    columns, rows = ("qkv", "up"), ("out", "down")
    for block in model.blocks:
        # With random weights, any third of a device's rows may be its queries.
        block.width, block.heads = block.width // setting.ranks, block.heads // setting.ranks
        plan = {name: ColwiseParallel() for name in columns} | {name: RowwiseParallel() for name in rows}
        parallelize_module(block, mesh, plan)
    parallelize_module(model.head, mesh, ColwiseParallel(output_layouts=Shard(-1), use_local_output=False))
    parameters = list(model.parameters())
    # A fused step takes split and whole tensors apart.
    groups = [[each for each in parameters if isinstance(each, DTensor) == split] for split in (True, False)]
    optimizer = adam([{"params": group} for group in groups])

    def step(index):
        tokens = setting.batch(index, whole=True)
        with loss_parallel():
            cross_entropy(model(tokens[:, :-1]), tokens[:, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
