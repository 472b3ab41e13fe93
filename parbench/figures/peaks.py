"""What accelerators can do at most, from their makers' data sheets. A device that is not listed has no known peak."""

PEAK_FLOPS = {
    "NVIDIA A100": 312e12,
    "NVIDIA H100 PCIe": 756e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H100 SXM": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA H200 NVL": 835e12,
    "NVIDIA L4": 121e12,
    "NVIDIA L40": 181e12,
    "NVIDIA L40S": 362e12,
    "Tesla V100-PCIE": 112e12,
    "Tesla V100-SXM2": 125e12,
}
"""Dense 16-bit matrix operations in a second, without sparsity, by the beginning of the device's name.

Sources: NVIDIA's data sheets of the A100 (2021), H100 (2023), H200 (2024), L4 (2023), L40 (2022), L40S (2023) and V100
(2018).
"""


def peak_flops(name: str) -> float | None:
    """The peak of the device called `name`; None where no data sheet is known."""
    known = [start for start in PEAK_FLOPS if name.startswith(start) and name.removeprefix(start)[:1] in ("", " ", "-")]
    return PEAK_FLOPS[max(known, key=len)] if known else None
