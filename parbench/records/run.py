"""A run: its plan and its environment."""

from typing import Any

from pydantic import Field

from parbench.base_types import Record
from parbench.records.cell import CellRecord
from parbench.records.corpus import Corpus
from parbench.records.node import NodeRecord
from parbench.records.trial import SCHEMA_VERSION


class RunRecord(Record):
    """A run's plan and environment: the content of `run.json` in its folder.

    A trial counts if its digests of environment and code are `environment_digest` and `code`. A resumed run may hold
    others.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created_at: str
    command: tuple[str, ...]
    scenario: dict[str, Any]
    rounds: int = Field(ge=1)
    environment: dict[str, Any]
    environment_digest: str
    code: str = ""
    corpora: dict[str, Corpus]
    launcher: str = "local"
    nodes: tuple[NodeRecord, ...] = ()
    cells: tuple[CellRecord, ...]

    @property
    def measured_scenario(self) -> dict[str, Any]:
        """The scenario without what changes no measurement: the price of a device. Older versions' runs have none."""
        return {name: value for name, value in self.scenario.items() if name != "cost"}

    @property
    def emulated_nodes(self) -> bool:
        """Whether several nodes are parts of one machine, such as network namespaces."""
        return len({node.machine for node in self.nodes}) < len(self.nodes)

    @property
    def link_mbit(self) -> float | None:
        """The rate of the slowest link between nodes in Mbit/s; None where a link's rate is unknown."""
        rates = [node.mbit for node in self.nodes if node.mbit]
        return min(rates) if rates and len(rates) == len(self.nodes) else None
