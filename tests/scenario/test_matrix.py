import math
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from parbench.scenario.matrix import expects_list, nested_model, variant_count, variants


class Ball(BaseModel):
    shape: Literal["ball"]
    weight: int = 1


class Box(BaseModel):
    shape: Literal["box"]
    sides: int = 6


class Cat(BaseModel):
    lives: int = 9
    toys: list[str] = []


class Dog(BaseModel):
    tricks: list[str] = []


class Home(BaseModel):
    pet: Cat | Dog = Cat()
    rooms: int = 1
    rents: Annotated[tuple[float, ...], Field(strict=False)] | None = None


def test_without_a_list_there_is_one_variant_and_nothing_to_tell():
    assert list(variants({"rooms": 2, "pet": {"lives": 7}}, Home)) == [({"rooms": 2, "pet": {"lives": 7}}, {})]


def test_every_combination_is_a_variant_and_the_last_list_runs_fastest():
    assert list(variants({"rooms": [1, 2], "pet": {"lives": [7, 9]}}, Home)) == [
        ({"rooms": 1, "pet": {"lives": 7}}, {"rooms": 1, "lives": 7}),
        ({"rooms": 1, "pet": {"lives": 9}}, {"rooms": 1, "lives": 9}),
        ({"rooms": 2, "pet": {"lives": 7}}, {"rooms": 2, "lives": 7}),
        ({"rooms": 2, "pet": {"lives": 9}}, {"rooms": 2, "lives": 9}),
    ]


@pytest.mark.parametrize(
    "data",
    [
        {"rents": [1.0, 2.0]},
        {"pet": {"toys": ["ball", "mouse"]}},
        {"pet": {"tricks": ["sit", "roll"]}},
        {"rooms": []},
    ],
)
def test_a_list_that_is_one_value_stays_as_it_is(data):
    assert list(variants(data, Home)) == [(data, {})]


def test_of_several_models_the_one_that_knows_the_keys_decides():
    assert nested_model(Cat | Dog, {"tricks": []}) is Dog
    assert nested_model(Cat | Dog, {"lives": 1, "toys": []}) is Cat
    assert nested_model(int, {"lives": 1}) is None


@pytest.mark.parametrize(("shape", "model"), [("ball", Ball), ("box", Box)])
def test_a_literal_decides_before_the_number_of_keys(shape, model):
    assert nested_model(Ball | Box, {"shape": shape, "weight": 1, "sides": 2}) is model
    assert nested_model(Box | Ball, {"shape": shape, "wieght": 1}) is model


def test_lists_of_unknown_keys_make_variants_too():
    assert [variant for variant, _ in variants({"roms": [1, 2]}, Home)] == [{"roms": 1}, {"roms": 2}]
    assert [variant for variant, _ in variants({"a": {"b": [1, 2]}}, None)] == [{"a": {"b": 1}}, {"a": {"b": 2}}]


def test_a_whole_mapping_can_be_one_of_the_values():
    pets = [{"lives": 7}, {"tricks": ["sit"]}]
    assert [variant["pet"] for variant, _ in variants({"pet": pets}, Home)] == pets


def test_variants_share_nothing_that_is_set_in_one_of_them():
    data = {"pet": {"lives": [7, 9]}}
    first, second = (variant for variant, _ in variants(data, Home))
    assert (first, second) == ({"pet": {"lives": 7}}, {"pet": {"lives": 9}})
    assert data == {"pet": {"lives": [7, 9]}}


@pytest.mark.parametrize(
    ("annotation", "takes_list"),
    [
        (int, False),
        (list, True),
        (list[int], True),
        (tuple[int, ...] | None, True),
        (Annotated[tuple[int, ...], Field(strict=False)], True),
        (dict[str, list[int]], False),
        (None, False),
    ],
)
def test_which_types_take_a_list(annotation, takes_list):
    assert expects_list(annotation) is takes_list


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers() | st.lists(st.integers(), max_size=4, unique=True)))
def test_there_are_as_many_variants_as_the_product_of_the_lengths(data):
    lengths = [len(value) for value in data.values() if isinstance(value, list) and value]
    found = list(variants(data, None))
    assert len(found) == math.prod(lengths) == variant_count(data, None)
    assert len({str(variant) for variant, _ in found}) == len(found)
    for variant, differences in found:
        assert variant.keys() == data.keys()
        assert all(variant[key] == value and value in data[key] for key, value in differences.items())


def test_variants_are_counted_without_being_made():
    assert variant_count({str(key): list(range(10)) for key in range(100)}, None) == 10**100


def test_a_list_within_a_mapping_of_a_list_makes_variants_of_that_mapping():
    data = {"rooms": 1, "pet": [{"lives": [7, 9]}, {"tricks": ["sit"]}]}
    assert variant_count(data, Home) == 3
    assert list(variants(data, Home)) == [
        ({"rooms": 1, "pet": {"lives": 7}}, {"lives": 7}),
        ({"rooms": 1, "pet": {"lives": 9}}, {"lives": 9}),
        ({"rooms": 1, "pet": {"tricks": ["sit"]}}, {"tricks": ["sit"]}),
    ]


def test_of_mappings_in_a_list_only_what_differs_is_told():
    data = {"pet": [{"name": "a", "lives": 7}, {"name": "a", "lives": 9}]}
    assert [told for _, told in variants(data, Home)] == [{"lives": 7}, {"lives": 9}]
