"""What ranks have to hold, by hand arithmetic on the shapes of a small GPT."""

import math

import pytest

from parbench.data.sources import SyntheticTokens
from parbench.models.lstm import LSTM
from parbench.models.moe import MixtureOfExperts
from parbench.models.transformer import Transformer
from parbench.scenario.specs import OptimizerSpec, WorkloadSpec
from parbench.strategies.base import STRATEGIES
from parbench.system.devices import Devices
from parbench.training.holdings import Outline, Piece, count_held

WIDTH, ROWS, LENGTH = 8, 6, 4
"""Of the model; the rows are those of its vocabulary."""

NORM = {"weight": (WIDTH,), "bias": (WIDTH,)}
BLOCK = {
    **{f"attention_norm.{kind}": shape for kind, shape in NORM.items()},
    "attention.query_key_value.weight": (3 * WIDTH, WIDTH),
    "attention.query_key_value.bias": (3 * WIDTH,),
    "attention.output.weight": (WIDTH, WIDTH),
    "attention.output.bias": (WIDTH,),
    **{f"mlp_norm.{kind}": shape for kind, shape in NORM.items()},
    "mlp.0.weight": (4 * WIDTH, WIDTH),
    "mlp.0.bias": (4 * WIDTH,),
    "mlp.2.weight": (WIDTH, 4 * WIDTH),
    "mlp.2.bias": (WIDTH,),
}
EMBED = {"token.weight": (ROWS, WIDTH), "position": (LENGTH, WIDTH)}
HEAD = {**{f"0.{kind}": shape for kind, shape in NORM.items()}, "1.weight": (ROWS, WIDTH)}


def outline(blocks: int = 2) -> list[Outline]:
    parts = {"embed": EMBED, **{f"blocks.{number}": BLOCK for number in range(blocks)}, "head": HEAD}
    return [Outline(f"{part}.{name}", shape) for part, shapes in parts.items() for name, shape in shapes.items()]


def elements(shapes: dict[str, tuple[int, ...]]) -> int:
    return sum(map(math.prod, shapes.values()))


def pieces(name: str, count: int, rank: int, blocks: int = 2, **options: object) -> list[Piece]:
    spec = WorkloadSpec(
        model=Transformer(layers=blocks, d_model=WIDTH, heads=2),
        data=SyntheticTokens(source="synthetic", vocab_size=ROWS),
        global_batch=8,
        seq_len=LENGTH,
    )
    strategy = STRATEGIES[name]
    chosen = strategy.options_type(**options)
    layout = strategy.layout(chosen, spec, Devices(kind="cpu", count=count))
    return strategy.pieces(chosen, spec, layout, rank, outline(blocks))


def parameters(held: list[Piece]) -> int:
    return sum(piece.parameter for piece in held)


WHOLE = elements(EMBED) + 2 * elements(BLOCK) + elements(HEAD)


@pytest.mark.parametrize("name", ["ddp", "local_sgd", "task_pool", "context_parallel"])
def test_replicas_hold_everything(name: str) -> None:
    held = pieces(name, 2, 1)
    assert held == [Piece(each, each.elements, each.elements, each.elements) for each in outline()]
    assert parameters(held) == WHOLE


def test_a_sharded_optimizer_goes_from_the_largest_parameter_down_to_the_rank_with_the_least() -> None:
    by_rank = [pieces("ddp", 2, rank, shard_optimizer=True) for rank in range(2)]
    owned = [[piece.of.name for piece in held if piece.stepped is not None] for held in by_rank]
    assert sorted(owned[0] + owned[1]) == sorted(each.name for each in outline())
    # Of the four largest, of 256 elements each, the first and the third; then the next two of 192, and so on.
    large = ["blocks.0.mlp.0.weight", "blocks.0.mlp.2.weight", "blocks.1.mlp.0.weight", "blocks.1.mlp.2.weight"]
    assert [name for name in owned[0] if name in large] == large[::2]
    assert [name for name in owned[1] if name in large] == large[1::2]
    assert all(parameters(held) == WHOLE for held in by_rank)
    assert pieces("ddp", 1, 0, shard_optimizer=True) == pieces("ddp", 1, 0)


