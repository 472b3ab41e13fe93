"""What GPUs can do at most: dense matrix operations in a second, for each precision, from makers' data sheets."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from parbench.base_types import Precision


class Peak(NamedTuple):
    """Operations in a second, in 10¹², without sparsity; None where the card has no unit for that format.

    `fp32` is outside of tensor cores. `fp16` is with sums in fp32, as training needs them, and is that of bf16 as well
    where the card computes in it.
    """

    fp32: float
    tf32: float | None
    fp16: float
    has_bf16: bool = True


class Card(NamedTuple):
    """A card's peak; `name` is a pattern for all of the name that NVML gives, `source` the maker's document."""

    name: str
    peak: Peak
    source: str


CARDS = (
    Card(r"Tesla V100-PCIE-(16|32)GB", Peak(14.0, None, 112.0, has_bf16=False), "NVIDIA V100 data sheet, 2020"),
    Card(
        r"Tesla V100-(SXM2-(16|32)GB|DGXS-(16|32)GB)",
        Peak(15.7, None, 125.0, has_bf16=False),
        "NVIDIA V100 data sheet, 2020",
    ),
    Card(r"NVIDIA A10", Peak(31.2, 62.5, 125.0), "NVIDIA A10 data sheet, 2021"),
    Card(r"NVIDIA A30", Peak(10.3, 82.0, 165.0), "NVIDIA A30 data sheet, 2022"),
    Card(r"NVIDIA A40", Peak(37.4, 74.8, 149.7), "NVIDIA A40 data sheet, 2021"),
    Card(
        r"(NVIDIA )?A100(-(SXM4|PCIE|PCIe)-(40|80)GB| 80GB PCIe)",
        Peak(19.5, 156.0, 312.0),
        "NVIDIA A100 data sheet, 2022",
    ),
    Card(r"NVIDIA A800(-SXM4-80GB| 80GB PCIe| 40GB Active)", Peak(19.5, 156.0, 312.0), "NVIDIA A800 data sheet, 2022"),
    Card(r"NVIDIA L4", Peak(30.3, 60.0, 121.0), "NVIDIA L4 data sheet, 2023"),
    Card(r"NVIDIA L40", Peak(90.5, 90.5, 181.05), "NVIDIA L40 data sheet, 2022"),
    Card(r"NVIDIA L40S", Peak(91.6, 183.0, 362.05), "NVIDIA L40S data sheet, 2023"),
    Card(r"NVIDIA H100 80GB HBM3", Peak(67.0, 494.7, 989.4), "NVIDIA H100 architecture white paper, 2023, table 2"),
    Card(r"NVIDIA H100 PCIe", Peak(51.2, 378.0, 756.0), "NVIDIA H100 architecture white paper, 2023, table 2"),
    Card(r"NVIDIA H100 NVL", Peak(60.0, 417.5, 835.5), "NVIDIA H100 data sheet, 2024"),
    Card(r"NVIDIA H20(-3e)?", Peak(44.0, 74.0, 148.0), "NVIDIA H20 product sheet, 2024"),
    Card(r"NVIDIA H200", Peak(67.0, 494.7, 989.4), "NVIDIA H200 data sheet, 2024"),
    Card(r"NVIDIA H200 NVL", Peak(60.0, 417.5, 835.5), "NVIDIA H200 data sheet, 2024"),
    Card(r"NVIDIA H800", Peak(67.0, 494.7, 989.4), "NVIDIA H800 product sheet, 2023"),
    Card(r"NVIDIA GH200 (480GB|120GB|144G HBM3e)", Peak(67.0, 494.7, 989.4), "NVIDIA GH200 data sheet, 2024"),
    Card(r"NVIDIA B200", Peak(75.0, 1100.0, 2250.0), "NVIDIA DGX B200 data sheet, 2024"),
    Card(r"NVIDIA GB200", Peak(80.0, 1250.0, 2500.0), "NVIDIA GB200 NVL72 data sheet, 2024"),
    Card(r"NVIDIA GeForce RTX 4090", Peak(82.6, 82.6, 165.2), "NVIDIA Ada GPU architecture white paper, 2023"),
    Card(
        r"NVIDIA GeForce RTX 5090",
        Peak(104.8, 104.8, 209.5),
        "NVIDIA RTX Blackwell GPU architecture white paper, 2025",
    ),
)
"""The cards that are matched, each by its whole name: a name that is not here has no peak, rather than a wrong one."""


def peaks_of(name: str) -> Mapping[str, float]:
    """Operations in a second of the card with this NVML name, by precision; empty where no data sheet is known."""
    peak = next((card.peak for card in CARDS if re.fullmatch(card.name, name)), None)
    if peak is None:
        return {}
    of_precision: dict[Precision, float | None] = {
        "fp32": peak.fp32,
        "tf32": peak.tf32,
        "fp16": peak.fp16,
        "bf16": peak.fp16 if peak.has_bf16 else None,
    }
    return {precision: 1e12 * tera for precision, tera in of_precision.items() if tera is not None}
