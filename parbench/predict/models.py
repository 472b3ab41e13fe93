"""The sizes of a published row's model: what the row says, then what is known of a model of that name."""

import csv
import io
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

from parbench.models.shape import Shape
from parbench.predict.rows import PUBLISHED, Row

GATED = ("llama", "internlm", "mistral", "qwen", "gemma")
"""Families whose MLP has three matrices."""

ENCODERS = ("bert",)
MASKED_SHARE = 0.15
"""Of the tokens that encoders predict (Devlin et al. 2019, section 3.1)."""

VOCABULARIES = {
    "llama3": 128_256,
    "llama": 32_000,
    "internlm": 103_168,
    "nemotron": 256_000,
    "mpt": 50_368,
    "bert": 30_522,
}
LENGTHS = {"llama3": 8192, "llama": 4096, "internlm": 2048, "nemotron": 4096, "mpt": 2048, "bert": 512}
USUAL_VOCABULARY, USUAL_LENGTH, USUAL_HEAD = 51_200, 2048, 128
"""Of GPT models where nothing is said: GPT-2's vocabulary as Megatron pads it, GPT-3's length and size of heads."""

OTHER_MODELS = re.compile(r"lstm|seq2seq|encoder-decoder|transformer-xl|\bmoe\b|mixture|\bt5\b")
"""What is not made of equal blocks of a decoder or an encoder."""

FAMILY = re.compile(
    r"(llama|gpt|mpt|nemotron|internlm|bert|mistral|qwen|gemma)(?:[\s_-]*([0-9](?:\.[0-9])?)(?![0-9.]*\s*[bmt]))?"
)
"""A family and its version, which is no number of parameters."""
SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([mbt])(?![a-z])")


@dataclass(frozen=True)
class Model:
    """A row's model, the length of its sequences, and what its source does not say and was taken from elsewhere."""

    shape: Shape
    vocab_size: int
    seq_len: int
    assumed: tuple[str, ...]


class UnknownModel(Exception):  # noqa: N818 - a reason to leave a row out
    """The sizes of a row's model are neither said nor known."""


def model_of(row: Row) -> Model:
    """The model of a row. Raises `UnknownModel` with what is missing."""
    name = row.text("model")
    if other := OTHER_MODELS.search(f"{row.text('arch')} {name}".lower()):
        raise UnknownModel(f"{other[0]}: it is not made of equal blocks of a decoder or an encoder")
    family, version, size = _key(name)
    usual_sizes = _sizes_by_model().get((family, version, size), {})
    assumed: list[str] = []

    def number(column: str, usual: float | None = None) -> float | None:
        stated = row.number(column, kilo=1024 if column == "seq_len" else 1e3)
        if stated is None and (assumption := usual_sizes.get(column) or usual):
            assumed.append(column)
            return float(assumption)
        return stated

    width = number("d_model")
    if width is None:
        raise UnknownModel(f"the width of {name or 'its model'} is not stated, and no model of that name is known")
    layers = number("layers") or _layers(row, width, assumed)
    if not layers:
        raise UnknownModel(f"the layers of {name or 'its model'} are neither stated nor derived from its size")
    gated = family in GATED
    heads = number("heads", max(1, round(width / USUAL_HEAD))) or 1
    mlp = number("d_ff", _usual_mlp(width, gated=gated)) or 4 * width
    generation = f"{family}{version}" if f"{family}{version}" in VOCABULARIES else family
    is_encoder = family in ENCODERS or "encoder" in row.text("arch").lower().split()
    shape = Shape(
        layers=int(layers),
        width=int(width),
        heads=int(heads),
        key_value_heads=int(row.number("kv_heads") or usual_sizes.get("kv_heads") or heads),
        mlp_width=int(mlp),
        gated=gated,
        causal=not is_encoder,
        scored=MASKED_SHARE if is_encoder else 1.0,
    )
    vocab = number("vocab", VOCABULARIES.get(generation, USUAL_VOCABULARY))
    length = number("seq_len", LENGTHS.get(generation, USUAL_LENGTH))
    return Model(shape, int(vocab or USUAL_VOCABULARY), int(length or USUAL_LENGTH), tuple(assumed))


def _layers(row: Row, width: float, assumed: list[str]) -> int | None:
    """Layers of a model of the row's size: a multiple of its stages; None where the size is not said."""
    size = row.number("params")
    if size is None:
        return None
    assumed.append("layers")
    stages = int((row.number("pp") or 1) * (row.number("vpp") or 1))
    return max(1, round(size / (12 * width**2) / stages)) * stages


def _usual_mlp(width: float, *, gated: bool) -> float:
    """Four times the width or, of three matrices, 8/3 of it as a multiple of 256 (Touvron et al. 2023)."""
    return -(-8 * width // 3 // 256) * 256 if gated else 4 * width


def _key(name: str) -> tuple[str, str, float]:
    """What tells models apart by name: `Llama 3.1 8B` and `LLAMA3_8B` are the same to a cost model."""
    text = name.lower()
    family = FAMILY.search(text)
    size = SIZE.search(text, family.end() if family else 0) or SIZE.search(text)
    multiple = {"m": 1e-3, "b": 1.0, "t": 1e3}
    version = (family[2] or "2")[:1] if family and family[1] == "llama" else ""
    return (family[1] if family else ""), version, float(size[1]) * multiple[size[2]] if size else 0.0


@cache
def _sizes_by_model() -> dict[tuple[str, str, float], dict[str, float]]:
    text = resources.files(PUBLISHED).joinpath("model_shapes.csv").read_text(encoding="utf-8")
    by_model: dict[tuple[str, str, float], dict[str, float]] = {}
    for record in csv.DictReader(io.StringIO(text)):
        row = Row({key: value or "" for key, value in record.items()}, "")
        sizes = {
            column: value
            for column in ("layers", "d_model", "heads", "kv_heads", "d_ff", "vocab")
            if (value := row.number(column)) is not None
        }
        # Several repositories tell of the same model: the first one wins, and later ones fill its gaps.
        key = _key(row.text("model"))
        by_model[key] = {**sizes, **by_model.get(key, {})}
    return by_model
