"""A file of tokens."""

from typing import Annotated, Literal

from pydantic import Field

from parbench.base_types import Record


class Corpus(Record):
    """A file of `tokens` little-endian integers of type `dtype`, each less than `vocab_size`."""

    path: str
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    tokens: int
    vocab_size: int
    dtype: Literal["uint8", "int32"]
