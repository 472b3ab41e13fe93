"""What a rank gives to process groups in one training step, by kind, worked out from architecture and strategy alone.

Nothing here looks at what is counted. Bytes are those of the tensors that a rank passes to collectives and sends; room
for what it receives counts as a call without bytes.
"""

import math
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from parbench.measure.probes.traffic import Exchange
from parbench.models.checkpointing import is_checkpointed
from parbench.plan.cells import Cell
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.base import Layout
from parbench.strategies.fsdp import FSDPOptions
from parbench.strategies.model_parallel import plan_stages
from tests.support.parameters import Model, Part, model_of

FP32 = 4
"""Bytes of a number. Parameters, norms, sums and hidden states are in fp32 in every precision."""
PRODUCTS = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number that comes out of a matrix product, by precision."""
TYPES = {"none": 4, "fp32": 4, "bf16": 2, "fp16": 2}
"""Bytes of a number, by the name that options have for its type."""


class Traffic(dict[str, Exchange]):
    """Exchanges by kind, which add up kind by kind."""

    def __add__(self, other: "Traffic") -> "Traffic":
        added = Traffic(self)
        for kind, (calls, given_bytes) in other.items():
            before = added.get(kind, Exchange(0, 0))
            added[kind] = Exchange(before.calls + calls, before.given_bytes + given_bytes)
        return added

    def __rmul__(self, count: int) -> "Traffic":
        return Traffic({kind: Exchange(count * calls, count * given) for kind, (calls, given) in self.items() if count})


NOTHING = Traffic()


def call(kind: str, given_bytes: int) -> Traffic:
    """One call."""
    return Traffic({kind: Exchange(1, given_bytes)})


def total(parts: Iterable[Traffic]) -> Traffic:
    """All of them together."""
    return sum(parts, NOTHING)


def traffic_of(cell: Cell, rank: int) -> Traffic:
    """What a rank of the cell exchanges in its second step."""
    formula: Callable[[WorkloadSpec, Any, Layout, int], Traffic] = FORMULAS[cell.strategy.name]
    return formula(cell.workload, cell.strategy.options, cell.layout, rank)


def of_strangers(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Models on their own exchange nothing."""
    return NOTHING


def of_overflow(spec: WorkloadSpec, layout: Layout) -> Traffic:
    """In fp16, ranks that hold parts of one model tell each other of an overflow: a flag in fp32."""
    return call("all_reduce", FP32) if spec.precision == "fp16" and layout.processes > 1 else NOTHING


