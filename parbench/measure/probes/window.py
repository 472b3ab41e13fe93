"""The probes that are read just before and just after every window of a rank."""

import time
from typing import Any

import torch

from parbench.measure.probes.memory import MemoryProbe
from parbench.measure.probes.surroundings import Surroundings


class WindowProbes:
    """Memory and surroundings, and when the last window began and ended (seconds on the node's monotonic clock)."""

    def __init__(self, cpus: tuple[int, ...], devices: tuple[torch.device, ...]) -> None:
        self.memory = MemoryProbe(devices)
        self.surroundings = Surroundings(cpus, devices)
        self.started_s = self.stopped_s = 0.0

    def window_starts(self) -> None:
        """Comes right before the first step of a window."""
        self.memory.window_starts()
        self.surroundings.window_starts()
        self.started_s = time.monotonic()

    def window_ends(self) -> None:
        """Comes right after its last step."""
        self.stopped_s = time.monotonic()
        self.surroundings.window_ends()
        self.memory.window_ends()

    def read(self) -> dict[str, Any]:
        """The fields of a rank's record that these probes fill."""
        return {"memory": self.memory.read(), "surroundings": self.surroundings.read()}
