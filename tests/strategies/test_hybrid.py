"""Which meshes a number of devices can be, and which of them a workload supports."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parbench.errors import Unsupported
from parbench.models.transformer import Transformer
from parbench.plan.reading import read_plan
from parbench.scenario.specs import WorkloadSpec
from parbench.strategies.hybrid import Hybrid, HybridOptions, factorisations
from parbench.system.devices import Devices, Machine

HERE = Machine(cores=tuple((number,) for number in range(8)))


def gpt(**changes):
    return WorkloadSpec(model=Transformer(layers=8, d_model=16, heads=4), global_batch=32, **changes)


def degrees(options, count, workload=None):
    found = Hybrid.variants(HybridOptions(**options), workload or gpt(), Devices(kind="cpu", count=count))
    return [each.degrees() for each in found]


@given(st.integers(1, 64))
def test_every_factorisation_is_there_once(number):
    found = factorisations(number)
    assert all(math.prod(each) == number for each in found)
    assert len(set(found)) == len(found)
    expected = sum(
        1 for a in range(1, number + 1) for b in range(1, number + 1) if number % a == 0 and number // a % b == 0
    )
    assert len(found) == expected


def test_auto_makes_every_mesh_that_the_workload_supports():
    assert set(degrees({}, 4)) == {(4, 1, 1), (2, 2, 1), (2, 1, 2), (1, 4, 1), (1, 2, 2), (1, 1, 4)}
    five_heads = WorkloadSpec(model=Transformer(layers=8, d_model=20, heads=5), global_batch=32)
    assert set(degrees({}, 4, five_heads)) == {(4, 1, 1), (2, 2, 1), (1, 4, 1)}


def test_degrees_that_are_given_stay():
    assert degrees({"tensor": 2}, 8) == [(4, 1, 2), (2, 2, 2), (1, 4, 2)]
    assert degrees({"data": 2, "pipeline": 2, "tensor": 2}, 8) == [(2, 2, 2)]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"data": 3}, "a mesh of data 3 × pipeline 1 × tensor 1 does not have 4 devices"),
        ({"data": 3, "context": 2}, "a mesh of data 3 × context 2 × pipeline 1 × tensor 1 does not have 4 devices"),
        ({"context": 2, "pipeline": 2}, "give context or pipeline, not both"),
        ({"data": 2, "pipeline": 2, "schedule": "zbv"}, "ddp cannot have several stages a rank"),
        ({"data": 2, "pipeline": 2, "schedule": "zbv", "data_parallel": "fsdp"}, "fsdp misses gradients"),
    ],
)
def test_a_mesh_that_cannot_be_says_why(options, reason):
    (only,) = Hybrid.variants(HybridOptions(**options), gpt(), Devices(kind="cpu", count=4))
    with pytest.raises(Unsupported, match=reason):
        Hybrid.layout(only, gpt(), Devices(kind="cpu", count=4))


def test_weak_scaling_grows_the_batch_before_meshes_are_chosen(tmp_path):
    path = tmp_path / "s.yaml"
    path.write_text(
        "workloads: {w: {model: {kind: transformer, layers: 4, d_model: 8, heads: 4}, global_batch: 2}}\n"
        "strategies: [single, hybrid: {pipeline: 1, tensor: 1}]\nscaling: weak\ndevices: {counts: [8]}\n"
    )
    cells = {cell.record.label: cell for cell in read_plan(path, HERE).cells}
    assert cells["hybrid(data=8)"].layout is not None


def test_sequences_are_cut_beside_data_and_tensors():
    assert degrees({"context": 2}, 8) == [(4, 1, 1), (2, 1, 2), (1, 1, 4)]
    options = HybridOptions(data=2, context=2, pipeline=1, tensor=2)
    made = Hybrid.layout(options, gpt(), Devices(kind="cpu", count=8))
    assert (made.data_shards, made.note) == (2, "data 2 × context 2 × pipeline 1 × tensor 2")
    # The first half of the batch is with two pairs of ranks, a part of its sequences with each.
    assert [made.coordinate(rank)[1] for rank in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"context": 4, "tensor": 2, "context_method": "ulysses"}, "2 heads do not divide into 4 parts"),
        ({"context": 4, "tensor": 2, "sequence_parallel": True}, "a sequence of 1 tokens does not divide into 2 parts"),
        ({"context": 8}, "4 tokens does not divide into 16 parts, 2 for each device"),
    ],
)
def test_what_tensor_parallelism_leaves_of_heads_and_sequences_must_divide(options, reason):
    (only,) = Hybrid.variants(HybridOptions(**options), gpt(seq_len=4), Devices(kind="cpu", count=8))
    with pytest.raises(Unsupported, match=reason):
        Hybrid.layout(only, gpt(seq_len=4), Devices(kind="cpu", count=8))
