"""What the machine says of itself, and whether its counters agree."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.campaigns import REPOSITORY
from tests.gpu.ledger import Bench, Claim

LOAD_S, SAMPLE_S = 6.0, 0.05
ENERGY_TOLERANCE = 0.05


def examine(_: Bench) -> Iterator[Claim]:
    """The doctor finds the GPU and no problem; the server that forks ranks keeps away from it."""
    from parbench.launch.fork_server import ForkServer
    from parbench.system.devices import detect
    from parbench.system.environment import capture

    speed = capture().speed
    yield Claim("a GPU is found", detect().gpus > 0, speed.model_dump(mode="json", exclude={"variables"}))
    command = [sys.executable, "-m", "parbench", "doctor"]
    doctor = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    holds = doctor.returncode == 0 and "TFLOP/s" in doctor.stdout
    yield Claim("the doctor measures the GPU's peak", holds, {"doctor": doctor.stdout, "errors": doctor.stderr})
    server = ForkServer()
    server.ready()
    links = [str(link.readlink()) for link in Path(f"/proc/{server.pid}/fd").iterdir() if link.is_symlink()]
    server.close()
    held = [link for link in links if link.startswith("/dev/nvidia")]
    yield Claim("the fork server holds no device file", bool(links) and not held, {"held": held})


def compare_energy(_: Bench) -> Iterator[Claim]:
    """NVML's counter of energy grows as the integral of the power that it shows."""
    import torch

    from parbench.system.nvml import gpu_of_torch, nvml

    with nvml() as driver:
        if driver is None:
            yield Claim("NVML answers", holds=False)
            return
        _, gpu = gpu_of_torch(driver, torch.cuda.get_device_properties(0).uuid)
        matrix = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
        powers, moments = [], []
        for _ in range(20):
            torch.mm(matrix, matrix)
        torch.cuda.synchronize()
        before = driver.nvmlDeviceGetTotalEnergyConsumption(gpu)
        started = time.monotonic()
        while (now := time.monotonic()) < started + LOAD_S:
            torch.mm(matrix, matrix)
            torch.cuda.synchronize()
            if not moments or now - moments[-1] >= SAMPLE_S:
                powers.append(driver.nvmlDeviceGetPowerUsage(gpu) / 1000)
                moments.append(now)
        counted_j = (driver.nvmlDeviceGetTotalEnergyConsumption(gpu) - before) / 1000
        integral_j = sum(powers) / len(powers) * (time.monotonic() - started)
    ratio = counted_j / integral_j
    yield Claim(
        f"the energy counter is within {ENERGY_TOLERANCE:.0%} of the integral of power",
        abs(ratio - 1) <= ENERGY_TOLERANCE,
        {"counted_j": counted_j, "integral_j": integral_j, "mean_w": sum(powers) / len(powers)},
    )
