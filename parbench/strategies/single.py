"""One device: the reference that every other strategy is compared with."""

from parbench.devices import Devices
from parbench.errors import Unsupported
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import Layout, Strategy


class Single(Strategy[Options]):
    """The whole model in one process on one device; several models are trained one after another."""

    name = "single"
    reference = True
    scales = False

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """One process; raises `Unsupported` for more than one device."""
        if devices.count != 1:
            raise Unsupported("runs on one device only")
        return Layout(processes=1)
