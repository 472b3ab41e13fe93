"""Task parallelism: independent models on independent devices, without a word between them."""

from parbench.devices import Devices
from parbench.errors import Unsupported
from parbench.scenario import Options, WorkloadSpec
from parbench.strategies.base import Layout, Strategy


class TaskPool(Strategy[Options]):
    """A lane for each device; a lane trains whole models, one after another."""

    name = "task_pool"

    @classmethod
    def layout(cls, options: Options, workload: WorkloadSpec, devices: Devices) -> Layout:  # noqa: ARG003
        """A process and a lane for each device; raises `Unsupported` where there are fewer models than devices."""
        if workload.models != "auto" and workload.models < devices.count:
            raise Unsupported(f"a pool of {devices.count} devices needs at least {devices.count} models")
        return Layout(processes=devices.count, lanes=devices.count)
