"""A task of a SLURM step that reports on its node: one on each node, before the campaign is planned."""

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from parbench.launch.code_digest import sources_digest
from parbench.launch.node import inspect_node
from parbench.launch.slurm.messages import Channel, Meeting, NodeReport, RankEnd, Ready, own_address, split_file
from parbench.models.base import FAMILIES
from parbench.strategies.base import STRATEGIES
from parbench.system.devices import Machine, detect
from parbench.system.environment import capture


def main(files: list[str]) -> None:
    """Reports on this node; `files` are the paths of data that ranks will read there."""
    channel = Channel()
    node = int(os.environ["SLURM_NODEID"])
    machine = detect_allocation()
    environment = capture().model_dump(mode="json")
    channel.send(Ready(rank=node, node=os.environ["SLURMD_NODENAME"], step=os.environ["SLURM_STEP_ID"]))
    meeting = Meeting.model_validate_json(sys.stdin.buffer.readline())
    clock_s = time.time()
    report = NodeReport(
        record=inspect_node(node, own_address(meeting)),
        cores=machine.cores,
        gpus=machine.gpus,
        compute_capability=machine.compute_capability,
        gpu_cpus=machine.gpu_cpus,
        environment=environment,
        code=measuring_code(),
        lacks=tuple(file for file in files if not Path(file).is_file()),
        clock_s=clock_s,
    )
    channel.send(*split_file(node, "json", report.model_dump_json().encode()), RankEnd(rank=node))


def measuring_code() -> str:
    """The digest of all code that may measure here, all plug-ins included: a node does not know the scenario."""
    return sources_digest([*STRATEGIES.classes().values(), *FAMILIES.classes().values()])


def detect_allocation() -> Machine:
    """The part of this node that the job may use: SLURM may give only a number of CPUs, and not say which."""
    machine, left = detect(), int(os.environ["SLURM_CPUS_ON_NODE"])
    cores: list[tuple[int, ...]] = []
    for core in machine.cores:
        left -= len(core)
        if left >= 0 or not cores:
            cores.append(core)
    return replace(machine, cores=tuple(cores))


if __name__ == "__main__":
    main(sys.argv[1:])
