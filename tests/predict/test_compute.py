"""Computation by hand: products by their shapes, attention, traffic to the memory, and launches."""

import numpy as np
import pytest

from parbench.predict import compute
from tests.predict.problems import ideal, problem

ROWS, COLUMNS, DEPTH = np.array([2048.0]), np.array([2048.0]), np.array([4096.0])


def product(**changes: float) -> float:
    constants = ideal(**{name: changes.pop(name) for name in ("tile", "quantised") if name in changes})
    return float(compute.product_seconds(problem(**changes), constants, ROWS, COLUMNS, DEPTH)[0])


def test_a_product_takes_its_operations_at_the_speed_of_products():
    assert product() == pytest.approx(2 * 2048 * 2048 * 4096 / 1e14)


def test_a_product_that_moves_more_than_it_computes_takes_the_time_of_the_memory():
    moved = 2 * (2 * 2048 * 4096 + 2048 * 2048)
    assert product(memory_bandwidth=1e9) == pytest.approx(moved / 1e9)


def test_the_last_wave_of_tiles_leaves_multiprocessors_idle():
    # 16 × 8 tiles of 128 × 256 on 100 multiprocessors are two waves, of which 128 of 200 places are taken; cut in two
    # along its depth it is 256 pieces in three waves.
    assert product(multiprocessors=100) == pytest.approx(product() / (256 / 300))
    assert product(multiprocessors=100, quantised=0.5) == pytest.approx(product() / (256 / 300) ** 0.5)
    assert product(multiprocessors=128) == pytest.approx(product())


def test_a_tile_costs_time_besides_multiplying():
    # One multiprocessor computes 128 tiles one after another; each takes 2 × 128 × 256 × 4096 operations.
    assert product(multiprocessors=2, tile=1e-3) == pytest.approx(product(multiprocessors=2) + 64 * 1e-3)


def test_products_below_16_bits_are_faster_by_a_power_of_the_ratio():
    constants = ideal(small_formats=0.5)
    assert compute.product_speed(problem(matmul=4e14), constants)[0] == pytest.approx(2e14)
    assert compute.product_speed(problem(matmul=4e13, matmul16=4e13), constants)[0] == pytest.approx(4e13)


def test_less_power_is_less_speed():
    assert compute.product_speed(problem(power=0.25), ideal())[0] == pytest.approx(0.5e14)


def test_fused_attention_computes_half_of_a_causal_square():
    forward, backward = compute.attention(problem(), ideal())
    assert forward[0] == pytest.approx(0.5 * 4 * 1024 * 1024 * 1024 / 1e14)
    assert backward[0] == pytest.approx(2.5 * forward[0])
    assert compute.attention(problem(causal=0), ideal())[0][0] == pytest.approx(2 * forward[0])


@pytest.mark.parametrize(("flag", "share"), [("native_attention", 0.6), ("early_attention", 0.75)])
def test_kernels_of_another_time_are_slower(flag: str, share: float):
    now, then = (compute.attention(problem(**{flag: value}), ideal())[0][0] for value in (0, 1))
    assert min(now, then) / max(now, then) == pytest.approx(share)


def test_unfused_attention_passes_its_scores_through_the_memory():
    moving = 7 * 1024 * 1024 * 8 * 2 / 1e12
    forward, _ = compute.attention(problem(fused_attention=0), ideal())
    assert forward[0] == pytest.approx(4 * 1024 * 1024 * 1024 / 1e14 + moving)


def test_heads_of_an_odd_size_lose_the_tensor_cores():
    aligned, odd = (compute.attention(problem(fused_attention=0, heads=heads), ideal())[0][0] for heads in (8, 10))
    slow = compute.attention(problem(fused_attention=0, heads=10), ideal(unaligned=0.1))[0][0]
    products = 4 * 1024 * 1024 * 1024 / 1e14
    assert slow - odd == pytest.approx(9 * products)
    assert aligned < odd  # more heads have more scores


def test_tensor_parallelism_adds_two_launches_of_a_quarter():
    alone, split = (compute.launching(problem(tensor=tensor), ideal(launch=1e-3))[0] for tensor in (1, 2))
    assert (alone, split) == (pytest.approx(1e-3), pytest.approx(1.5e-3))


def test_logits_are_computed_of_the_tokens_that_are_scored():
    whole, masked = (compute.logits(problem(scored=scored), ideal())[0] for scored in (1, 0.5))
    assert masked == pytest.approx(whole / 2)
