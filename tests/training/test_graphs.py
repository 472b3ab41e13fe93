"""When a function is called, captured and replayed; what a replay computes takes a GPU (tests/gpu)."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

from parbench.training.graphs import EAGER_CALLS, Replayed


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What happens, in order, on CUDA streams that are not there."""
    happened: list[str] = []

    @contextmanager
    def capture(_: object) -> Iterator[None]:
        happened.append("capture")
        yield

    stream = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=lambda: happened.append("replay")))
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return happened


def test_a_function_is_called_some_times_then_captured_once_and_replayed(events: list[str]) -> None:
    def function() -> int:
        events.append("call")
        return len(events)

    replayed = Replayed(function)
    results = [replayed() for _ in range(EAGER_CALLS + 3)]
    assert events == ["call"] * EAGER_CALLS + ["capture", "call", "replay", "replay", "replay"]
    assert results == [1, 2, 3, *[EAGER_CALLS + 2] * 3]
