"""Seconds that a device computes: matrix products by their shapes, attention, memory-bound operations, the logits."""

import numpy as np

from parbench.predict.constants import Constants
from parbench.predict.problem import Array, Problem

TILE_ROWS, TILE_COLUMNS = 128.0, 256.0
"""The part of a product that one multiprocessor computes at once, as libraries choose it for large products."""

SPLIT_DEPTH = 2048.0
"""Least depth of a part, where a product of few tiles is cut along its depth, as those of weights' gradients are."""

POWER_EXPONENT = 0.5
"""Speed over power limit: power grows with clock times voltage squared, and voltage with clock, so that clocks follow a
power between its cube root and itself."""

TENSOR_CORE_ALIGNMENT = 8.0
"""Elements whose multiples the rows of 16-bit operands have to be for tensor cores (cuBLAS documentation)."""

REFERENCE_HEAD, SMALL_HEAD = 128.0, 32.0
"""Channels of a head: the size that the speed of fused attention holds for, and the one that has half the speed."""

FOREIGN_ATTENTION = 0.6
"""Speed of fused attention that was written for Ampere, on what came later, over that of kernels for the device: 35 and
up to 75 % of an H100's peak (Shah et al. 2024, FlashAttention-3)."""

EARLY_ATTENTION = 0.75
"""Speed of the first fused attention, written in Triton, over that of FlashAttention-2 (Dao 2023, figures 4 to 6)."""

BACKWARD_ATTENTION = 2.5
"""Fused attention computes five products in the backward pass, two in the forward pass (Dao et al. 2022)."""

SCORE_PASSES = 7.0
"""Times that an element of unfused scores passes the memory in a forward pass: product, softmax, dropout, product."""

BACKWARD_TRAFFIC = 1.5
"""Traffic of memory-bound operations in a backward pass over a forward pass: gradients besides what was saved."""

LOGIT_PASSES = 10.0
"""Times that an element of the logits passes the memory in both passes: cast, maximum, sum, gradient, and back."""

FUSED_SHARE = 0.7
"""Of the memory-bound traffic that is left where kernels are fused, by hand or by a compiler."""


COLLECTIVE_LAUNCH = 0.25
"""Of the time in which a block's pass is launched, that of a collective: its checks, its stream and its events."""


def product_speed(problem: Problem, constants: Constants) -> Array:
    """Operations per second that a large product reaches, in the format that products compute in."""
    ratio = problem.matmul / problem.matmul16
    gain = np.where(ratio > 1, ratio**constants.small_formats, ratio)
    return _wide_speed(problem, constants) * gain


def product_seconds(problem: Problem, constants: Constants, rows: Array, columns: Array, depth: Array) -> Array:
    """Seconds of a product of `rows` × `depth` and `depth` × `columns`."""
    efficiency = (
        _busy(problem, rows, columns, depth) ** constants.quantised * depth / (depth + _half_depth(problem, constants))
    )
    computing = 2 * rows * columns * depth / (product_speed(problem, constants) * efficiency)
    moved = problem.element_bytes * (rows * depth + depth * columns + rows * columns)
    return np.maximum(computing, moved / problem.memory_bandwidth)


def block_products(problem: Problem, constants: Constants) -> tuple[Array, Array]:
    """Seconds of a block's products in the forward and in the backward pass."""
    tokens, width, parts = problem.tokens, problem.width, problem.tensor
    pairs = (
        ((width + 2 * problem.key_value_width) / parts, width),
        (width, width / parts),
        ((problem.mlp_matrices - 1) * problem.mlp_width / parts, width),
        (width, problem.mlp_width / parts),
    )
    forward, backward = np.zeros(1), np.zeros(1)
    for columns, depth in pairs:
        there, back = _with_gradients(problem, constants, tokens, columns, depth)
        forward, backward = forward + there, backward + back
    return forward, backward


def attention(problem: Problem, constants: Constants) -> tuple[Array, Array]:
    """Seconds of a block's attention in the forward and in the backward pass."""
    speed, size, tokens = _wide_speed(problem, constants), problem.head_size, problem.tokens
    operations = 4 * tokens * problem.seq_len * problem.width / problem.tensor
    seen = np.where(problem.causal > 0, 0.5, 1.0)
    size_factor = size / (size + SMALL_HEAD) * (REFERENCE_HEAD + SMALL_HEAD) / REFERENCE_HEAD
    native = np.where(problem.native_attention > 0, 1.0, FOREIGN_ATTENTION)
    native = native * np.where(problem.early_attention > 0, EARLY_ATTENTION, 1.0)
    fused = seen * operations / (speed * constants.attention * size_factor * native)
    aligned = np.where(np.mod(size, TENSOR_CORE_ALIGNMENT) == 0, 1.0, constants.unaligned)
    products = operations / (speed * aligned * size / (size + _half_depth(problem, constants)))
    scores = tokens * problem.seq_len * problem.heads / problem.tensor * problem.element_bytes
    moving = SCORE_PASSES * scores / problem.memory_bandwidth
    forward = np.where(problem.fused_attention > 0, fused, products + moving)
    backward = np.where(
        problem.fused_attention > 0, BACKWARD_ATTENTION * fused, 2 * products + BACKWARD_TRAFFIC * moving
    )
    return forward, backward


