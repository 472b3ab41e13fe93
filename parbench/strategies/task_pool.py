"""Task parallelism: independent models on independent devices, without a word between them."""

from typing import Literal

from pydantic import PositiveInt

from parbench.errors import Unsupported
from parbench.scenario.specs import Options, WorkloadSpec
from parbench.strategies.base import Layout, Strategy
from parbench.system.devices import Devices


class TaskPoolOptions(Options):
    """`tasks_per_device` models share a device at a time: small models leave much of a large GPU idle.

    With `aggregate: average`, the parameters of all trained models are averaged into one at the end, and its
    validation loss is reported.
    """

    tasks_per_device: PositiveInt = 1
    aggregate: Literal["none", "average"] = "none"


class TaskPool(Strategy[TaskPoolOptions]):
    """A lane for each device; a lane that is free takes the next model of the queue, the longest first.

    Longest first: Graham 1969, "Bounds on Multiprocessing Timing Anomalies".
    """

    name = "task_pool"
    options_type = TaskPoolOptions

    @classmethod
    def layout(cls, options: TaskPoolOptions, workload: WorkloadSpec, devices: Devices) -> Layout:
        """A process and a lane for each task at a time; raises `Unsupported` where there are fewer models than that."""
        lanes = devices.count * options.tasks_per_device
        if workload.models != "auto" and workload.models < lanes:
            what = f"{devices.count} devices" + (f" × {options.tasks_per_device} tasks" * (lanes > devices.count))
            raise Unsupported(f"a pool of {what} needs at least {lanes} models")
        if options.aggregate != "none" and workload.phase != "train":
            raise Unsupported("only trained models are averaged (aggregate)")
        return Layout(
            processes=lanes,
            processes_per_device=options.tasks_per_device,
            lanes=lanes,
            queued=True,
            averaged=options.aggregate == "average",
        )
