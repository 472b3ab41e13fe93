"""Which storages a log follows, and what it says of them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from parbench.measure.probes.memory_account import weigh
from parbench.measure.probes.storages import Event, StorageLog

CPU = torch.device("cpu")


def sizes(log: StorageLog) -> list[int]:
    """The sizes of all events: of storages as they appear, and 0 as they go."""
    return [size for _, size in log.events]


def test_a_storage_counts_once_however_many_tensors_share_it_and_goes_with_the_last() -> None:
    log = StorageLog(CPU)
    with log:
        whole = torch.ones(10)
        row, other = whole[:3], whole.view(2, 5)
        whole.add_(1)
        del whole, row
        assert sizes(log) == [40]
        del other
    assert sizes(log) == [40, 0]


def test_what_was_there_before_is_followed_on_request_and_then_has_one_number() -> None:
    parameter, log = torch.ones(4), StorageLog(CPU)
    known = log.follow([parameter, parameter[:2]])
    assert log.count_bytes(known) == 16
    assert log.living() == known == log.follow([parameter.t()])
    with log:
        parameter.mul_(2)
    assert sizes(log) == [16]


def test_a_storage_that_is_resized_keeps_its_number_and_is_for_exchange() -> None:
    log, resize = StorageLog(CPU), torch.UntypedStorage.resize_
    with log.following():
        gathered = torch.ones(4)
        gathered.untyped_storage().resize_(0)
        gathered.untyped_storage().resize_(16)
    assert sizes(log) == [16, 0, 16]
    assert {number for number, _ in log.events} == log.exchanged
    assert torch.UntypedStorage.resize_ is resize


def test_tensors_on_other_devices_are_not_followed() -> None:
    log = StorageLog(torch.device("cuda", 0))
    with log:
        host = torch.ones(4)
    assert log.follow([host]) == set()
    assert log.events == []


def test_what_a_backward_pass_makes_is_not_of_the_forward_pass_but_for_checkpoints() -> None:
    weight = torch.ones(8, 8, requires_grad=True)

    def made_outside_of_backward_passes(loss: Callable[[], Tensor]) -> int:
        log = StorageLog(CPU)
        with log:
            loss().backward()
        weight.grad = None
        return len(log.forward)

    def block(hidden: Tensor) -> Tensor:
        return (hidden @ weight).sin()

    start = torch.ones(8, 8, requires_grad=True)
    plain = made_outside_of_backward_passes(lambda: block(start).sum())
    again = made_outside_of_backward_passes(lambda: checkpoint(block, start, use_reentrant=False).sum())
    # The product, its sine, their sum, and the gradient that the backward pass starts from.
    assert plain == 4
    assert again > plain


def test_what_the_optimizer_makes_is_not_of_the_forward_pass() -> None:
    log = StorageLog(CPU)
    with log:
        log.updating = True
        made = torch.ones(4)
    assert log.forward == set()
    assert log.count_bytes(log.follow([made])) == 16


def test_other_threads_are_followed_while_the_context_lasts() -> None:
    log = StorageLog(CPU)
    with ThreadPoolExecutor(1) as thread:
        with log.following([thread]):
            inside = thread.submit(torch.ones, 4).result()
        outside = thread.submit(torch.ones, 5).result()
    assert sizes(log) == [16]
    assert len(inside) + len(outside) == 9


def test_the_peak_is_the_one_that_the_profiler_sees() -> None:
    model = nn.Sequential(nn.Embedding(50, 32), nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 50))
    tokens = torch.arange(200) % 50

    def step() -> None:
        model.zero_grad()
        cross_entropy(model(tokens), tokens).backward()

    step()
    model.zero_grad()
    log = StorageLog(CPU)
    log.follow(model.parameters())
    start = len(log.events)
    before = log.count_bytes(log.living())
    with log.following():
        step()
    at_peak, _ = weigh(log.events, start, lambda _: "rest")
    model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    changes = [
        (each.start_ns(), each.nbytes())
        for each in profiled.profiler.kineto_results.events()
        if each.name() == "[memory]"
    ]
    present = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        present += change
        peak = max(peak, present)
    assert at_peak.total() - before == pytest.approx(peak, abs=256)
    assert peak > 4 * 200 * 50


def test_the_parts_of_the_fullest_moment_add_up_and_each_has_a_largest_of_its_own() -> None:
    kinds = {0: "parameters", 1: "activations", 2: "rest", 3: "gradients"}
    events = [Event(0, 10), Event(1, 99), Event(1, 0), Event(1, 7), Event(2, 5), Event(1, 3), Event(3, 6), Event(2, 0)]
    at_peak, largest = weigh(events, 3, kinds.__getitem__)  # type: ignore[arg-type]
    assert dict(at_peak) == {"parameters": 10, "activations": 3, "rest": 5, "gradients": 6}
    assert dict(largest) == {"parameters": 10, "activations": 7, "rest": 5, "gradients": 6}


def test_the_moment_before_the_first_event_that_counts_may_be_the_fullest() -> None:
    at_peak, largest = weigh([Event(0, 10), Event(0, 4)], 1, lambda _: "rest")
    assert (dict(at_peak), dict(largest)) == ({"rest": 10}, {"rest": 10})
