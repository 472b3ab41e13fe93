"""Meshes of ranks. Models that are trained one after another share their process groups."""

from functools import cache

from torch import distributed
from torch.distributed import ProcessGroup, device_mesh
from torch.distributed.device_mesh import DeviceMesh


@cache
def init_mesh(
    group: ProcessGroup | None,  # noqa: ARG001 - the ranks of another group have another mesh
    device_type: str,
    degrees: tuple[int, int, int],
) -> DeviceMesh:
    """The mesh of all ranks, who are `group`: replicas, their stages and the parts of these."""
    return device_mesh.init_device_mesh(device_type, degrees, mesh_dim_names=("replicas", "pipeline", "tensor"))


@cache
def init_context_group(group: ProcessGroup | None, device_type: str, context: int, parts: int) -> ProcessGroup:
    """Those of all ranks, who are `group`, that share sequences with this one.

    They are the same part of `context` consecutive replicas of a model, each of which has `parts`.
    """
    shape = (distributed.get_world_size(group) // (context * parts), context, parts)
    mesh = device_mesh.init_device_mesh(device_type, shape, mesh_dim_names=("data", "context", "part"))
    return mesh["context"].get_group()