def of_ddp(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Every gradient is summed once. With a sharded optimizer each rank then sends its share of the parameters to all.

    Until the reducer has seen in which order gradients come it has one bucket, and here it is kept from learning that.
    """
    parameters = model_of(spec).size
    gradients = call("all_reduce", TYPES[options.communication_hook] * parameters)
    if not options.shard_optimizer or layout.processes == 1:
        return gradients
    return gradients + Traffic(broadcast=Exchange(layout.processes, FP32 * parameters))


def of_fsdp(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Shards of everything, gathered block by block within a replica, and gradients that are summed over replicas."""
    model, shards = model_of(spec), layout.processes // options.replicas
    sums = of_replicas(model, shards, options) if options.replicas > 1 else NOTHING
    return of_shards(model, shards, options) + sums + of_overflow(spec, layout)


def of_shards(model: Model, ranks: int, options: Any) -> Traffic:
    """Parameters are gathered before they are used, and gradients are summed and scattered once.

    A block that is freed after its forward pass is gathered again before its backward pass. Embedding and head are one
    unit, which is kept.
    """
    if ranks == 1:
        return NOTHING
    times = 1 + options.reshard_after_forward
    blocks = [of_unit([block], ranks, options, gathered=times) for block in model.blocks]
    return total([*blocks, of_unit(model.ends, ranks, options, gathered=1)])


def of_unit(parts: Iterable[Part], ranks: int, options: Any, *, gathered: int) -> Traffic:
    """A unit that is gathered so many times: each rank gives its shard. Of the gradients it gives all shards."""
    shard = shard_of(parts, ranks)
    gathers = gathered * call("all_gather", TYPES[options.param_dtype] * shard)
    return gathers + call("reduce_scatter", TYPES[options.reduce_dtype] * shard * ranks)


def of_expert_parallel(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Slots of a capacity go to their experts and back, and so do their gradients; what is dense is summed once.

    Where experts are there several times, the gradients of each of their parameters are summed apart.
    """
    if layout.processes == 1:
        return NOTHING
    model, family, degree = model_of(spec), spec.model, layout.processes // options.replicas
    experts = [shape for block in model.blocks for shape in block.experts] if degree > 1 else []
    capacity = math.ceil(family.capacity_factor * family.top_k * spec.seq_len / family.experts)
    slots = family.experts * capacity * spec.global_batch // layout.processes
    exchanges = [4 * call("all_to_all", PRODUCTS[spec.precision] * slots * family.d_model) for _ in model.blocks]
    dense = call("all_reduce", FP32 * (model.size - sum(shape.size for shape in experts)))
    replicas = [call("all_reduce", FP32 * shape.size // degree) for shape in experts if options.replicas > 1]
    return total([*(exchanges if degree > 1 else []), dense, *replicas, of_overflow(spec, layout)])


def of_replicas(model: Model, shards: int, options: Any) -> Traffic:
    """Of each unit a rank has the gradients of one shard, which it sums with those of that shard in other replicas."""
    units = [*([block] for block in model.blocks), model.ends]
    return total(call("all_reduce", TYPES[options.reduce_dtype] * shard_of(unit, shards)) for unit in units)


def shard_of(parts: Iterable[Part], ranks: int) -> int:
    """The elements of a rank's shard of a unit: the rows of each parameter, padded to equal parts."""
    return sum(-(-shape.rows // ranks) * shape.columns for part in parts for shape in part.shapes)


def of_tensor_parallel(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Split matrices, over the whole batch."""
    model, degree = model_of(spec), layout.processes
    passes = of_split_pass(spec, model, degree, spec.global_batch, options.sequence_parallel)
    return passes + of_split_norms(model, degree, options.sequence_parallel) + of_overflow(spec, layout)


def of_split_pass(spec: WorkloadSpec, model: Model, degree: int, sequences: int, sequence_parallel: bool) -> Traffic:
    """A forward and a backward pass through split matrices (Shoeybi et al. 2019, section 3).

    Going forward, the products of each row-split matrix are summed over devices. Going backward, so are the gradients
    of what each column-split matrix took, which is what a norm gave.

    With sequence parallelism (Korthikanti et al. 2022, section 4.2) each sum is scattered along the sequence, and
    gathered in the other direction. The embedding, which every device computes whole, needs all of its gradient.
    """
    tokens = sequences * spec.seq_len
    loss = of_split_loss(tokens) if model.head else NOTHING
    if degree == 1:
        return loss
    products, normed = (size * tokens * spec.model.d_model for size in (PRODUCTS[spec.precision], FP32))
    rows, columns, embedding = call("all_reduce", products), call("all_reduce", normed), NOTHING
    if sequence_parallel:
        rows = call("reduce_scatter", products) + call("all_gather", products // degree)
        columns = call("all_gather", normed // degree) + call("reduce_scatter", normed)
        embedding = call("all_gather", normed // degree) if model.embed else NOTHING
    matrices = [len(part.row_split) * rows + part.column_matrices * columns for part in (*model.blocks, *model.ends)]
    matrices.append(of_split_blocks_again(spec, model, degree, products, normed, sequence_parallel))
    return total([*matrices, embedding, loss])


def of_split_blocks_again(
    spec: WorkloadSpec, model: Model, degree: int, products: int, normed: int, sequence_parallel: bool
) -> Traffic:
    """What the forward passes of checkpointed blocks exchange again, but for the sum of the last products.

    No gradient needs those. Selective checkpointing keeps all sums, and gathers again.
    """
    checkpointing = spec.activation_checkpointing
    rows, columns = call("all_reduce", products), NOTHING
    if sequence_parallel:
        rows, columns = call("reduce_scatter", products), call("all_gather", normed // degree)
    sums = NOTHING if checkpointing == "selective" else rows
    blocks = [block for number, block in enumerate(model.blocks) if is_checkpointed(number, checkpointing)]
    return total((len(block.row_split) - 1) * sums + block.column_matrices * columns for block in blocks)


def of_split_loss(tokens: int) -> Traffic:
    """A softmax over a split vocabulary: each token's largest logit, sum of exponentials, and logit of its target."""
    return 3 * call("all_reduce", FP32 * tokens)


def of_split_norms(model: Model, degree: int, sequence_parallel: bool) -> Traffic:
    """Under sequence parallelism a norm sees a part of the sequence, so the gradients of its parameters are summed."""
    if degree == 1 or not sequence_parallel:
        return NOTHING
    norms = [shape for part in (*model.blocks, *model.ends) for shape in part.norms]
    return total(call("all_reduce", FP32 * shape.size) for shape in norms)


def of_context_parallel(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """Whole gradients, summed once, and what positions of different ranks have to tell each other in every block."""
    gradients = call("all_reduce", FP32 * model_of(spec).size)
    if layout.processes == 1:
        return gradients
    return gradients + of_context(spec, options.method, layout.processes, spec.global_batch)


def of_context(spec: WorkloadSpec, method: str, ranks: int, sequences: int, split: int = 1) -> Traffic:
    """Positions of so many sequences meet in every block, across ranks. Each has one of `split` parts of the heads."""
    queries, keys = (channels // split for channels in heads_of(spec))
    tokens = sequences * spec.seq_len // ranks
    block = {"ring": of_ring, "ulysses": of_head_exchange}[method](spec, ranks, tokens, queries, keys)
    return spec.model.layers * block


def of_ring(spec: WorkloadSpec, ranks: int, tokens: int, queries: int, keys: int) -> Traffic:
    """The keys and values of a rank go past all others, forward and again backward (Liu et al. 2023, section 3).

    Their gradients, which are sums, go past all others as well, and then home.
    """
    guests, gradients = (
        call("send", size * 2 * keys * tokens) + call("recv", 0) for size in (PRODUCTS[spec.precision], FP32)
    )
    return 2 * (ranks - 1) * guests + ranks * gradients


def of_head_exchange(spec: WorkloadSpec, ranks: int, tokens: int, queries: int, keys: int) -> Traffic:
    """Queries, keys and values in one exchange, and in another what was mixed (Jacobs et al. 2023, section 3).

    Backward, the gradients of both. Where ranks are more than heads of keys and values, each rank gets a copy of one.
    """
    keys = max(keys, ranks * spec.model.d_model // spec.model.heads)
    size = PRODUCTS[spec.precision] * tokens
    return 2 * (call("all_to_all", size * (queries + 2 * keys)) + call("all_to_all", size * queries))


def heads_of(spec: WorkloadSpec) -> tuple[int, int]:
    """The channels of all heads of queries, and of all heads of keys."""
    family: Any = spec.model
    shared = getattr(family, "key_value_heads", None) or family.heads
    return family.d_model, shared * (family.d_model // family.heads)


def of_model_parallel(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """A line of stages, over the whole batch."""
    return of_borders(spec, options, layout.processes, rank, spec.global_batch) + of_overflow(spec, layout)


def of_borders(spec: WorkloadSpec, options: Any, ranks: int, rank: int, sequences: int) -> Traffic:
    """At a border to another rank's stage the hidden states of every micro-batch cross, and later their gradient.

    Either is sent on one side and received on the other. In which order a schedule does so changes no number.
    """
    owners, micro_batches = owners_of_stages(options.schedule, ranks), micro_batches_of(options)
    own = sum(here != there and rank in (here, there) for here, there in pairwise(owners))
    hidden = sequences // micro_batches * spec.seq_len * spec.model.d_model
    return own * micro_batches * (call("send", FP32 * hidden) + call("recv", 0))


def owners_of_stages(schedule: str, ranks: int) -> list[int]:
    """The rank of each stage. Where a rank has two, they go down the ranks again, or back up in a V."""
    down = list(range(ranks))
    return down + {"interleaved_1f1b": down, "zbv": down[::-1]}.get(schedule, [])


def micro_batches_of(options: Any) -> int:
    """Into how many parts a batch is cut."""
    return 1 if options.schedule == "naive" else options.micro_batches or 4


def of_local_sgd(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """All parameters are averaged when a period is over."""
    return call("all_reduce", FP32 * model_of(spec).size) if 2 % options.period == 0 else NOTHING


def of_hybrid(spec: WorkloadSpec, options: Any, layout: Layout, rank: int) -> Traffic:
    """The sum over the axes, each for this rank's stage and its shard of the batch.

    FSDP gathers once more for every micro-batch, in an order that is the schedule's: that sum is not worked out here.
    """
    data, pipeline, tensor = options.degrees()
    model, number, passes = model_of(spec), rank // tensor % pipeline, 1
    sequences, replicas = spec.global_batch // data, data * options.context
    own = spec.model_copy(update={"seq_len": spec.seq_len // options.context})
    axes = [of_overflow(spec, layout)]
    if options.context > 1:
        axes.append(of_context(spec, options.context_method, options.context, sequences, tensor))
    if pipeline > 1:
        model, passes = model.stage(plan_stages(options, spec, pipeline)[number]), micro_batches_of(options)
        axes.append(of_borders(spec, options, pipeline, number, sequences))
    if tensor > 1:
        split = options.sequence_parallel
        axes.append(passes * of_split_pass(own, model, tensor, sequences // passes, split))
        axes.append(of_split_norms(model, tensor, split))
        model = model.on_each_of(tensor)
    if replicas > 1:
        assert pipeline == 1 or options.data_parallel == "ddp"
        by_ddp = options.data_parallel == "ddp"
        axes.append(call("all_reduce", FP32 * model.size) if by_ddp else of_shards(model, replicas, FSDPOptions()))
    return total(axes)


FORMULAS = {
    "single": of_strangers,
    "task_pool": of_strangers,
    "ensemble": of_strangers,
    "ddp": of_ddp,
    "fsdp": of_fsdp,
    "expert_parallel": of_expert_parallel,
    "tensor_parallel": of_tensor_parallel,
    "context_parallel": of_context_parallel,
    "model_parallel": of_model_parallel,
    "local_sgd": of_local_sgd,
    "hybrid": of_hybrid,
}
