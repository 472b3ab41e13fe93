"""The cores of this node, for the ranks that another node has assigned to it: their numbers may differ there."""

from parbench.records.assignment import Assignment
from parbench.system.cpus import cpus_of
from parbench.system.devices import Machine


def with_own_cores(assignment: Assignment, machine: Machine, cores_per_device: int) -> Assignment:
    """The assignment, with as many CPU devices and ranks pinned as it has, to the cores of `machine`."""
    gpus, ranks = assignment.devices // assignment.nodes, len(assignment.rank_cores)
    return assignment.model_copy(
        update={
            "cores": machine.shares(len(assignment.cores), cores_per_device),
            "rank_cores": tuple(map(cpus_of, machine.cores_of_gpu_ranks(gpus, ranks))),
        }
    )
