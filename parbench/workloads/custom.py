"""Models that people bring: a function of their own, which is imported when a scenario names it."""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, JsonValue, PrivateAttr, field_validator
from pydantic.json_schema import SkipJsonSchema

from parbench.errors import Unsupported
from parbench.scenario import Spec, WorkloadSpec
from parbench.workloads.code import load_function, said_by
from parbench.workloads.whole import Values, WholeFamily

if TYPE_CHECKING:
    from torch import Tensor, nn


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

    def examined(self, vocab_size: int, seq_len: int) -> Self:
        """Itself, with what building the model and running it on two sequences of tokens has shown."""
        if self.found:
            raise Unsupported("is filled in when the scenario is read; leave it out", field="found")
        # What people's code prints is not the output of a plan.
        with contextlib.redirect_stdout(sys.stderr):
            function, sha256 = load_function(self.build, self._folder)
            seams = self._seams(function, vocab_size, seq_len)
        found = {"no_seams": seams} if isinstance(seams, str) else {"parameters": seams}
        return self.model_copy(update={"found": Found(sha256=sha256, **found)})

    def load(self) -> None:
        """Imports the function, and with it what its file imports."""
        self._function()

    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":
        """What the function returns."""
        model: nn.Module = self._function()(vocab_size=vocab_size, seq_len=seq_len, **self.options)
        return model

    def refusal(self, workload: WorkloadSpec, device_kind: str) -> str | None:  # noqa: ARG002 - the same on all kinds
        """Without blocks there is nothing whose activations could be computed again."""
        return self.stage_refusal() if workload.activation_checkpointing else None

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

    def _seams(self, function: Callable[..., Any], vocab_size: int, seq_len: int) -> tuple[int, ...] | str:
        """The parameters of each block and the head, or why there are no seams; `Unsupported` where it is no model."""
        import torch
        from torch import Tensor, nn

        from parbench.modules.seams import described, find_seams

        with torch.random.fork_rng(devices=[]), torch.no_grad():
            model = self._called("built", function, vocab_size=vocab_size, seq_len=seq_len, **self.options)
            if not isinstance(model, nn.Module):
                raise self._unusable(f"returned {described(model)} instead of a torch.nn.Module")
            if not any(parameter.requires_grad for parameter in model.parameters()):
                raise self._unusable("returned a model without parameters to train")
            tokens = torch.arange(2 * seq_len).reshape(2, seq_len) % vocab_size
            logits = self._called("run", model.eval(), tokens)
            expected = (*tokens.shape, vocab_size)
            if not isinstance(logits, Tensor) or logits.shape != expected:
                raise self._unusable(
                    f"returned a model that gives {described(logits)} for token ids of shape {tuple(tokens.shape)}; "
                    f"logits must have the shape {expected}: batch, seq_len, vocab_size"
                )
            self._require_gradients(model, tokens)
            return find_seams(model, tokens, logits)

    def _require_gradients(self, model: "nn.Module", tokens: "Tensor") -> None:
        """Raises `Unsupported` for parameters that logits do not depend on: replicas would wait for their gradients."""
        import torch

        trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
        with torch.enable_grad():
            total = self._called("run", model, tokens).sum()
            gradients = self._called("trained", torch.autograd.grad, total, list(trained.values()), allow_unused=True)
        idle = [name for name, gradient in zip(trained, gradients, strict=True) if gradient is None]
        if idle:
            raise self._unusable(
                f"returned a model whose logits do not depend on {', '.join(idle[:3])}"
                f"{f' and {len(idle) - 3} more' if len(idle) > 3 else ''}: leave such parameters out, or set their "
                "requires_grad to False"
            )

    def _called(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - people's code may raise anything
            raise Unsupported(f"the model of {self.build} cannot be {what}: {said_by(error)}", field="build") from None

    def _unusable(self, how: str) -> Unsupported:
        return Unsupported(f"{self.build} {how}", field="build")