def test_rows_are_sharded_with_padding_and_stepped_without() -> None:
    by_name = [{piece.of.name: piece[1:] for piece in pieces("fsdp", 4, rank)} for rank in range(4)]
    # Six rows over four ranks: two, two, two and none, all kept as two.
    assert [held["head.1.weight"] for held in by_name] == [(16, 16, 16), (16, 16, 16), (16, 16, 16), (16, 16, 0)]
    assert [held["head.0.bias"] for held in by_name] == [(2, 2, 2)] * 4


def test_each_replica_has_all_shards_and_its_ranks_are_neighbours() -> None:
    assert [pieces("fsdp", 4, rank, replicas=2) for rank in range(4)] == 2 * [
        pieces("fsdp", 2, 0),
        pieces("fsdp", 2, 1),
    ]
    assert pieces("fsdp", 4, 3, replicas=4) == pieces("ddp", 4, 3)


def test_a_device_holds_nothing_that_is_offloaded() -> None:
    spec = WorkloadSpec(model=Transformer(layers=2, d_model=WIDTH, heads=2), global_batch=8)
    fsdp, offloaded = STRATEGIES["fsdp"], STRATEGIES["fsdp"].options_type(offload="parameters")
    layout = fsdp.layout(offloaded, spec, Devices(kind="cuda", count=4))
    held = count_held(fsdp.pieces(offloaded, spec, layout, 1, outline()), spec.optimizer, trains=True)
    assert (held.parameters, held.gradients, held.optimizer_state) == (0, 0, 0)


