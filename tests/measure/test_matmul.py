"""The peak of matrix products: the fastest of a few, and of slow ones no more than are needed."""

from itertools import cycle

import pytest
import torch

from parbench.measure.probes import matmul


@pytest.mark.parametrize(
    ("seconds", "fastest", "timed"),
    [((0.2, 0.1, 0.3), 0.1, matmul.REPEATS), ((4.0, 5.0), 4.0, 2), ((1.4, 1.0), 1.0, 3)],
    ids=["quick", "slow", "in between"],
)
def test_the_fastest_product_counts_and_slow_ones_are_few(
    monkeypatch: pytest.MonkeyPatch, seconds: tuple[float, ...], fastest: float, timed: int
) -> None:
    times, calls = cycle(seconds), []

    def time_products(left: torch.Tensor, right: torch.Tensor, products: int) -> float:
        calls.append(left.shape)
        return next(times)

    monkeypatch.setattr(matmul, "SIZES", {"cpu": (10,)})
    monkeypatch.setattr(matmul, "_time_products", time_products)
    assert matmul.measure_matmul_flops(torch.device("cpu"), "fp32") == pytest.approx(2 * 10**3 / fastest)
    assert calls == [(10, 10)] * timed
