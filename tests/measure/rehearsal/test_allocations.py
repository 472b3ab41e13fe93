"""The ledger of what fake tensors take, on tensors whose sizes are known."""

from collections.abc import Iterator

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from parbench.measure.rehearsal.allocations import Allocations

CPU = torch.device("cpu")


@pytest.fixture
def allocations() -> Iterator[Allocations]:
    with FakeTensorMode(), Allocations(CPU) as followed:
        yield followed


def test_what_is_freed_counts_for_the_peak_alone(allocations: Allocations) -> None:
    kept = torch.zeros(100)
    freed = kept + 1
    del freed
    small = torch.zeros(10)
    assert allocations.at_peak() == {"activations": 800}
    assert allocations.alive() == {"activations": 440}
    assert (kept.numel(), small.numel()) == (100, 10)


def test_what_was_freed_before_the_start_is_forgotten(allocations: Allocations) -> None:
    kept = torch.zeros(100)
    torch.add(kept, 1)
    allocations.start()
    assert allocations.at_peak() == {"activations": 400}
    assert allocations.largest("activations") == kept.nbytes


def test_views_take_nothing(allocations: Allocations) -> None:
    whole = torch.zeros(8, 8)
    views = [whole.t(), whole[2:], whole.view(64).expand(5, 64)]
    assert allocations.alive() == {"activations": 256}
    assert len(views) == 3


def test_a_label_holds_for_all_of_a_tensors_life(allocations: Allocations) -> None:
    first, second = torch.zeros(100), torch.zeros(25)
    allocations.label("parameters", [first, second.view(5, 5)])
    assert allocations.at_peak() == allocations.alive() == {"parameters": 500}
    assert allocations.largest("activations") == 0


def test_what_is_made_while_no_gradients_are_recorded_is_no_activation(allocations: Allocations) -> None:
    with torch.no_grad():
        made = torch.zeros(100)
    assert allocations.alive() == {"other": made.nbytes}


def test_what_is_resized_is_a_buffer_that_comes_and_goes(allocations: Allocations) -> None:
    buffer = torch.zeros(100)
    storage = buffer.untyped_storage()
    storage.resize_(0)
    assert allocations.alive() == {"other": 0}
    storage.resize_(800)
    assert allocations.alive() == {"other": 800}
    assert allocations.largest("other") == 800


def test_tensors_of_other_kinds_of_device_are_not_followed(allocations: Allocations) -> None:
    made = torch.zeros(100, device="meta")
    assert made.numel() == 100
    assert allocations.alive() == {}


def test_storages_are_resized_as_before_afterwards() -> None:
    before = torch.UntypedStorage.resize_
    with FakeTensorMode(), Allocations(CPU):
        assert torch.UntypedStorage.resize_ is not before
    assert torch.UntypedStorage.resize_ is before


@pytest.mark.parametrize(("device", "taken"), [("cpu", 404), ("cuda", 512)])
def test_cuda_hands_memory_out_in_blocks(device: str, taken: int) -> None:
    allocations = Allocations(torch.device(device))
    with FakeTensorMode():
        allocations._follow(torch.zeros(101).untyped_storage())
    assert allocations.largest("activations") == taken
