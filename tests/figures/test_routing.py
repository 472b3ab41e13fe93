"""Figures of experts, by hand arithmetic."""

import pytest

from parbench.figures.routing import dropped_share, expert_imbalance
from parbench.records.routing import RoutingRecord
from tests.support.records import rank, trial


def routed(*records: RoutingRecord | None, lanes: tuple[int, ...] = ()):
    """A trial whose ranks sent tokens so, each of the first lane unless told otherwise."""
    places = lanes or (0,) * len(records)
    ranks = [
        rank(number, lane=lane, routing=record)
        for number, (lane, record) in enumerate(zip(places, records, strict=True))
    ]
    return trial(ranks=tuple(ranks))


def test_imbalance_is_the_fullest_expert_over_the_mean_layer_by_layer():
    """Of two layers, one has 6 tokens with an expert instead of 4, the other is even."""
    assert expert_imbalance(routed(RoutingRecord(choices=((6, 2, 4), (4, 4, 4))))) == (1.5 + 1) / 2


def test_tokens_of_all_ranks_of_a_model_count_together():
    """What one rank sends to an expert more, another sends less."""
    halves = (RoutingRecord(choices=((3, 1),)), RoutingRecord(choices=((1, 3),)))
    assert expert_imbalance(routed(*halves)) == 1
    assert expert_imbalance(routed(*halves, lanes=(0, 1))) == 1.5


def test_layers_that_no_token_passed_do_not_count():
    assert expert_imbalance(routed(RoutingRecord(choices=((0, 0), (3, 1))))) == 1.5
    assert expert_imbalance(routed(RoutingRecord(choices=((0, 0),)))) is None
    assert dropped_share(routed(RoutingRecord(choices=((0, 0),)))) is None


def test_what_is_dropped_is_a_share_of_all_choices():
    records = (RoutingRecord(choices=((3, 1), (2, 2)), dropped=1), RoutingRecord(choices=((4, 0), (1, 3)), dropped=3))
    assert dropped_share(routed(*records)) == 4 / 16
    assert dropped_share(routed(RoutingRecord(choices=((3, 1),)))) == 0


@pytest.mark.parametrize("figure", [expert_imbalance, dropped_share])
def test_models_without_experts_have_neither(figure):
    assert figure(routed(None)) is None
