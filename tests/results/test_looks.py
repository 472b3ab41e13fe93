import json
from itertools import combinations
from pathlib import Path

import pytest

from parbench.results.looks import COLOURS, DARK_PALETTE, DASHES, GLYPHS, MARKERS, PALETTE, colour_of, look_of, looks
from parbench.strategies.base import STRATEGIES

STORED = Path(__file__).parents[2] / "results/stored"
DARK_GROUND = "#171b21"


def linear(colour: str) -> list[float]:
    parts = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
    return [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]


def luminance(colour: str) -> float:
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_parbenchs_own_strategies_have_colours_of_their_own():
    assert sorted(COLOURS.values()) == list(range(len(PALETTE)))
    assert COLOURS.keys() <= set(STRATEGIES.names())


def test_any_other_strategy_has_the_colour_that_follows_from_its_name():
    assert len({colour_of(f"plugin{number}") for number in range(60)}) == len(PALETTE)
    assert colour_of("an_eleventh") == colour_of("an_eleventh")


def test_a_look_follows_from_the_label_alone():
    alone = looks([("ddp", "ddp(hook=fp16)")])["ddp(hook=fp16)"]
    others = [("single", "single"), ("ddp", "ddp"), ("mine", "mine(x=1)")]
    assert looks([*others, ("ddp", "ddp(hook=fp16)")])["ddp(hook=fp16)"] == alone
    assert looks([("ddp", "ddp")])["ddp"] == looks([("ddp", "ddp(hook=fp16)"), *others])["ddp"]
    assert alone == look_of("ddp", "ddp(hook=fp16)")
    assert alone.colour == colour_of("ddp")


def test_a_strategy_without_options_is_solid_and_its_variants_have_neither_its_line_nor_its_marker():
    own = look_of("pipe", "pipe")
    variants = [look_of("pipe", f"pipe(stages={number})") for number in range(40)]
    assert own.linestyle == "solid"
    assert all(look.dash and look.marker != own.marker for look in variants)


def test_variants_of_one_report_have_markers_of_their_own_in_whatever_order_they_are_given():
    labels = [("pipe", f"pipe(stages={number})") for number in range(len(MARKERS) - 1)]
    found = looks(labels)
    assert len({look.colour for look in found.values()}) == 1
    assert len({look.marker for look in found.values()}) == len(labels)
    assert looks(reversed(labels)) == found


@pytest.mark.parametrize("plan", sorted(STORED.glob("*/run.json")), ids=lambda plan: plan.parent.name)
def test_no_variant_of_parbenchs_own_scenarios_has_to_make_way(plan):
    labels = {(cell["strategy"], cell["label"]) for cell in json.loads(plan.read_text())["cells"]}
    # strategies_full has more variants of hybrid than there are markers.
    for label, look in looks(each for each in labels if each[0] != "hybrid").items():
        assert look == look_of(label.partition("(")[0], label)


def test_no_two_of_many_labels_look_the_same():
    found = looks((f"plugin{number}", f"plugin{number}") for number in range(60))
    for a, b in combinations(found.values(), 2):
        assert a != b


def test_markers_have_glyphs():
    assert len(GLYPHS) == len(MARKERS) == len(set(GLYPHS))
    assert len(set(DASHES)) == len(DASHES)


@pytest.mark.parametrize("colour", DARK_PALETTE)
def test_every_colour_stands_out_from_a_dark_page(colour):
    assert contrast(colour, DARK_GROUND) >= 3


@pytest.mark.parametrize("palette", [PALETTE, DARK_PALETTE], ids=["light", "dark"])
def test_colours_differ_for_readers_who_see_two_primaries(palette):
    """Machado's matrices for full deuteranopia and protanopia; differences in OKLab, where 0.02 is just noticeable."""
    simulations = (
        ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
        ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    )
    for matrix in simulations:
        seen = [oklab([max(0.0, dot(row, linear(colour))) for row in matrix]) for colour in palette]
        for a, b in combinations(seen, 2):
            assert sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 > 0.04


def oklab(rgb: list[float]) -> list[float]:
    to_cones = (
        (0.4122214708, 0.5363325363, 0.0514459929),
        (0.2119034982, 0.6806995451, 0.1073969566),
        (0.0883024619, 0.2817188376, 0.6299787005),
    )
    to_lab = (
        (0.2104542553, 0.7936177850, -0.0040720468),
        (1.9779984951, -2.4285922050, 0.4505937099),
        (0.0259040371, 0.7827717662, -0.8086757660),
    )
    cones = [dot(row, rgb) ** (1 / 3) for row in to_cones]
    return [dot(row, cones) for row in to_lab]


def dot(a, b) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
