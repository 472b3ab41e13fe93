"""The parameters of the built-in families, shape by shape, written down from their definitions: torch is not asked."""

from collections.abc import Callable
from typing import Any, NamedTuple

from parbench.models.stages import Stage
from parbench.scenario.specs import WorkloadSpec


class Shape(NamedTuple):
    """A parameter of so many rows and columns; a vector has one column."""

    rows: int
    columns: int = 1

    @property
    def size(self) -> int:
        return self.rows * self.columns


class Part(NamedTuple):
    """The parameters of an embedding, a block or a head, by what tensor parallelism does with them (Megatron-LM).

    A matrix has a row for each of its outputs. `column_split` are matrices and their biases of which a device has some
    outputs, `row_split` matrices of which it has some inputs. `norms` and `others` are whole on every device. `experts`
    have a row for each expert of the block.
    """

    norms: tuple[Shape, ...] = ()
    column_split: tuple[Shape, ...] = ()
    row_split: tuple[Shape, ...] = ()
    others: tuple[Shape, ...] = ()
    experts: tuple[Shape, ...] = ()

    def map(self, change: Callable[[Shape], Shape]) -> "Part":
        """The part with other shapes."""
        return Part(*(tuple(map(change, shapes)) for shapes in self))

    def on_each_of(self, degree: int) -> "Part":
        """What one of `degree` devices has of it."""
        return self._replace(
            column_split=tuple(Shape(rows // degree, columns) for rows, columns in self.column_split),
            row_split=tuple(Shape(rows, columns // degree) for rows, columns in self.row_split),
        )

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return self.norms + self.column_split + self.row_split + self.others + self.experts

    @property
    def column_matrices(self) -> int:
        """How many matrices are split by columns: each of them takes whole hidden states."""
        return sum(shape.columns > 1 for shape in self.column_split)


class Model(NamedTuple):
    """A whole model, or the stage of one: some of its blocks, and an end where it has one."""

    embed: Part | None
    blocks: tuple[Part, ...]
    head: Part | None

    @property
    def ends(self) -> tuple[Part, ...]:
        return tuple(part for part in (self.embed, self.head) if part is not None)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        return tuple(shape for part in (*self.blocks, *self.ends) for shape in part.shapes)

    @property
    def size(self) -> int:
        """The number of parameters."""
        return sum(shape.size for shape in self.shapes)

    def map(self, change: Callable[[Shape], Shape]) -> "Model":
        """The model with other shapes."""
        embed, head = (part and part.map(change) for part in (self.embed, self.head))
        return Model(embed, tuple(block.map(change) for block in self.blocks), head)

    def on_each_of(self, degree: int) -> "Model":
        """What one of `degree` devices has of it under tensor parallelism."""
        embed, head = (part and part.on_each_of(degree) for part in (self.embed, self.head))
        return Model(embed, tuple(block.on_each_of(degree) for block in self.blocks), head)

    def stage(self, stage: Stage) -> "Model":
        """The part of it that a stage of a pipeline holds."""
        blocks = self.blocks[stage.blocks.start : stage.blocks.stop]
        return Model(self.embed if stage.embed else None, blocks, self.head if stage.head else None)


def model_of(spec: WorkloadSpec) -> Model:
    """The parameters of a workload's model."""
    family: Any = spec.model
    parts = {"lstm": _lstm, "transformer": _transformer, "llama": _llama, "moe": _moe}[family.kind]
    embed, block, head = parts(family, spec.vocab_size, spec.seq_len)
    return Model(embed, (block,) * family.layers, head)


def _lstm(family: Any, vocabulary: int, _: int) -> tuple[Part, Part, Part]:
    """Norms have a gain and a bias; four gates, each with an input and a recurrent matrix and a bias to either."""
    width = family.d_model
    norms, gates = (Shape(width),) * 2, 4 * width
    lstm = (Shape(gates, width), Shape(gates, width), Shape(gates), Shape(gates))
    return (
        Part(others=(Shape(vocabulary, width),)),
        Part(norms=norms, others=lstm),
        Part(norms=norms, others=(Shape(vocabulary, width), Shape(vocabulary))),
    )


def _transformer(family: Any, vocabulary: int, seq_len: int) -> tuple[Part, Part, Part]:
    """Norms have a gain and a bias, all matrices but the head's a bias; the MLP is four times as wide."""
    width = family.d_model
    norm = (Shape(width),) * 2
    block = Part(
        norms=norm * 2,
        column_split=(Shape(3 * width, width), Shape(3 * width), Shape(4 * width, width), Shape(4 * width)),
        row_split=(Shape(width, width), Shape(width, 4 * width)),
        others=(Shape(width), Shape(width)),
    )
    embed = Part(others=(Shape(vocabulary, width), Shape(seq_len, width)))
    return embed, block, Part(norms=norm, column_split=(Shape(vocabulary, width),))


def _moe(family: Any, vocabulary: int, seq_len: int) -> tuple[Part, Part, Part]:
    """A GPT whose MLP is a router without a bias, experts of two matrices with a bias each, and perhaps one for all."""
    embed, block, head = _transformer(family, vocabulary, seq_len)
    width, count = family.d_model, family.experts
    inner = family.expert_width or 4 * width
    experts = (Shape(count, width * inner), Shape(count, inner), Shape(count, inner * width), Shape(count, width))
    attention = block._replace(
        column_split=block.column_split[:2], row_split=block.row_split[:1], others=block.others[:1]
    )
    others = (*attention.others, Shape(count, width))
    if family.shared_expert:
        others += (Shape(inner, width), Shape(inner), Shape(width, inner), Shape(width))
    return embed, attention._replace(others=others, experts=experts), head


def _llama(family: Any, vocabulary: int, _: int) -> tuple[Part, Part, Part]:
    """Norms have a gain, and there are no biases; keys and values have heads of their own number."""
    width = family.d_model
    shared = (family.key_value_heads or family.heads) * (width // family.heads)
    mlp = family.mlp_width or -(-8 * width // 3 // 64) * 64
    block = Part(
        norms=(Shape(width), Shape(width)),
        column_split=(Shape(width + 2 * shared, width), Shape(mlp, width), Shape(mlp, width)),
        row_split=(Shape(width, width), Shape(width, mlp)),
    )
    embed = Part(others=(Shape(vocabulary, width),))
    return embed, block, Part(norms=(Shape(width),), column_split=(Shape(vocabulary, width),))
