"""Sources of tokens, as a scenario names them."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from parbench.base_types import Spec as Spec

BYTES = 256


class BytePairs(Spec):
    """A byte-level BPE vocabulary of `vocab_size` tokens, trained on the data itself (`parbench[tokenizers]`).

    Where the data has fewer pairs to merge, the remaining tokens are in the vocabulary and never occur.
    """

    vocab_size: Annotated[int, Field(ge=BYTES, le=1_000_000)] = 4096

    @model_validator(mode="after")
    def _the_library_is_there(self) -> Self:
        if find_spec("tokenizers") is None:
            raise ValueError("needs the tokenizers library: pip install 'parbench[tokenizers]'")
        return self


class StandardLibraryText(Spec):
    """The source files of the running Python's standard library, as bytes or in a vocabulary trained on them."""

    source: Literal["python-stdlib"] = "python-stdlib"
    bpe: BytePairs | None = None

    @property
    def vocab_size(self) -> int:
        """The size of the trained vocabulary; 256 for bytes."""
        return self.bpe.vocab_size if self.bpe else BYTES


class TextFile(Spec):
    """A file, or all files below a folder that match `files`; as bytes or in a vocabulary trained on them.

    Regular files only, of at most 1,000,000,000 bytes together.
    """

    source: Literal["text"] = "text"
    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    files: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] = "**/*.txt"
    bpe: BytePairs | None = None

    @property
    def vocab_size(self) -> int:
        """The size of the trained vocabulary; 256 for bytes."""
        return self.bpe.vocab_size if self.bpe else BYTES

    @property
    def resolved(self) -> Path:
        """The file, with `~` expanded."""
        return Path(self.path).expanduser()


class SyntheticTokens(Spec):
    """Uniformly random tokens, to measure a vocabulary size that no text at hand has."""

    source: Literal["synthetic"] = "synthetic"
    vocab_size: Annotated[int, Field(ge=2, le=2_000_000)]
    tokens: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000


DataSpec = Annotated[StandardLibraryText | TextFile | SyntheticTokens, Field(discriminator="source")]
