"""What a run set out to do, and where."""

from typing import Any

from pydantic import Field

from parbench.base_types import Record
from parbench.records.cell import CellRecord
from parbench.records.corpus import Corpus
from parbench.records.node import NodeRecord
from parbench.records.trial import SCHEMA_VERSION


class RunRecord(Record):
    """What a run set out to do and where: the content of its folder's `run.json`.

    `environment_digest` and `code` are what trials must carry to count: a resumed run may hold others.
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
    def emulated_nodes(self) -> bool:
        """Whether nodes are only parts of one machine, such as network namespaces."""
        return len({node.machine for node in self.nodes}) < len(self.nodes)

    @property
    def link_mbit(self) -> float | None:
        """What the slowest link between nodes lets through, in Mbit/s; None where one is not known."""
        known = [node.mbit for node in self.nodes if node.mbit]
        return min(known) if known and len(known) == len(self.nodes) else None
