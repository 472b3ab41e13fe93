"""The tokens that a run's models learn from, as files."""

from typing import Annotated, Literal

from pydantic import Field

from parbench.base_types import Record


class Corpus(Record):
    """A token file: `tokens` little-endian numbers of type `dtype`, each below `vocab_size`."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tokens: int
    vocab_size: int
    dtype: Literal["uint8", "int32"]
