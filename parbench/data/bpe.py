"""Byte pairs: trains a vocabulary on a text and encodes the text in it. Loads no stored tokenizer."""

import importlib
from itertools import chain
from typing import Any

LINES_AT_ONCE = 10_000


def write_recipe(vocab_size: int) -> bytes:
    """All that decides the tokens of a text besides the text itself; a part of the cache's key."""
    return f"byte-level BPE by lines, {vocab_size} tokens, tokenizers {_import_tokenizers().__version__}".encode()


def encode(text: bytes, vocab_size: int) -> bytes:
    """Little-endian int32 token ids, each below `vocab_size`, of a text that is read as UTF-8.

    Method: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units", on bytes as in GPT-2
    (Radford et al. 2019). Merges stay within a line; bytes that are not UTF-8 become U+FFFD. The same text always gives
    the same tokens.
    """
    import numpy

    tokenizers = _import_tokenizers()
    by_bytes = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = by_bytes
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size, initial_alphabet=by_bytes.alphabet(), special_tokens=[], show_progress=False
    )
    lines = text.decode("utf-8", errors="replace").splitlines(keepends=True)
    tokenizer.train_from_iterator(lines, trainer, length=len(lines))
    parts = []
    for start in range(0, len(lines), LINES_AT_ONCE):
        batch = tokenizer.encode_batch_fast(lines[start : start + LINES_AT_ONCE], add_special_tokens=False)
        parts.append(numpy.fromiter(chain.from_iterable(line.ids for line in batch), dtype="<i4").tobytes())
    return b"".join(parts)


def _import_tokenizers() -> Any:
    return importlib.import_module("tokenizers")
