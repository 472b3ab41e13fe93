"""A task of a SLURM step that tells what its node is: one on each node, before anything is planned for them."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from parbench.launch.code_digest import sources_digest
from parbench.launch.node import describe
from parbench.launch.slurm.messages import Channel, Ended, Meeting, NodeReport, Ready, own_address, parts
from parbench.models.base import FAMILIES
from parbench.strategies.base import STRATEGIES
from parbench.system.devices import Machine, detect
from parbench.system.environment import capture


def main(files: list[str]) -> None:
    """Tells of this node; the files are those that ranks will want to read there."""
    channel = Channel()
    node = int(os.environ["SLURM_NODEID"])
    machine = granted()
    environment = capture().model_dump(mode="json")
    channel.tell(Ready(rank=node, node=os.environ["SLURMD_NODENAME"], step=os.environ["SLURM_STEP_ID"]))
    meeting = Meeting.model_validate_json(sys.stdin.buffer.readline())
    clock_s = time.time()
    report = NodeReport(
        record=describe(node, own_address(meeting)),
        cores=machine.cores,
        gpus=machine.gpus,
        compute_capability=machine.compute_capability,
        environment=environment,
        code=measuring_code(),
        lacks=tuple(file for file in files if not Path(file).is_file()),
        clock_s=clock_s,
    )
    channel.tell(*parts(node, "json", report.model_dump_json().encode()), Ended(rank=node))


def measuring_code() -> str:
    """The digest of all code that may measure here, plug-ins included: a node knows no campaign."""
    return sources_digest([*STRATEGIES.classes().values(), *FAMILIES.classes().values()])


def granted() -> Machine:
    """What of this node the job has: where SLURM does not bind, the number of CPUs is all that it says."""
    machine, left = detect(), int(os.environ["SLURM_CPUS_ON_NODE"])
    cores: list[tuple[int, ...]] = []
    for core in machine.cores:
        left -= len(core)
        if left >= 0 or not cores:
            cores.append(core)
    return replace(machine, cores=tuple(cores))


if __name__ == "__main__":
    main(sys.argv[1:])
