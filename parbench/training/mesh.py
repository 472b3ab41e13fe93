"""Meshes of the ranks that train one model together."""

from functools import cache

from torch.distributed import ProcessGroup, device_mesh
from torch.distributed.device_mesh import DeviceMesh


@cache
def mesh_of(
    group: ProcessGroup | None,  # noqa: ARG001 - the ranks of another group have another mesh
    device_type: str,
    **degrees: int,
) -> DeviceMesh:
    """The mesh of all ranks, who are `group`: an axis for each degree, by its name; neighbours differ in the last one.

    Models that are trained one after another share its process groups.
    """
    return device_mesh.init_device_mesh(device_type, tuple(degrees.values()), mesh_dim_names=tuple(degrees))
