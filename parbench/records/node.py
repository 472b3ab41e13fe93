"""A node of a run."""

from pydantic import Field

from parbench.base_types import Record


class NodeRecord(Record):
    """A node of a run, and its link to the other nodes.

    `interface` is the network interface that has the node's `address`; `interface_mbit` is its speed according to the
    kernel, and `shaped_mbit` the rate to which traffic control limits it (both in Mbit/s). `gpu_links` is the field of
    the environment. `machine` is equal for nodes that are parts of one machine, such as network namespaces.
    `clock_offset_s` is how far the node's clock is ahead of node 0's (seconds), and `differs` names the fields of the
    environment that are not as on node 0.
    """

    node: int
    host: str
    address: str
    interface: str | None = None
    interface_mbit: int | None = None
    shaped_mbit: float | None = None
    gpu_links: dict[str, str] = Field(default_factory=dict)
    machine: str
    clock_offset_s: float = 0.0
    differs: tuple[str, ...] = ()

    @property
    def mbit(self) -> float | None:
        """The rate of its link in Mbit/s; None where it is unknown."""
        return self.shaped_mbit or self.interface_mbit

    @property
    def link(self) -> str:
        """Its link as text, such as `eth0, 10,000 Mbit/s`."""
        speed = f", {self.interface_mbit:,} Mbit/s" if self.interface_mbit else ""
        limit = f", limited to {self.shaped_mbit:,g} Mbit/s" if self.shaped_mbit else ""
        return f"{self.interface or 'unknown interface'}{speed}{limit}"
