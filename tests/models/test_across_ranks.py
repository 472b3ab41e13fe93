"""Attention between positions that different ranks have, in real processes: that of whole sequences, with gradients."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn.functional import scaled_dot_product_attention

from parbench.models.nn.ring import RingAttention
from parbench.models.nn.ulysses import UlyssesAttention

RANKS, BATCH, LENGTH, SIZE = 4, 2, 24, 8
METHODS: dict[str, Any] = {"ring": RingAttention, "ulysses": UlyssesAttention}


class Case(NamedTuple):
    """A method over so many of the ranks, the last ones, with heads that share keys and values."""

    method: str
    ranks: int
    heads: int
    shared: int

    def __str__(self) -> str:
        return f"{self.method}-{self.ranks}-ranks-{self.heads}-heads-{self.shared}-shared"


CASES = [
    *(Case("ring", ranks, 4, shared) for ranks in (2, 3, 4) for shared in (4, 2)),
    Case("ring", 4, 3, 1),
    *(Case("ulysses", ranks, 12, shared) for ranks in (2, 3, 4) for shared in (12, 1)),
    # Every two ranks have the same keys and values.
    Case("ulysses", 4, 8, 2),
    Case("ulysses", 2, 8, 4),
]


def run(case: Case, group: distributed.ProcessGroup) -> dict[str, Any]:
    """This rank's positions, and how far its outputs and gradients are from those of whole sequences."""
    generator = torch.Generator().manual_seed(0)

    def draw(heads: int) -> Tensor:
        shape = (BATCH, heads, LENGTH, SIZE)
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    inputs, weights = (draw(case.heads), draw(case.shared), draw(case.shared)), draw(case.heads).detach()
    expected = scaled_dot_product_attention(*inputs, is_causal=True, enable_gqa=case.heads != case.shared)
    wanted = torch.autograd.grad(expected, inputs, weights)

    across = METHODS[case.method](group)
    positions = across.positions(LENGTH)
    own = [part.detach()[:, :, positions].requires_grad_() for part in inputs]
    mixed = across.attend(*own, is_causal=True, enable_gqa=case.heads != case.shared)
    gradients = torch.autograd.grad(mixed, own, weights[:, :, positions])
    with torch.no_grad():
        without = across.attend(*own, is_causal=True, enable_gqa=case.heads != case.shared)
    pairs = [(mixed, expected), (without, expected), *zip(gradients, wanted, strict=True)]
    away = [float((ours - theirs[:, :, positions]).abs().max()) for ours, theirs in pairs]
    return {"positions": positions.tolist(), "away": away}


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    groups = {size: distributed.new_group(list(range(RANKS - size, RANKS))) for size in {case.ranks for case in CASES}}
    found = {str(case): run(case, groups[case.ranks]) for case in CASES if rank >= RANKS - case.ranks}
    (folder / f"{rank}.json").write_text(json.dumps(found))
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each rank found, by case."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (folder,), nprocs=RANKS)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_rank_has_its_part_of_what_whole_sequences_give(ranks, case: Case) -> None:
    found = [rank[str(case)] for rank in ranks[-case.ranks :]]
    for each in found:
        assert max(each["away"]) < 1e-12
    assert sorted(position for each in found for position in each["positions"]) == list(range(LENGTH))
    assert {len(each["positions"]) for each in found} == {LENGTH // case.ranks}


@pytest.mark.parametrize("count", [2, 3, 4])
def test_on_a_ring_all_ranks_have_equally_many_keys_to_look_at(ranks, count: int) -> None:
    name = str(Case("ring", count, 4, 4))
    seen = [sum(position + 1 for position in rank[name]["positions"]) for rank in ranks[-count:]]
    assert len(set(seen)) == 1
