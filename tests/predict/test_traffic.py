"""Communication by hand: bytes on the bus over the bandwidth of the slowest link, plus latency."""

import numpy as np
import pytest

from parbench.predict import traffic
from tests.predict.problems import ideal, problem

BYTES = np.array([1e9])


def seconds(ranks: float, inside: float = 1, *, latency: float = 0.0, **changes: float) -> float:
    found = traffic.collective(problem(**changes), ideal(latency=latency), np.array([ranks]), np.array([inside]), BYTES)
    return float(found[0])


def test_one_rank_exchanges_nothing():
    assert seconds(1) == 0


def test_within_a_node_the_fast_links_carry_it():
    assert seconds(8) == pytest.approx(1e9 / 1e11)


def test_between_nodes_the_members_on_a_node_share_its_adapters():
    assert seconds(16) == pytest.approx(1e9 / 8e10)
    # Of eight groups that take turns over the devices, each has one device a node, and one adapter.
    assert seconds(2, 8) == pytest.approx(1e9 / 1e10)


def test_latency_grows_with_the_logarithm_of_the_nodes():
    assert seconds(32, latency=1e-3) - seconds(32) == pytest.approx(3e-3)


def test_a_latency_that_was_measured_is_taken():
    assert seconds(8, latency=1e-3, node_latency=5e-3) - seconds(8) == pytest.approx(5e-3)


def test_a_block_has_two_all_reduces_in_each_pass():
    forward, backward = traffic.block_tensor(problem(tensor=4), ideal())
    activations = 2 * 1024 * 1024
    assert forward[0] == pytest.approx(2 * (2 * 3 / 4) * activations / 1e11)
    assert backward[0] == forward[0]
    assert traffic.block_tensor(problem(tensor=4, hidden_tensor=0.5), ideal())[0][0] == pytest.approx(forward[0] / 2)


def test_sharded_parameters_are_gathered_twice_and_scattered_once():
    weights = (4 * 12 * 1024**2 + 32_768 * 1024) * 7 / 8
    found = traffic.sharded_parameters(problem(data=8, shards=8), ideal(), np.array([4.0]), np.zeros(1))
    assert found[0] == pytest.approx(weights * (2 + 2 + 2) / 1e11)


def test_replicas_exchange_twice_what_they_hold():
    weights = (4 * 12 * 1024**2 + 32_768 * 1024) * 7 / 8
    assert traffic.replicas(problem(data=8), ideal(), np.zeros(1))[0] == pytest.approx(weights * 4 / 1e11)


def test_neighbours_pass_a_message_there_and_back():
    message = 2 * 1024 * 1024
    found = traffic.neighbours(problem(pipeline=2), ideal())[0]
    assert found == pytest.approx(2 * message / 1e11)
    # Stages that lie on different nodes use a device's share of the network.
    assert traffic.neighbours(problem(pipeline=2, data=8), ideal())[0] == pytest.approx(2 * message / 1e10)
    assert traffic.neighbours(problem(), ideal())[0] == 0


def test_what_is_hidden_costs_only_what_outlasts_the_computation():
    half = ideal(exposed_data=0.5)
    one, two, four = np.array([1.0]), np.array([2.0]), np.array([4.0])
    assert traffic.exposed(half, two, one)[0] == pytest.approx(1)
    assert traffic.exposed(half, four, one)[0] == pytest.approx(3)
