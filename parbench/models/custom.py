"""Models that users bring, built by a function of their own, which is imported when a scenario names it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, PrivateAttr, field_validator
from pydantic.json_schema import SkipJsonSchema

from parbench.base_types import Spec
from parbench.errors import Unsupported
from parbench.models.base import Use
from parbench.models.examination import examine
from parbench.models.user_code import load_function
from parbench.models.whole import Values, WholeFamily

if TYPE_CHECKING:
    from torch import nn


class Found(Spec):
    """What examining the model showed: the hash of its code, and its seams or why it has none.

    `parameters` are the numbers of parameters of each block and of the head.
    """

    sha256: str
    parameters: Annotated[tuple[int, ...], Field(strict=False)] = ()
    no_seams: str | None = None


class Custom(WholeFamily):
    """A model of your own: any module that maps token ids to logits, built by a function in your file or package.

    `build` is `path/to/file.py:function`, its path starting at the scenario's folder, or `package.module:function`.
    The function gets `vocab_size`, `seq_len` and all `options` as keyword arguments, and returns a `torch.nn.Module`
    that maps token ids (batch, seq_len) to logits (batch, seq_len, vocab_size). It runs with your rights when the
    scenario is read and in every rank, with torch's generator seeded. A list among the options makes a matrix.

    When the scenario is read, a process of its own builds the model and takes a training step on the CPU, with the
    global batch as it is written, or as much of it as takes seconds.

    Where the module has `embed`, `blocks` (a `ModuleList` or `Sequential`) and `head` that give its own logits one
    after another, every strategy can run it that needs no tensor-parallel plan; otherwise those can that need the whole
    model. A model that draws random numbers in its forward pass, as dropout does, cannot be compared loss by loss.
    """

    kind: Literal["custom"] = "custom"
    build: Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]+:[A-Za-z_][A-Za-z0-9_]*$")]
    options: Values
    found: SkipJsonSchema[Found | None] = None
    _folder: Path = PrivateAttr(Path())

    @field_validator("options")
    @classmethod
    def _sizes_are_the_workloads(cls, options: dict[str, JsonValue]) -> dict[str, JsonValue]:
        for name in ("vocab_size", "seq_len"):
            if name in options:
                raise ValueError(f"{name} is not an option: the function gets the workload's {name}")
        return options

    def model_post_init(self, context: Any) -> None:
        """Takes the folder where paths start from the context of the validation."""
        self._folder = Path((context or {}).get("folder", "."))

    @property
    def n_blocks(self) -> int:
        """The number of blocks that examining the model showed; 0 where it has no seams."""
        return max(0, len(self.found.parameters) - 1) if self.found else 0

    def costs(self, vocab_size: int, seq_len: int) -> tuple[float, ...]:  # noqa: ARG002 - the model has been built
        """In proportion to parameters, since each is multiplied with every token; the embedding only looks up rows."""
        return (0.0, *(max(1, count) for count in self.found.parameters)) if self.found else ()

    def examined(self, vocab_size: int, seq_len: int, *, global_batch: int = 2) -> Self:
        """The family with what examining its model, in a process of its own, shows. May raise `Unsupported`."""
        if self.found:
            raise Unsupported("is filled in by parbench; leave it out", field="found")
        request = {
            "build": self.build,
            "folder": str(self._folder),
            "options": self.options,
            "vocab_size": vocab_size,
            "seq_len": seq_len,
            "global_batch": global_batch,
        }
        return self.model_copy(update={"found": Found.model_validate(examine(request))})

    def load(self) -> None:
        """Imports the function, and with it all that its file imports."""
        self._load_function()

    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """The model that the function returns."""
        model: nn.Module = self._load_function()(vocab_size=vocab_size, seq_len=seq_len, **self.options)
        return model

    def refusal(self, use: Use, device_kind: str) -> str | None:  # noqa: ARG002 - the same on all kinds
        """Activation checkpointing needs blocks."""
        return self.stage_refusal() if use.activation_checkpointing else None

    def stage_refusal(self) -> str | None:
        """What is wrong with the model's seams."""
        reason = self.found.no_seams if self.found else "it could not be built"
        return f"no embed → blocks → head in the model of {self.build}: {reason}" if reason else None

    def tensor_refusal(self, degree: int) -> str | None:  # noqa: ARG002 - for no degree
        """From outside, nobody can tell which matrices to split by columns and which by rows."""
        return "a custom model has no tensor-parallel plan"

    def _load_function(self) -> Callable[..., Any]:
        function, sha256 = load_function(self.build, self._folder)
        if self.found and self.found.sha256 != sha256:
            raise Unsupported(f"the code of {self.build} has changed since the scenario was read; start a new run")
        return function
