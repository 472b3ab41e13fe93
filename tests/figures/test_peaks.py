"""Peaks by the names that NVML gives cards, and the MFU that is relative to them."""

import re
from pathlib import Path

import pytest

from parbench.figures.peaks import CARDS, peaks_of
from parbench.results.judged_cells import judge_cells
from parbench.results.store import Run
from parbench.results.tables import cells_table
from tests.support.records import cell, rank, reference, run, run_record, trial

NAMES = (
    "Tesla V100-PCIE-16GB", "Tesla V100-SXM2-32GB", "NVIDIA A10", "NVIDIA A30", "NVIDIA A40", "NVIDIA A100-SXM4-40GB",
    "NVIDIA A100-SXM4-80GB", "NVIDIA A100-PCIE-40GB", "NVIDIA A100 80GB PCIe", "NVIDIA A800-SXM4-80GB", "NVIDIA L4",
    "NVIDIA L40", "NVIDIA L40S", "NVIDIA H100 80GB HBM3", "NVIDIA H100 PCIe", "NVIDIA H100 NVL", "NVIDIA H20",
    "NVIDIA H200", "NVIDIA H200 NVL", "NVIDIA H800", "NVIDIA GH200 480GB", "NVIDIA B200", "NVIDIA GB200",
    "NVIDIA GeForce RTX 4090", "NVIDIA GeForce RTX 5090",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_card_has_a_peak_in_every_precision_that_it_computes_in(name):
    peaks = peaks_of(name)
    assert peaks["fp32"] <= peaks.get("tf32", peaks["fp16"]) <= peaks["fp16"]
    assert ("bf16" in peaks) == ("tf32" in peaks) == ("V100" not in name)


@pytest.mark.parametrize(
    "name",
    [
        "NVIDIA H1000",
        "NVIDIA A1000",
        "NVIDIA A10G",
        "NVIDIA L400",
        "NVIDIA H200 X",
        "NVIDIA GeForce RTX 4090 D",
        "NVIDIA GeForce RTX 4090 Laptop GPU",
        "NVIDIA RTX 4000 Ada Generation",
        "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
        "",
    ],
)
def test_a_name_that_only_begins_like_a_known_card_has_no_peak(name):
    assert peaks_of(name) == {}


def test_every_card_names_its_source_and_no_name_matches_two():
    assert all(card.source for card in CARDS)
    assert all(sum(bool(re.fullmatch(card.name, name)) for card in CARDS) == 1 for name in NAMES)


@pytest.mark.parametrize(("precision", "peak"), [("fp32", 67e12), ("tf32", 494.7e12), ("bf16", 989.4e12)])
def test_utilisation_is_relative_to_the_peak_of_the_cells_precision(precision, peak):
    environment = {"speed": {"accelerators": [{"name": "NVIDIA H100 80GB HBM3", "memory_gib": 80, "count": 1}]}}
    of = cell(device_kind="cuda", precision=precision)
    run = Run(Path("made-up"), run_record((of,), environment=environment), (trial(of),), ())
    assert judge_cells(run)[0].peak_flops == peak


def test_a_cell_on_the_cpu_is_not_measured_by_the_gpu_beside_it():
    environment = {"speed": {"accelerators": [{"name": "NVIDIA H100 80GB HBM3", "memory_gib": 80, "count": 1}]}}
    of = cell()
    run = Run(Path("made-up"), run_record((of,), environment=environment), (trial(of),), ())
    assert judge_cells(run)[0].peak_flops is None


def measured(of, flops, **changes):
    """The trial of a cell's reference, which measures matrix products."""
    ranks = (rank(matmul_flops=flops), rank(1))
    return reference(of, **{"ranks": ranks, **changes})


def test_utilisation_is_also_relative_to_the_peak_that_the_cells_own_reference_measured():
    single, half = cell(flops_per_token=1e6), cell("ddp", 2, flops_per_token=1e6, precision="bf16", reference="other")
    trials = (trial(single), trial(half), measured(single, 1e10), measured(half, 4e10))
    table = cells_table(run((single, half), trials))
    # 2,560 tokens/s of 1 MFLOP, over 10 GFLOP/s and over two times 40 GFLOP/s
    assert table["mfu_measured"].tolist() == pytest.approx([0.256, 0.032])
    assert table["mfu"].isna().all()
    assert table["model_flops_per_token"].tolist() == [1e6, 1e6]


def test_without_a_measured_peak_there_is_no_utilisation_over_it():
    of = cell(flops_per_token=1e6)
    for trials in ([], [measured(of, None)], [measured(of, 1e10, status="failed", reason="fell over")]):
        assert cells_table(run((of,), [trial(of), *trials]))["mfu_measured"].isna().all()


def test_of_several_sessions_the_fastest_products_are_the_peak():
    of = cell(flops_per_token=1e6)
    sessions = [
        Run(Path(name), run_record((of,), id=name), (trial(of), measured(of, flops)), ())
        for name, flops in (("one", 1e10), ("two", 2e10))
    ]
    pooled = Run(Path("pooled"), sessions[0].record, (), (), tuple(sessions))
    (judged,) = judge_cells(pooled)
    assert judged.matmul_flops == 2e10
    assert {launch.matmul_flops for launch in judged.launches} == {2e10}
