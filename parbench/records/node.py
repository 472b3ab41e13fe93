"""A node of a run."""

from pydantic import Field

from parbench.base_types import Record


class NodeRecord(Record):
    """A node of a run, and how it is joined to the others.

    `interface` has the node's `address`; `interface_mbit` is its speed as the kernel tells it, `shaped_mbit` the rate
    that traffic control limits it to (both Mbit/s); `gpu_links` as in the environment. `machine` is the same for nodes
    that are only parts of one machine, such as network namespaces; `clock_offset_s` is how far the node's clock is
    ahead of the first node's, and `differs` names what else is not as there, by its field of the environment.
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
        """What its link lets through, in Mbit/s; None where that is not known."""
        return self.shaped_mbit or self.interface_mbit

    @property
    def link(self) -> str:
        """How it is joined to the others, in words."""
        rated = f", {self.interface_mbit:,} Mbit/s" if self.interface_mbit else ""
        shaped = f", limited to {self.shaped_mbit:,g} Mbit/s" if self.shaped_mbit else ""
        return f"{self.interface or 'unknown interface'}{rated}{shaped}"
