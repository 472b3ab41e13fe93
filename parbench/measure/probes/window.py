"""The probes that are read just before and just after every window of a rank."""

import time
from typing import Any

import torch

from parbench.measure.probes.energy import EnergyProbe
from parbench.measure.probes.memory import MemoryProbe
from parbench.measure.probes.surroundings import Surroundings


class WindowProbes:
    """Memory, surroundings and energy, and when the last window began and ended.

    The moments are seconds on the node's monotonic clock. `devices` are the rank's own, `node_devices` those of all
    ranks on its node.
    """

    def __init__(
        self, cpus: tuple[int, ...], devices: tuple[torch.device, ...], node_devices: tuple[torch.device, ...]
    ) -> None:
        self.memory = MemoryProbe(devices)
        self.surroundings = Surroundings(cpus, devices)
        self.energy = EnergyProbe(node_devices)
        self.started_s = self.stopped_s = 0.0

    def prepare_window(self) -> None:
        """Comes before the ranks meet for a window: what takes long there makes no rank wait in it."""
        self.energy.start_window()

    def start_window(self) -> None:
        """Comes right before the first step of a window."""
        self.memory.start_window()
        self.surroundings.start_window()
        self.started_s = time.monotonic()

    def end_window(self) -> None:
        """Comes right after its last step."""
        self.stopped_s = time.monotonic()
        self.energy.end_window()
        self.surroundings.end_window()
        self.memory.end_window()
        self.energy.keep_window()

    def read(self) -> dict[str, Any]:
        """The fields of a rank's record that these probes fill."""
        return {
            "memory": self.memory.read(),
            "surroundings": self.surroundings.read(),
            "energy": self.energy.read(),
        }
