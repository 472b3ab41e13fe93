"""What the machine says of itself, and whether its counters agree."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gpu.campaigns import REPOSITORY, read
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


def compare_energy(bench: Bench) -> Iterator[Claim]:
    """NVML's counter of energy, and what a rank would record of it, grow as the integral of the power that it shows."""
    import torch

    from parbench.measure.probes.energy import EnergyProbe
    from parbench.system.nvml import gpu_of_torch, nvml

    with nvml() as driver:
        if driver is None:
            yield Claim("NVML answers", holds=False)
            return
        _, gpu = gpu_of_torch(driver, torch.cuda.get_device_properties(0).uuid)
        matrix = torch.rand(8192, 8192, device="cuda", dtype=torch.bfloat16)
        probe = EnergyProbe([torch.device("cuda", 0)])
        powers, moments = [], []
        for _ in range(20):
            torch.mm(matrix, matrix)
        torch.cuda.synchronize()
        probe.start_window()
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
        probe.end_window()
        probe.keep_window()
    ratio = counted_j / integral_j
    yield Claim(
        f"the energy counter is within {ENERGY_TOLERANCE:.0%} of the integral of power",
        abs(ratio - 1) <= ENERGY_TOLERANCE,
        {"counted_j": counted_j, "integral_j": integral_j, "mean_w": sum(powers) / len(powers)},
    )
    record = probe.read()
    assert record is not None
    (readings,) = record.gpus
    recorded_j = readings.energy_j.value or 0.0
    yield Claim(
        f"what a rank records is the counter's, and within {ENERGY_TOLERANCE:.0%} of the integral",
        readings.energy_j.source == "counter" and abs(recorded_j / integral_j - 1) <= ENERGY_TOLERANCE,
        record.model_dump(mode="json"),
    )
    yield from _compare_cells(bench, max(powers))


def _compare_cells(bench: Bench, most_w: float) -> Iterator[Claim]:
    """The cells of an earlier step have energy by the counter, and no more power than a GPU under full load."""
    folder = bench.out / "gpt2"
    if not (folder / "run.json").exists():
        return
    campaign = read(folder)
    watts, ratios = campaign.figures("mean_power_w"), campaign.figures("tokens_per_joule")
    sources = {campaign.rows[cell]["tokens_per_joule_source"] for cell in ratios}
    yield Claim(
        "every cell of GPT-2 has tokens per joule by the counter, at a power below that of full load",
        bool(ratios) and sources == {"counter"} and max(watts.values()) <= most_w * (1 + 2 * ENERGY_TOLERANCE),
        {"tokens_per_joule": ratios, "mean_power_w": watts, "most_w": most_w},
    )