def test_matrices_are_split_by_the_plan_and_the_rest_is_whole() -> None:
    by_name = {piece.of.name: piece.parameter for piece in pieces("tensor_parallel", 2, 1)}
    columns = ("attention.query_key_value.weight", "attention.query_key_value.bias", "mlp.0.weight", "mlp.0.bias")
    split = [f"blocks.{number}.{name}" for number in range(2) for name in columns]
    split += [f"blocks.{number}.{name}" for number in range(2) for name in ("attention.output.weight", "mlp.2.weight")]
    split += ["head.1.weight"]
    assert by_name == {each.name: each.elements // (2 if each.name in split else 1) for each in outline()}


def test_stages_have_their_own_parameters() -> None:
    first, second = (pieces("model_parallel", 2, rank) for rank in range(2))
    assert parameters(first) == elements(EMBED) + elements(BLOCK)
    assert parameters(second) == elements(BLOCK) + elements(HEAD)
    middle = pieces("model_parallel", 2, 1, blocks=4, schedule="interleaved_1f1b")
    assert {piece.of.name.split(".")[1] for piece in middle if piece.of.name.startswith("blocks")} == {"1", "3"}


@pytest.mark.parametrize(("options", "parts"), [({}, 4), ({"replicas": 2}, 2), ({"replicas": 4}, 1)])
def test_a_rank_has_its_part_of_the_experts_and_all_else_whole(options: dict[str, int], parts: int) -> None:
    strategy = STRATEGIES["expert_parallel"]
    spec = WorkloadSpec(model=MixtureOfExperts(layers=1, d_model=WIDTH, heads=2, experts=8), global_batch=8)
    chosen, devices = strategy.options_type(**options), Devices(kind="cpu", count=4)
    shapes = {
        "blocks.0.mlp.experts.up": (8, WIDTH, 3),
        "blocks.0.mlp.router.weight": (8, WIDTH),
        "head.1.weight": (8, 2),
    }
    parameters = [Outline(name, shape) for name, shape in shapes.items()]
    held = strategy.pieces(chosen, spec, strategy.layout(chosen, spec, devices), 3, parameters)
    assert [piece[1:] for piece in held] == [(24 * WIDTH // parts,) * 3, (8 * WIDTH,) * 3, (16,) * 3]


def test_only_the_first_replica_of_an_emulated_device_has_gradients_and_an_optimizer() -> None:
    held = pieces("data_parallel", 4, 0)
    assert [piece[1:] for piece in held] == [(4 * each.elements, each.elements, each.elements) for each in outline()]


def test_stacked_models_hold_as_many_times_as_much() -> None:
    assert parameters(pieces("ensemble", 2, 1, models_per_device=3)) == 3 * WHOLE


def test_each_axis_takes_of_what_the_axis_before_has_left() -> None:
    degrees = {"data": 2, "pipeline": 2, "tensor": 2}
    # Rank 7 is data shard 1, stage 1, part 1: half of the rows of half of each split matrix of the second stage.
    held = {piece.of.name: piece for piece in pieces("hybrid", 8, 7, data_parallel="fsdp", **degrees)}
    assert set(held) == {each.name for each in outline() if each.name.startswith(("blocks.1", "head"))}
    assert held["blocks.1.mlp.0.weight"].parameter == 4 * WIDTH * WIDTH // 4
    assert held["blocks.1.mlp.2.weight"].parameter == 4 * WIDTH * WIDTH // 4
    assert held["blocks.1.mlp.2.bias"].parameter == WIDTH // 2
    assert parameters(pieces("hybrid", 8, 0, **degrees)) == parameters(pieces("hybrid", 8, 4, **degrees))


MATRIX = Outline("head.1.weight", (3, 4))
FROZEN = Outline("embed.weight", (5, 2), is_trained=False)


@pytest.mark.parametrize(
    ("optimizer", "trains", "expected"),
    [
        (OptimizerSpec(name="adam"), True, (4 * 22, 4 * 12, 2 * 4 * 12 + 4)),
        (OptimizerSpec(name="adamw"), True, (4 * 22, 4 * 12, 2 * 4 * 12 + 4)),
        (OptimizerSpec(name="sgd", momentum=0.9), True, (4 * 22, 4 * 12, 4 * 12)),
        (OptimizerSpec(name="sgd"), True, (4 * 22, 4 * 12, 0)),
        (OptimizerSpec(name="adam"), False, (4 * 22, 0, 0)),
    ],
)
def test_bytes_are_those_of_what_is_trained_and_stepped(optimizer, trains, expected) -> None:
    held = count_held([Piece.whole(MATRIX), Piece.whole(FROZEN)], optimizer, trains=trains)
    assert (held.parameters, held.gradients, held.optimizer_state) == expected


def test_a_parameter_that_another_rank_steps_has_no_state_and_an_empty_share_counts_its_steps() -> None:
    adam = OptimizerSpec(name="adam")
    others = count_held([Piece(MATRIX, 12, 12, stepped=None)], adam, trains=True)
    empty = count_held([Piece(MATRIX, 12, 12, stepped=0)], adam, trains=True)
    assert (others.optimizer_state, empty.optimizer_state) == (0, 4)
    half = count_held([Piece.whole(MATRIX._replace(element_bytes=2), models=3)], adam, trains=True)
    assert (half.parameters, half.gradients) == (2 * 36, 2 * 36)


def test_a_cut_is_rounded_up() -> None:
    assert [Outline("x", (5, 4)).cut(0, parts).shape for parts in (1, 2, 3, 7)] == [(5, 4), (3, 4), (2, 4), (1, 4)]
    assert Outline("x", (5, 4)).cut(1, 2).elements == 10


def test_an_lstm_has_no_plan_and_its_rows_are_sharded_all_the_same() -> None:
    spec = WorkloadSpec(model=LSTM(layers=1, d_model=3), global_batch=8)
    fsdp = STRATEGIES["fsdp"]
    layout = fsdp.layout(fsdp.options_type(), spec, Devices(kind="cpu", count=2))
    (piece,) = fsdp.pieces(fsdp.options_type(), spec, layout, 1, [Outline("blocks.0.norm.weight", (3,))])
    assert piece[1:] == (2, 2, 1)
