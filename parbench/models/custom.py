"""Models that people bring: a function of their own, which is imported when a scenario names it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, PrivateAttr, field_validator
from pydantic.json_schema import SkipJsonSchema

from parbench.base_types import Spec
from parbench.errors import Unsupported
from parbench.models.base import Use
from parbench.models.examination import ask
from parbench.models.user_code import load_function
from parbench.models.whole import Values, WholeFamily

if TYPE_CHECKING:
    from torch import nn


class Found(Spec):
    """What was found when the scenario was read: the hash of the code, and the seams or why there are none.

    `parameters` are how many each block has, and the head.
    """

    sha256: str
    parameters: Annotated[tuple[int, ...], Field(strict=False)] = ()
    no_seams: str | None = None


class Custom(WholeFamily):
    """A model of your own: any module that maps token ids to logits, built by a function in your file or package.

    `build` is `path/to/file.py:function`, its path starting at the scenario's folder, or `package.module:function`.
    The function gets `vocab_size`, `seq_len` and all `options` as keyword arguments, and returns a `torch.nn.Module`
    that maps token ids (batch, seq_len) to logits (batch, seq_len, vocab_size). It runs with your rights, when the
    scenario is read and in every rank, with torch's generator seeded. A list among the options makes a matrix.

    When the scenario is read, a process of its own builds the model and takes a training step on the CPU, with the
    global batch as it is written, or as much of it as takes seconds.

    Where the module has `embed`, `blocks` (a `ModuleList` or `Sequential`) and `head` that give its own logits one
    after another, every strategy that needs no plan of its tensors can be had; otherwise those that take a model whole.
    What draws random numbers in its forward pass, such as dropout, cannot be compared loss by loss.
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
                raise ValueError(f"{name} is not an option: the function gets that of the workload")
        return options

    def model_post_init(self, context: Any) -> None:
        """Takes the folder that paths start at from the validation's context."""
        self._folder = Path((context or {}).get("folder", "."))

    @property
    def n_blocks(self) -> int:
        """As found when the scenario was read; 0 where the model has no seams."""
        return max(0, len(self.found.parameters) - 1) if self.found else 0

    def costs(self, vocab_size: int, seq_len: int) -> tuple[float, ...]:  # noqa: ARG002 - the model is built by now
        """In proportion to parameters, each of which is multiplied with every token; an embedding only looks up."""
        return (0.0, *(max(1, count) for count in self.found.parameters)) if self.found else ()

    def examined(self, vocab_size: int, seq_len: int, *, global_batch: int = 2) -> Self:
        """Itself, with what building the model and training it for a step has shown, in a process of its own."""
        if self.found:
            raise Unsupported("is filled in when the scenario is read; leave it out", field="found")
        question = {
            "build": self.build,
            "folder": str(self._folder),
            "options": self.options,
            "vocab_size": vocab_size,
            "seq_len": seq_len,
            "global_batch": global_batch,
        }
        return self.model_copy(update={"found": Found.model_validate(ask(question))})

    def load(self) -> None:
        """Imports the function, and with it what its file imports."""
        self._function()

    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """What the function returns."""
        model: nn.Module = self._function()(vocab_size=vocab_size, seq_len=seq_len, **self.options)
        return model

    def refusal(self, use: Use, device_kind: str) -> str | None:  # noqa: ARG002 - the same on all kinds
        """Without blocks there is nothing whose activations could be computed again."""
        return self.stage_refusal() if use.activation_checkpointing else None

    def stage_refusal(self) -> str | None:
        """What has been found to be wrong with the seams."""
        reason = self.found.no_seams if self.found else "it could not be built"
        return f"no embed → blocks → head in the model of {self.build}: {reason}" if reason else None

    def tensor_refusal(self, degree: int) -> str | None:  # noqa: ARG002 - for no degree
        """Which matrices to split by columns and which by rows is not to be seen from outside."""
        return "a custom model has no tensor-parallel plan"

    def _function(self) -> Callable[..., Any]:
        function, sha256 = load_function(self.build, self._folder)
        if self.found and self.found.sha256 != sha256:
            raise Unsupported(f"the code of {self.build} has changed since the scenario was read; start a new run")
        return function
