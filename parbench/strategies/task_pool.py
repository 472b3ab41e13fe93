"""Task parallelism: independent models on independent devices, without communication."""

from typing import Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Layout, Strategy
from parbench.system.devices import Devices


class TaskPoolOptions(Options):
    """`tasks_per_device` models share a device: small models leave much of a large GPU idle.

    With `aggregate: average`, the parameters of all trained models are averaged into one model at the end, whose
    validation loss is reported.
    """

    tasks_per_device: PositiveInt = 1
    aggregate: Literal["none", "average"] = "none"


class TaskPool(Strategy[TaskPoolOptions]):
    """A lane for each device. A lane that is free takes the next model from a queue, the longest first.

    Longest first: Graham 1969, "Bounds on Multiprocessing Timing Anomalies".
    """

    name = "task_pool"
    independent = True
    options_type = TaskPoolOptions

    @classmethod
    def layout(cls, options: TaskPoolOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a lane for each concurrent task; raises `Unsupported` where models are fewer than lanes."""
        lanes = devices.count * options.tasks_per_device
        if workload.models != "auto" and workload.models < lanes:
            what = f"{devices.count} devices" + (f" × {options.tasks_per_device} tasks" * (lanes > devices.count))
            raise Unsupported(f"a pool of {what} needs at least {lanes} models")
        if options.aggregate != "none" and workload.phase != "train":
            raise Unsupported("aggregate averages trained models; this workload trains none")
        return Layout(
            processes=lanes,
            processes_per_device=options.tasks_per_device,
            lanes=lanes,
            queued=True,
            averaged=options.aggregate == "average",
        )
