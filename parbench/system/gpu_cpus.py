"""The CPUs beside each GPU, those of its NUMA node, and how ranks divide them.

From another node a rank reaches its GPU, and the memory that it copies from, over the link between the nodes.
"""

from collections.abc import Sequence
from typing import Any

from parbench.system.kernel import PCI_DEVICES, cpus_in
from parbench.system.nvml import answer, whole_gpu

Core = tuple[int, ...]
"""The logical CPUs of a physical core."""


def cpus_beside(driver: Any, gpu: Any) -> frozenset[int]:
    """The logical CPUs of the node that a GPU is on, or the GPU of a slice; empty where nobody tells.

    They are all CPUs where there is one node, and in a virtual machine that hides its nodes.
    """
    pci = None if gpu is None else answer(driver.nvmlDeviceGetPciInfo, whole_gpu(driver, gpu))
    if pci is None:
        return frozenset()
    return cpus_in(PCI_DEVICES / f"{pci.domain:04x}:{pci.bus:02x}:{pci.device:02x}.0" / "local_cpulist")


def divide_cores(beside: Sequence[Sequence[Core]], ranks: int) -> tuple[tuple[Core, ...], ...]:
    """The cores of each of `ranks` ranks that drive GPUs, an equal number of GPUs each or of ranks to a GPU.

    `beside` are the cores beside each of these GPUs, at least one. Ranks beside the same cores divide them; where
    there are fewer cores than ranks, each has one, and some share it.
    """
    gpus = len(beside)
    own = [beside[rank * gpus // ranks : -(-(rank + 1) * gpus // ranks)] for rank in range(ranks)]
    near = [tuple(sorted({core for cores in each for core in cores})) for each in own]
    return tuple(_part(cores, near[:rank].count(cores), near.count(cores)) for rank, cores in enumerate(near))


def _part(cores: tuple[Core, ...], number: int, parts: int) -> tuple[Core, ...]:
    """Part `number` of `parts` equal parts of the cores."""
    size = max(1, len(cores) // parts)
    first = number * size % (len(cores) // size * size)
    return cores[first : first + size]
