"""What the GPUs of this machine reach in matrix products, beside what their makers' data sheets say."""

from collections.abc import Iterator

import torch

from parbench.base_types import Precision
from parbench.figures.peaks import peaks_of
from parbench.measure.probes.matmul import measure_matmul_flops
from parbench.measure.team import set_precision
from parbench.system.doctor.check import Check

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")


def check_peaks() -> Iterator[Check]:
    """How fast is each GPU in matrix products? No model can be faster."""
    for index in range(torch.cuda.device_count()):
        device = torch.device("cuda", index)
        peaks = peaks_of(torch.cuda.get_device_name(device))
        rates = ", ".join(_describe_rate(device, precision, peaks.get(precision)) for precision in PRECISIONS)
        yield Check(f"GPU {index}", "ok", f"matrix products, measured: {rates}")


def _describe_rate(device: torch.device, precision: Precision, peak: float | None) -> str:
    set_precision(precision)
    flops = measure_matmul_flops(device, precision)
    share = f" ({flops / peak:.0%} of the data sheet's)" if peak else ""
    return f"{precision} {flops / 1e12:.0f} TFLOP/s{share}"
