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


MOST_PARAMETERS = 500_000_000


CAUSAL_TOKENS = 8


SPECIAL_TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


class HuggingFace(WholeFamily):
    """Any causal language model of transformers, from a config with random weights (`parbench[transformers]`).

    `architecture` is the library's model type (`gpt2`, `llama`, `qwen3`, …) and `config` its sizes as the library names
    them; a list among them makes a matrix. The vocabulary is the workload's. Dropout is off unless `config` says
    otherwise, so that strategies can be compared loss by loss; there are no special tokens; weights are tied where the
    architecture ties them. A model whose logits depend on later tokens is refused; that is looked for in models of up
    to 500 million parameters. Blocks are what the class says must not be split (`_no_split_modules`): they are sharded,
    compiled and checkpointed one by one. Nothing is downloaded, no checkpoint is read and no remote code is run.
    `library` is filled in: the version of transformers is part of what is measured.
    """

    kind: Literal["huggingface"] = "huggingface"
    architecture: Annotated[str, Field(min_length=1, max_length=100)]
    config: Values
    library: SkipJsonSchema[str | None] = None

    def examined(self, vocab_size: int, seq_len: int, *, global_batch: int = 2) -> Self:  # noqa: ARG002 - any will do
        """Itself with the library's version, if its model can be built; raises `Unsupported` where it cannot."""
        if self.library:
            raise Unsupported("is filled in when the scenario is read; leave it out", field="library")
        outline = self._without_memory(vocab_size)
        positions = getattr(outline.model.config, "max_position_embeddings", None)
        if isinstance(positions, int) and 0 < positions < seq_len:
            raise Unsupported(f"has {positions} positions, fewer than seq_len {seq_len}", field="config")
        if sum(parameter.numel() for parameter in outline.parameters()) <= MOST_PARAMETERS:
            self._require_causal(vocab_size, min(seq_len, CAUSAL_TOKENS))
        return self.model_copy(update={"library": _transformers().__version__})

    def load(self) -> None:
        """Imports the architecture's classes."""
        self._without_memory(2)

    def whole(self, vocab_size: int, seq_len: int) -> "nn.Module":  # noqa: ARG002 - the config says how long
        """The library's model, giving logits alone."""
        from parbench.models.nn.causal import CausalLM

        transformers, values = _transformers(), self._values(vocab_size)
        try:
            config = transformers.AutoConfig.for_model(self.architecture, **values)
            return CausalLM(transformers.AutoModelForCausalLM.from_config(config))
        except Exception as error:  # noqa: BLE001 - each architecture has errors of its own for sizes that do not fit
            reason = f"transformers cannot build {self.architecture}: {first_words(error)}"
            raise Unsupported(reason, field="config") from None

    def units(self, model: "nn.Module") -> "list[nn.Module]":
        """What the class says must not be split."""
        return cast("CausalLM", model).blocks

    def checkpoint_units(self, model: "nn.Module") -> None:
        """By the library's own means."""
        cast("CausalLM", model).checkpoint_blocks()

    def refusal(self, use: Use, device_kind: str) -> str | None:  # noqa: ARG002 - the same on all kinds
        """Checkpointing lies in the library's own forward pass, which a compiled block leaves out under FSDP."""
        if use.activation_checkpointing and use.compile:
            return "blocks of transformers cannot be both compiled and checkpointed; choose one"
        if use.activation_checkpointing and not self._without_memory(2).model.supports_gradient_checkpointing:
            return f"transformers cannot checkpoint the activations of {self.architecture}"
        return None

    def stage_refusal(self) -> str:
        """Embedding, blocks and head are used in the middle of code of the architecture's own."""
        return "a transformers model is one piece of code, of which no stages can be made"

    def tensor_refusal(self, degree: int) -> str:  # noqa: ARG002 - for no degree
        """Names of matrices differ from architecture to architecture."""
        return "a transformers model has no tensor-parallel plan here"

    def _without_memory(self, vocab_size: int) -> "CausalLM":
        """The model without values, on torch's `meta` device; building it imports all that it needs."""
        _transformers()
        import torch

        with torch.device("meta"):
            return cast("CausalLM", self.whole(vocab_size, 1))

    def _require_causal(self, vocab_size: int, length: int) -> None:
        """Raises `Unsupported` where changing the last token changes what the model gives for those before it."""
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
                f"{self.architecture} is not causal: what it gives for a token depends on later ones, as in an "
                f"encoder; choose a decoder such as gpt2, llama or qwen3{decoder}",
                field="architecture",
            )

    def _values(self, vocab_size: int) -> dict[str, Any]:
        """The arguments of the config: what is written, and what is set here where nothing is."""
        transformers = _transformers()
        names: Mapping[str, str] = importlib.import_module(
            "transformers.models.auto.modeling_auto"
        ).MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        if self.architecture not in names:
            raise Unsupported(
                f"transformers {transformers.__version__} has no causal language model of type "
                f"'{self.architecture}'{_meant(self.architecture, names)}",
                field="architecture",
            )
        usual = transformers.AutoConfig.for_model(self.architecture)
        known = {name: value for name, value in vars(usual).items() if not name.startswith("_")}
        for name in self.config:
            if name in ("vocab_size", "model_type"):
                raise Unsupported(f"{name} is not for the config to say", field="config")
            if name not in known and name not in usual.attribute_map:
                raise Unsupported(
                    f"a config of {self.architecture} has no {name}{_meant(name, [*known, *usual.attribute_map])}",
                    field="config",
                )
        undropped = {name: 0.0 for name, value in known.items() if "drop" in name and isinstance(value, float)}
        special = dict.fromkeys(SPECIAL_TOKENS)
        return {**undropped, **special, "use_cache": False, **self.config, "vocab_size": vocab_size}


def _meant(name: str, known: Iterable[str]) -> str:
    """There are too many to list them all."""
    close = difflib.get_close_matches(name, known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def _transformers() -> Any:
    if importlib.util.find_spec("transformers") is None:
        raise Unsupported("needs the transformers library: pip install 'parbench[transformers]'", field="kind")
    # Read when the library is first imported; nothing here needs the hub.
    os.environ["HF_HUB_OFFLINE"] = "1"
    return importlib.import_module("transformers")
