"""What goes wrong on a GPU is told, and costs only its own cell."""

import time
from collections.abc import Iterator

from tests.gpu.campaigns import SCENARIOS, run
from tests.gpu.ledger import Bench, Claim

BACK_S = 5.0
SLACK = 512 * 2**20


def run_out_of_memory(bench: Bench) -> Iterator[Claim]:
    """A batch that does not fit, a trial that takes too long, and a cell after each that is well."""
    before = _used_memory()
    campaign = run(bench, SCENARIOS / "faults.yaml")
    ended = time.monotonic()
    status = {row["workload"]: row["status"] for row in campaign.rows.values()}
    expected = {"too_large": "out_of_memory", "too_long": "timed_out", "well": "ok"}
    yield Claim("lack of memory and of time are recognised, and the next cell is well", status == expected, status)
    while (after := _used_memory()) > before + SLACK and time.monotonic() < ended + BACK_S:
        time.sleep(0.1)
    yield Claim(f"the memory is back within {BACK_S:g} s", after <= before + SLACK, {"before": before, "after": after})


def _used_memory() -> int:
    """The bytes in use on all visible GPUs."""
    from parbench.system.nvml import gpu_handles, nvml

    with nvml() as driver:
        if driver is None:
            return 0
        return sum(int(driver.nvmlDeviceGetMemoryInfo(gpu).used) for gpu in gpu_handles(driver))
