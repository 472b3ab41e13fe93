"""Builds a user's model and trains it for a step, on the CPU and on made-up tokens, to find what is wrong with it."""

from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from parbench.errors import Unsupported, first_words
from parbench.models.nn.seams import find_seams, name_kind

MAX_OPERATIONS = 2e12
"""In the training step: takes seconds."""


MAX_LOGITS = 5e7
"""In the training step: takes one or two gigabytes."""


class Probe:
    """Examines the model of the function that `build` names, for a vocabulary and a sequence length."""

    def __init__(self, build: str, vocab_size: int, seq_len: int) -> None:
        self.build = build
        self.vocab_size = vocab_size
        self.seq_len = seq_len

    def examine(
        self, function: Callable[..., Any], options: Mapping[str, Any], global_batch: int
    ) -> tuple[int, ...] | str:
        """The numbers of parameters of each block and the head, or why the model has no seams.

        Seams are tested with two sequences. The training step takes as much of the global batch as takes seconds.
        Raises `Unsupported` where the model cannot be trained.
        """
        torch.manual_seed(0)
        model = self._call("built", function, vocab_size=self.vocab_size, seq_len=self.seq_len, **options)
        if not isinstance(model, nn.Module):
            raise self._unusable(f"returned {name_kind(model)} instead of a torch.nn.Module")
        self._require_values(model)
        sample = self._make_tokens(2)
        with torch.no_grad():
            logits = self._compute_logits(model.eval(), sample)
            seams = find_seams(model, sample, logits)
        self._require_step(model.train(), self._make_tokens(self._choose_batch(model, global_batch)))
        return seams

    def _require_values(self, model: nn.Module) -> None:
        """Raises `Unsupported` unless all values are on the CPU, and some can be trained."""
        for name, tensor in chain(model.named_parameters(), model.named_buffers()):
            if is_lazy(tensor):
                raise self._unusable(
                    f"returned a model whose {name} has no shape yet: run a lazy module once before it is returned"
                )
            if tensor.device.type != "cpu":
                raise self._unusable(
                    f"returned a model whose {name} is on device {tensor.device}: build it with values, on the CPU"
                )
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise self._unusable("returned a model without parameters to train")

    def _compute_logits(self, model: nn.Module, tokens: Tensor) -> Tensor:
        logits = self._call("run", model, tokens)
        expected = (*tokens.shape, self.vocab_size)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            raise self._unusable(
                f"returned a model that gives {name_kind(logits)} for token ids of shape {tuple(tokens.shape)}; "
                f"logits must have the shape {expected}: batch, seq_len, vocab_size"
            )
        if (logits.dtype, logits.device) != (torch.float32, tokens.device):
            raise self._unusable(
                f"returned a model that gives logits of {logits.dtype} on device {logits.device}; they must be "
                f"{torch.float32}, where the tokens are: the workload's precision says what is computed in less"
            )
        return logits

    def _require_step(self, model: nn.Module, tokens: Tensor) -> None:
        """Raises `Unsupported` where a training step fails, or leaves a parameter without a gradient.

        DDP's replicas would wait for that gradient.
        """
        logits = self._compute_logits(model, tokens)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())
        if not loss.isfinite():
            raise self._unusable(f"returned a model whose loss is {loss.item()} before any training")
        if not logits.requires_grad:
            raise self._unusable("returned a model whose logits carry no gradient to any parameter")
        self._call("trained", loss.backward)
        named = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        unused = [name for name, each in named if each.grad is None]
        if unused:
            raise self._unusable(
                f"returned a model whose logits do not depend on {', '.join(unused[:3])}"
                f"{f' and {len(unused) - 3} more' if len(unused) > 3 else ''}: leave such parameters out, or set their "
                "requires_grad to False"
            )

    def _choose_batch(self, model: nn.Module, global_batch: int) -> int:
        """How many sequences of the global batch take seconds: a step has six operations a parameter and token."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        operations, logits = 6 * max(1, parameters) * self.seq_len, self.seq_len * self.vocab_size
        return min(global_batch, max(2, int(min(MAX_OPERATIONS / operations, MAX_LOGITS / logits))))

    def _make_tokens(self, batch: int) -> Tensor:
        return torch.arange(batch * self.seq_len).reshape(batch, self.seq_len) % self.vocab_size

    def _call(self, what: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - people's code may raise anything
            raise Unsupported(
                f"the model of {self.build} cannot be {what}: {first_words(error)}", field="build"
            ) from None

    def _unusable(self, how: str) -> Unsupported:
        return Unsupported(f"{self.build} {how}", field="build")
