"""Named sizes: what an unknown one is told, and that what is written beside one overrides it."""

import pytest

from parbench.plan.reading import catalogue
from parbench.scenario.document import parse_document
from parbench.scenario.loader import Draft, draft_scenario

FAMILIES = catalogue().families
KINDS = [kind for kind, family in FAMILIES.items() if family.presets]


def draft(model: str) -> Draft:
    text = f"workloads:\n  w:\n    model: {{{model}}}\nstrategies: [single]\n"
    return draft_scenario(parse_document(text, "file.yaml"), catalogue(), default_name="any")


def model_of(written: str):
    made = draft(written)
    assert made.mistakes == []
    return made.scenario.workloads["w"].model


@pytest.mark.parametrize(
    ("kind", "known"),
    [
        ("lstm", "'lstm-laptop', 'lstm-desktop', 'zaremba-medium' or 'zaremba-large'"),
        ("transformer", "'gpt-laptop', 'gpt-desktop', 'gpt2-124m', 'gpt2-350m', 'gpt2-774m' or 'gpt2-1.5b'"),
        ("llama", "'llama-laptop', 'tinyllama-1.1b' or 'llama3.2-1b'"),
    ],
)
def test_an_unknown_preset_is_told_the_known_ones(kind, known):
    (found,) = draft(f"kind: {kind}, preset: gpt5").mistakes
    assert str(found) == f"file.yaml:3: workloads.w.model.preset: must be {known}; got 'gpt5'"


@pytest.mark.parametrize("kind", KINDS)
def test_a_preset_gives_its_sizes_and_what_is_written_beside_it_overrides_them(kind):
    for name, sizes in FAMILIES[kind].presets.items():
        model = model_of(f"kind: {kind}, preset: {name}")
        assert {field: getattr(model, field) for field in sizes} == sizes
        assert model_of(f"kind: {kind}, preset: {name}, layers: 3") == model.model_copy(update={"layers": 3})


@pytest.mark.parametrize("kind", KINDS)
def test_presets_that_are_listed_are_those_that_can_be_named(kind):
    named = FAMILIES[kind].model_json_schema()["properties"]["preset"]["anyOf"][0]["enum"]
    assert named == list(FAMILIES[kind].presets)
