"""Causal language models of the transformers library, from a config, with random weights. Nothing is downloaded."""

import difflib
import importlib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field
from pydantic.json_schema import SkipJsonSchema

from parbench.errors import Unsupported, first_words
from parbench.models.base import Use
from parbench.models.whole import Values, WholeFamily

if TYPE_CHECKING:
    from torch import nn

    from parbench.models.nn.causal import CausalLM


MAX_CHECKED_PARAMETERS = 500_000_000
"""The largest model that is built to check that it is causal."""


CAUSAL_TOKENS = 8


SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class HuggingFace(WholeFamily):
    """Any causal language model of transformers, from a config with random weights (`parbench[transformers]`).

    `architecture` is the library's model type (`gpt2`, `llama`, `qwen3`, …) and `config` its sizes as the library names
    them; a list among them makes a matrix. The vocabulary is the workload's. Dropout is off unless `config` says
    otherwise, so that strategies can be compared loss by loss; there are no special tokens; weights are tied where the
    architecture ties them. A model whose logits depend on later tokens is refused, if it has at most
    500 million parameters. Blocks are what the class says must not be split (`_no_split_modules`): they are sharded,
    compiled and checkpointed one by one. Nothing is downloaded, no checkpoint is read and no remote code is run.
    parbench fills in `library`, the version of transformers, which is part of what is measured.
    """

    kind: Literal["huggingface"] = "huggingface"
    architecture: Annotated[str, Field(min_length=1, max_length=100)]
    config: Values
    library: SkipJsonSchema[str | None] = None

    def examined(self, vocab_size: int, seq_len: int, *, global_batch: int = 2) -> Self:  # noqa: ARG002 - it runs on one sequence
        """The family with the library's version. Raises `Unsupported` if its model cannot be built or is not causal."""
        if self.library:
            raise Unsupported("is filled in by parbench; leave it out", field="library")
        outline = self._build_on_meta(vocab_size)
        positions = getattr(outline.model.config, "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < seq_len:
            raise Unsupported(f"has {positions} positions, fewer than seq_len {seq_len}", field="config")
        if sum(parameter.numel() for parameter in outline.parameters()) <= MAX_CHECKED_PARAMETERS:
            self._require_causal(vocab_size, min(seq_len, CAUSAL_TOKENS))
        return self.model_copy(update={"library": _import_transformers().__version__})

    def load(self) -> None:
        """Imports the architecture's classes."""
        self._build_on_meta(2)

    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":  # noqa: ARG002 - the config says how long
        """The library's model, reduced to its logits."""
        from parbench.models.nn.causal import CausalLM

        transformers, values = _import_transformers(), self._values(vocab_size)
        try:
            config = transformers.AutoConfig.for_model(self.architecture, **values)
            return CausalLM(transformers.AutoModelForCausalLM.from_config(config))
        except Exception as error:  # noqa: BLE001 - each architecture has errors of its own for sizes that do not fit
            reason = f"transformers cannot build {self.architecture}: {first_words(error)}"
            raise Unsupported(reason, field="config") from None

    def units(self, model: "nn.Module") -> "list[nn.Module]":
        """The modules that the model's class says must not be split."""
        return cast("CausalLM", model).blocks

    def checkpoint_units(self, model: "nn.Module") -> None:
        """With the library's own activation checkpointing."""
        cast("CausalLM", model).checkpoint_blocks()

    def refusal(self, use: Use, device_kind: str) -> str | None:  # noqa: ARG002 - the same on all kinds
        """The library checkpoints in its own forward pass, which a compiled block skips under FSDP."""
        if use.activation_checkpointing and use.compile:
            return "blocks of transformers cannot be both compiled and checkpointed; choose one"
        if use.activation_checkpointing and not self._build_on_meta(2).model.supports_gradient_checkpointing:
            return f"transformers cannot checkpoint the activations of {self.architecture}"
        return None

    def stage_refusal(self) -> str:
        """Each architecture calls embedding, blocks and head from code of its own."""
        return "a transformers model cannot be cut into stages: its forward pass is one piece of code"

    def tensor_refusal(self, degree: int) -> str:  # noqa: ARG002 - for no degree
        """Matrices have other names in every architecture."""
        return "parbench has no tensor-parallel plan for transformers models"

    def _build_on_meta(self, vocab_size: int) -> "CausalLM":
        """The model on torch's `meta` device, without values. Building it imports all that it needs."""
        _import_transformers()
        import torch

        with torch.device("meta"):
            return cast("CausalLM", self.whole(vocab_size, 1))

    def _require_causal(self, vocab_size: int, length: int) -> None:
        """Raises `Unsupported` where changing the last token changes the logits of earlier ones."""
        import torch

        tokens = torch.arange(length)[None] % vocab_size
        changed = tokens.clone()
        changed[0, -1] = (changed[0, -1] + 1) % vocab_size
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = self.whole(vocab_size, length).eval()
            try:
                before, after = (model(each)[:, :-1] for each in (tokens, changed))
            except Exception as error:  # noqa: BLE001 - each architecture has errors of its own
                reason = f"transformers cannot run {self.architecture}: {first_words(error)}"
                raise Unsupported(reason, field="config") from None
        if not torch.allclose(before, after, rtol=1e-4, atol=1e-5):
            config = cast("CausalLM", model).model.config
            decoder = "" if getattr(config, "is_decoder", True) else ", or set is_decoder: true in config"
            raise Unsupported(
                f"{self.architecture} is not causal: the logits of a token depend on later tokens, as in an "
                f"encoder; choose a decoder such as gpt2, llama or qwen3{decoder}",
                field="architecture",
            )

    def _values(self, vocab_size: int) -> dict[str, Any]:
        """The arguments of the config: those in the scenario, and defaults for dropout and special tokens."""
        transformers = _import_transformers()
        names: Mapping[str, str] = importlib.import_module(
            "transformers.models.auto.modeling_auto"
        ).MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if self.architecture not in names:
            raise Unsupported(
                f"transformers {transformers.__version__} has no causal language model of type "
                f"'{self.architecture}'{_suggest(self.architecture, names)}",
                field="architecture",
            )
        defaults = transformers.AutoConfig.for_model(self.architecture)
        fields = {name: value for name, value in vars(defaults).items() if not name.startswith("_")}
        for name in self.config:
            if name in ("vocab_size", "model_type"):
                raise Unsupported(
                    f"{name} cannot be set here: it follows from the workload and the architecture", field="config"
                )
            if name not in fields and name not in defaults.attribute_map:
                suggestion = _suggest(name, [*fields, *defaults.attribute_map])
                raise Unsupported(f"a config of {self.architecture} has no {name}{suggestion}", field="config")
        no_dropout = {name: 0.0 for name, value in fields.items() if "drop" in name and isinstance(value, float)}
        special = dict.fromkeys(SPECIAL_TOKENS)
        return {**no_dropout, **special, "use_cache": False, **self.config, "vocab_size": vocab_size}


def _suggest(name: str, candidates: Iterable[str]) -> str:
    """The names most like `name`, as the end of a sentence: there are too many to list them all."""
    matches = difflib.get_close_matches(name, candidates, n=3)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _import_transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise Unsupported("needs the transformers library: pip install 'parbench[transformers]'", field="kind")
    # The library reads it when it is first imported. Nothing here needs the hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    return importlib.import_module("transformers")
