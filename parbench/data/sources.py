"""Where tokens come from, as a scenario writes it."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from parbench.base_types import Spec as Spec

BYTES = 256


class BytePairs(Spec):
    """A byte-level BPE vocabulary of `vocab_size` tokens, trained on the data itself (`parbench[tokenizers]`).

    Where the data has fewer pairs to merge, the tokens that are left are known to the model and never seen.
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
        """Bytes, or the trained vocabulary."""
        return self.bpe.vocab_size if self.bpe else BYTES


class TextFile(Spec):
    """Any file, or all files below a folder that match `files`; as bytes or in a vocabulary trained on them.

    At most 1,000,000,000 bytes together, of regular files.
    """

    source: Literal["text"] = "text"
    path: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]
    files: Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")] = "**/*.txt"
    bpe: BytePairs | None = None

    @property
    def vocab_size(self) -> int:
        """Bytes, or the trained vocabulary."""
        return self.bpe.vocab_size if self.bpe else BYTES

    @property
    def resolved(self) -> Path:
        """The file, with `~` expanded."""
        return Path(self.path).expanduser()


class SyntheticTokens(Spec):
    """Random tokens, drawn uniformly: for measuring a vocabulary size that no text at hand has."""

    source: Literal["synthetic"] = "synthetic"
    vocab_size: Annotated[int, Field(ge=2, le=2_000_000)]
    tokens: Annotated[int, Field(ge=1, le=100_000_000)] = 1_000_000


DataSpec = Annotated[StandardLibraryText | TextFile | SyntheticTokens, Field(discriminator="source")]
