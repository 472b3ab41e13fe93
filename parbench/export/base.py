"""What every export format is given, and what it gives back. A format is one file here, which registers itself.

>>> FORMATS["csv"]().write(document)
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parbench.registry import Registry

if TYPE_CHECKING:
    import pandas as pd

Part = Literal["rows", "data", "frame", "cases"]


@dataclass(frozen=True)
class Case:
    """A test case, as CI services read it: the cell, what was tested, what came of it, and why."""

    cell: str
    name: str
    outcome: Literal["passed", "failure", "error", "skipped"]
    message: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """What a command has to say, in every part that some format needs.

    rows: texts below a `header`, under a `title` and above `sentences`, for people.
    data: lists, mappings, texts and finite numbers, for programs; what is unknown is None.
    frame: the table with its types.
    cases: test cases, for CI services.

    A part that the command does not have is None or empty. Texts may be made up by anybody: a format makes them inert.
    """

    command: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: Any
    title: str = ""
    sentences: Sequence[str] = ()
    frame: "pd.DataFrame | None" = None
    cases: Sequence[Case] = ()


class Format(ABC):
    """A format by the `name` that the command line knows it by; `needs` is the part of a document that it writes."""

    name: ClassVar[str]
    needs: ClassVar[Part]

    def __init_subclass__(cls, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        FORMATS.add(cls.name, cls)

    @abstractmethod
    def write(self, document: Document) -> str | bytes:
        """The document in this format. Raises `UsageError` where a package that the format needs is not installed."""


FORMATS: Registry[Format] = Registry("parbench.export")


def formats_of(parts: Collection[Part]) -> list[str]:
    """The names of the formats that a document with these parts can be written in."""
    return [name for name in FORMATS.names() if FORMATS[name].needs in parts]
