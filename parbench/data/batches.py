"""A token file as batches of sequences, which depend only on seed, step and shard."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from parbench.records.corpus import Corpus

VALIDATION_SHARE = 0.1


class Batch(NamedTuple):
    """Token ids, int64: `targets` are `inputs` one token later; both have the shape (sequences, seq_len)."""

    inputs: Tensor
    targets: Tensor

    def parts(self, count: int) -> "list[Batch]":
        """Cuts the batch into `count` parts of equally many sequences."""
        return [Batch(*part) for part in zip(self.inputs.chunk(count), self.targets.chunk(count), strict=True)]


class Batches:
    """Global batches of `global_batch` sequences, and each shard's equal part of them.

    The last tenth of the corpus is the validation split. Training sequences do not overlap; every epoch goes
    through all of them once, in a new order, and a batch may span two epochs.
    """

    def __init__(self, corpus: Corpus, *, seq_len: int, global_batch: int, seed: str, device: torch.device) -> None:
        self._tokens = torch.from_file(corpus.path, size=corpus.tokens, dtype=getattr(torch, corpus.dtype))
        sequences = (corpus.tokens - 1) // seq_len
        self._validation_sequences = max(1, int(sequences * VALIDATION_SHARE))
        self._training_sequences = sequences - self._validation_sequences
        self._seq_len = seq_len
        self._global_batch = global_batch
        self._seed = seed
        self.device = device
        self._window = torch.arange(seq_len + 1)
        self._epoch = lru_cache(maxsize=2)(self._shuffle)

    def training(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """Part `shard` of `shards` of the global batch of training step `step`."""
        return _place(self.training_tokens(step, shard, shards), self.device)

    def validation(self, index: int, shard: int = 0, shards: int = 1) -> Batch:
        """Part `shard` of `shards` of validation batch `index`; starts over where the split is too short."""
        return _place(self.validation_tokens(index, shard, shards), self.device)

    def training_tokens(self, step: int, shard: int, shards: int) -> Tensor:
        """The tokens of a part of a training batch (sequences, seq_len + 1), on the host."""
        return self._read(self._find_sequences(self._positions(step, shard, shards)))

    def validation_tokens(self, index: int, shard: int, shards: int) -> Tensor:
        """The tokens of a part of a validation batch (sequences, seq_len + 1), on the host."""
        positions = torch.tensor(self._positions(index, shard, shards))
        return self._read(self._training_sequences + positions % self._validation_sequences)

    def _positions(self, step: int, shard: int, shards: int) -> range:
        size = self._global_batch // shards
        first = step * self._global_batch + shard * size
        return range(first, first + size)

    def _find_sequences(self, positions: range) -> Tensor:
        """The numbers of the sequences at these positions of all epochs, one after another."""
        parts, position = [], positions.start
        while position < positions.stop:
            epoch, place = divmod(position, self._training_sequences)
            parts.append(self._epoch(epoch)[place : place + positions.stop - position])
            position += len(parts[-1])
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _shuffle(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(stable_seed(f"{self._seed}/epoch{epoch}"))
        return torch.randperm(self._training_sequences, generator=generator)

    def _read(self, sequences: Tensor) -> Tensor:
        starts = sequences * self._seq_len
        return self._tokens[starts[:, None] + self._window].long()


class StackedBatches:
    """The batches of several models as one, with tensors (models, sequences, seq_len)."""

    def __init__(self, batches: Sequence[Batches]) -> None:
        self._batches = batches

    def training(self, step: int, shard: int = 0, shards: int = 1) -> Batch:
        """As `Batches.training`, of every model."""
        return self._place([batches.training_tokens(step, shard, shards) for batches in self._batches])

    def validation(self, index: int, shard: int = 0, shards: int = 1) -> Batch:
        """As `Batches.validation`, of every model."""
        return self._place([batches.validation_tokens(index, shard, shards) for batches in self._batches])

    def _place(self, tokens: Sequence[Tensor]) -> Batch:
        return _place(torch.stack(list(tokens)), self._batches[0].device)


def _place(tokens: Tensor, device: torch.device) -> Batch:
    """Cuts tokens (…, seq_len + 1) into inputs and targets on the device; all models' go there in one transfer each."""
    inputs, targets = tokens[..., :-1].contiguous(), tokens[..., 1:].contiguous()
    if device.type == "cuda":
        return Batch(*(part.pin_memory().to(device, non_blocking=True) for part in (inputs, targets)))
    return Batch(inputs, targets)


def stable_seed(text: str) -> int:
    """A 63-bit seed from `text`, the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
