"""The order in which a model is placed, compiled, split, sharded, checkpointed and wrapped."""

from collections.abc import Callable

import torch
from torch import nn

from parbench.models.checkpointing import Checkpointing
from parbench.models.nn.experts import Experts
from parbench.models.nn.language_model import LanguageModel, PartHook, WholeModel

Build = Callable[[PartHook], LanguageModel | WholeModel]
"""Builds a model, and calls the hook on each part as soon as it is built."""

Wrap = Callable[[nn.Module], nn.Module]


def parallelize(
    build: Build,
    *,
    device: torch.device,
    compiled: bool,
    checkpointing: Checkpointing,
    autocast: torch.dtype | None,
    cast: torch.dtype | None = None,
    split: PartHook | None = None,
    shard: PartHook | None = None,
    wrap: Wrap | None = None,
) -> nn.Module:
    """The model that `build` builds, as a strategy runs it on this rank's device. Its optimizer is made afterwards.

    `split` splits the matrices of a part over devices (tensor parallelism). `shard` cuts the parameters of a part over
    ranks (FSDP); it is called last with the name `model`, for whatever no part has taken. `wrap` wraps the whole (DDP,
    DataParallel). A strategy gives those that it needs. `cast` is the type that matrices are kept in, for models that
    are not trained: autocast would cast them anew in every forward pass, which is every token that is generated.
    """

    def prepare(part: nn.Module, name: str) -> None:
        # 1. Place, part by part: the host never holds the whole of a model that runs on a GPU.
        part.to(device)
        # FSDP shards parameters of one type, and casts them itself.
        if cast is not None and shard is None:
            cast_matrices(part, cast)
        # 2. Compile. Before any hook is added, and the forward alone: the collectives that splitting and sharding add
        #    as hooks stay outside of the graph. Part by part, so that equal blocks are compiled once. What is left
        #    around compiled units (`rest`) runs code of its own between them.
        if compiled and name != "rest":
            keep_eager(part)
            part.forward = torch.compile(part.forward, dynamic=False)
        # 3. Split before sharding: a shard is cut out of what splitting leaves to this rank. FSDP takes parameters that
        #    are split already, and tensor parallelism takes none that are sharded.
        if split is not None:
            split(part, name)
        # 4. Shard before the next part is built, so that no rank ever holds the whole model.
        if shard is not None:
            shard(part, name)

    model = build(prepare)
    # 5. Autocast inside the model's forward: replicas run in threads and stages in a schedule, outside of whatever
    #    context surrounds a step.
    model.autocast = autocast
    # 6. Checkpoint around split and sharded blocks: when the backward pass computes a block again, its hooks gather the
    #    parameters again, too.
    if checkpointing:
        model.checkpoint_blocks(checkpointing)
    # 7. Shard the rest (embedding and head) once every block has its own shards.
    if shard is not None:
        shard(model, "model")
    # 8. Wrap last: a wrapper looks for the final parameters, and hangs the exchange of gradients on them.
    return model if wrap is None else wrap(model)


MATRICES = nn.Linear | Experts
"""What autocast casts in every pass through it."""


def keep_eager(part: nn.Module) -> None:
    """Keeps out of compiled code what has other sizes in every step: it would be compiled anew for each of them."""
    for module in part.modules():
        if isinstance(module, Experts):
            module.run_rows = torch.compiler.disable(module.run_rows)  # type: ignore[method-assign]


def cast_matrices(part: nn.Module, dtype: torch.dtype) -> None:
    """Casts the parameters of linear layers and experts, except those that other layers share, where autocast does not.

    The products are those under autocast, which rounds the same weights in the same way.
    """
    linear = [module for module in part.modules() if isinstance(module, MATRICES)]
    elsewhere = {
        id(parameter)
        for module in part.modules()
        if not isinstance(module, MATRICES)
        for parameter in module.parameters(recurse=False)
    }
    for module in linear:
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in elsewhere:
                parameter.data = parameter.data.to(dtype)