def memory_bound(problem: Problem, constants: Constants) -> tuple[Array, Array]:
    """Seconds of a block's norms, activations, residuals and casts in the forward and in the backward pass."""
    unfused = np.where(problem.fused_kernels > 0, FUSED_SHARE, 1.0)
    moved = constants.elementwise * unfused * block_activations(problem)
    width, parts = problem.width, problem.tensor
    operands = problem.tokens * (2 * width + width / parts + problem.mlp_width / parts)
    # An operand below 16 bits is read once and written as it is and transposed.
    casts = np.where(problem.matmul > problem.matmul16, operands * (problem.element_bytes + 2), 0.0)
    forward = (moved + casts) / problem.memory_bandwidth
    return forward, (BACKWARD_TRAFFIC * moved + casts) / problem.memory_bandwidth


def logits(problem: Problem, constants: Constants) -> Array:
    """Seconds of the head and the loss of a micro-batch in both passes, on the devices that have them."""
    tokens = problem.tokens * problem.scored
    columns = problem.vocab / problem.tensor
    forward, backward = _with_gradients(problem, constants, tokens, columns, problem.width)
    unfused = np.where(problem.fused_kernels > 0, FUSED_SHARE, 1.0)
    moved = LOGIT_PASSES * unfused * problem.element_bytes * tokens * columns
    return forward + backward + moved / problem.memory_bandwidth


def launching(problem: Problem, constants: Constants) -> Array:
    """Seconds that the host takes to launch one pass of a block, with the two collectives of tensor parallelism."""
    return constants.launch * np.where(problem.tensor > 1, 1 + 2 * COLLECTIVE_LAUNCH, 1.0)


def block_activations(problem: Problem) -> Array:
    """Bytes that a block's forward pass over a micro-batch leaves for the backward pass, beside attention's scores.

    Inputs of both norms and of both first products, masks or residuals, as whole rows; queries, keys, values and what
    attention returns, and what the MLP has between its products, in parts of the tensor-parallel devices (after
    Korthikanti et al. 2022, Reducing Activation Recomputation in Large Transformer Models).
    """
    rows = 5 * problem.width / np.where(problem.sequence_parallel > 0, problem.tensor, 1.0)
    inner = 2 * problem.width + 2 * problem.key_value_width + 2 * (problem.mlp_matrices - 1) * problem.mlp_width
    return problem.element_bytes * problem.tokens * (rows + inner / problem.tensor)


def _half_depth(problem: Problem, constants: Constants) -> Array:
    """The depth at which a product has half its speed: what a multiprocessor could do while a tile begins and ends.

    The faster it is, the deeper a product has to be.
    """
    each = product_speed(problem, constants) / problem.multiprocessors
    return constants.tile * each / (2 * TILE_ROWS * TILE_COLUMNS)


def _busy(problem: Problem, rows: Array, columns: Array, depth: Array) -> Array:
    """The share of multiprocessors that compute something, over the waves in which a product's tiles take turns.

    A deep product may also be cut along its depth, whichever keeps more of them busy. A device whose multiprocessors do
    not count is busy all the time.
    """
    tiles = np.ceil(rows / TILE_ROWS) * np.ceil(columns / TILE_COLUMNS)
    padded = rows * columns / (tiles * TILE_ROWS * TILE_COLUMNS)
    whole = tiles / problem.multiprocessors
    cut = whole * np.maximum(np.floor(depth / SPLIT_DEPTH), 1.0)
    busy = padded * np.maximum(whole / np.ceil(whole), cut / np.ceil(cut))
    return np.where(problem.multiprocessors > 1, busy, np.ones(1))


def _wide_speed(problem: Problem, constants: Constants) -> Array:
    """Operations per second that a large product reaches in 16 bits, or in the wider format of the workload."""
    generation = np.where(problem.hopper > 0, constants.hopper, 1.0) * np.where(
        problem.blackwell > 0, constants.blackwell, 1.0
    )
    speed: Array = problem.matmul16 * constants.matmul * generation * problem.power**POWER_EXPONENT
    return speed


def _with_gradients(
    problem: Problem, constants: Constants, tokens: Array, columns: Array, depth: Array
) -> tuple[Array, Array]:
    """Seconds of a layer's product, and of the two that give the gradients of its input and of its weights."""
    forward = product_seconds(problem, constants, tokens, columns, depth)
    of_input = product_seconds(problem, constants, tokens, depth, columns)
    of_weights = product_seconds(problem, constants, depth, columns, tokens)
    return forward, of_input + of_weights
