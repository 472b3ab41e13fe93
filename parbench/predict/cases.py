"""A published row as an element of a problem: what it says, what is known of its source, and what has to be assumed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from parbench.errors import ScenarioError
from parbench.predict.clusters import Format
from parbench.predict.cost import model_flops
from parbench.predict.facts import with_facts
from parbench.predict.inference import completed
from parbench.predict.machines import UnknownDevice, machine_of
from parbench.predict.models import UnknownModel, model_of
from parbench.predict.problem import Numbers, Problem, machine_numbers, model_numbers
from parbench.predict.rows import Row

FORMATS: tuple[tuple[str, Format], ...] = (
    ("fp4", "fp4"),
    ("fp8|float8", "fp8"),
    ("bf16|bfloat16", "bf16"),
    ("fp16|amp|mixed", "fp16"),
    ("tf32", "tf32"),
    ("fp32", "fp32"),
)


MOST_STAGES = 6
"""Of a rank, where a row does not say and its software interleaves."""


MODERN = re.compile(r"transformer.engine|megatron.core|nemo|cudnn|flash.?attention.?3|\bfa3\b")
"""Software whose kernels are fused, and whose attention is written for the device that it runs on."""


SIZES = ("layers", "d_model", "heads", "kv_heads", "d_ff", "vocab", "seq_len", "n_gpus", "micro_batch", "global_batch")
DEGREES = ("tp", "pp", "cp", "vpp", "ep", "fsdp_shard", "nodes", "grad_accum")


class Unusable(Exception):  # noqa: N818 - a reason to leave a row out
    """A row cannot be predicted; the text is a clause that says why."""


@dataclass(frozen=True)
class Case:
    """A row that can be predicted: the numbers of its element, what was measured, and what was assumed.

    `group` are rows that differ in nothing but their layout, so that they can be ranked against each other.
    """

    row_id: str
    fold: str
    numbers: Numbers
    tokens_per_s: float
    device: str
    generation: str
    devices: int
    group: tuple[object, ...]
    assumed: tuple[str, ...]


def cases_of(rows: Iterable[Row]) -> tuple[list[Case], dict[str, str]]:
    """The rows that can be predicted, and for each of the others the reason."""
    cases: list[Case] = []
    refused: dict[str, str] = {}
    for row in rows:
        try:
            cases.append(case_of(row))
        except (Unusable, UnknownModel, UnknownDevice) as reason:
            refused[row.row_id] = str(reason)
        except ScenarioError as error:
            refused[row.row_id] = error.mistakes[0].message
    return cases, refused


def case_of(row: Row) -> Case:
    """The case of one row. Raises `Unusable`, `UnknownModel` or `UnknownDevice`."""
    _require_counts(row)
    row, filled = with_facts(row)
    model, machine = model_of(row), machine_of(row)
    number_format = _format(row, machine.device.generation)
    numbers = {
        **model_numbers(model.shape, model.vocab_size, model.seq_len),
        **machine_numbers(machine, number_format),
        **_software(row, number_format, machine.device.generation),
        **_degrees(row, machine.devices_per_node),
        "interleave": _interleave(row, model.shape.layers),
    }
    numbers, guessed = completed(row, numbers)
    element = Problem.stacked([numbers])
    return Case(
        row_id=row.row_id,
        fold=row.fold,
        numbers=numbers,
        tokens_per_s=_throughput(row, element),
        device=machine.device.name,
        generation=machine.device.generation,
        devices=int(element.devices[0]),
        group=(row.fold, machine.device.name, number_format, *model.shape[:2], model.seq_len, row.number("n_gpus")),
        assumed=(*filled, *model.assumed, *guessed),
    )


def _require_counts(row: Row) -> None:
    """Raises `Unusable` for a size that is none, or a degree between 0, which tables write for none, and 1."""
    for column in (*SIZES, *DEGREES):
        number = row.number(column)
        if number is not None and number < 1 and (column in SIZES or number > 0):
            raise Unusable(f"{column} is {row.text(column)}, and has to be at least 1")


def _format(row: Row, generation: str) -> Format:
    text = re.sub(r"\bno[nt][ -]\w+", "", row.text("precision").lower())
    number_format = next((name for pattern, name in FORMATS if re.search(pattern, text)), None)
    return number_format or ("fp16" if generation == "volta" else "bf16")


def _software(row: Row, number_format: Format, generation: str) -> dict[str, float]:
    is_wide = number_format in ("fp32", "tf32")
    # FSDP is younger than fused attention, and kernels for Hopper and later have always had it.
    is_fused = bool(row.text("fsdp_shard")) or generation in ("hopper", "blackwell") or number_format in ("fp8", "fp4")
    compiled = row.text("compile").lower() == "yes"
    default_mixed = "mixed_precision=default" in row.text("precision").lower()
    fused, is_modern = row.number("fused_attention"), bool(MODERN.search(row.words()))
    return {
        "element_bytes": 4 if is_wide else 2,
        "weight_bytes": 4 if is_wide else 2,
        "gradient_bytes": 4 if is_wide else 2,
        "optimizer_bytes": 8 if is_wide else 12,
        "gathered_bytes": 4 if is_wide or default_mixed else 2,
        "fused_attention": fused if fused is not None else float(is_fused or number_format == "bf16"),
        "native_attention": max(
            row.number("native_attention") or 0, is_modern, generation not in ("hopper", "blackwell")
        ),
        "early_attention": row.number("early_attention") or 0,
        "fused_kernels": max(row.number("fused_kernels") or 0, compiled, is_modern),
        "hidden_tensor": 0.5 if "async tp" in row.words() else row.number("hidden_tensor") or 0,
    }


def _degrees(row: Row, per_node: int) -> dict[str, float]:
    devices = int(row.number("n_gpus") or 0)
    tensor, pipeline, context = (int(row.number(column) or 1) for column in ("tp", "pp", "cp"))
    inner = tensor * pipeline * context
    if devices < 1 or devices % inner:
        raise Unusable(f"{devices} devices do not divide into tp {tensor} × pp {pipeline} × cp {context}")
    if int(row.number("ep") or 1) > 1:
        raise Unusable("it has experts, which are not validated")
    data = devices // inner
    shards = _shards(row, data, context, per_node)
    zero_text = row.text("zero_stage")
    zero = row.number("zero") if not zero_text else float(bool(re.search(r"[123]", zero_text.split(",")[0])))
    distributed = zero_text.startswith("DDP") and bool(row.number("zero"))
    return {
        "data": data,
        "tensor": tensor,
        "pipeline": pipeline,
        "context": context,
        "shards": shards,
        "zero": float(shards == 1 and data * context > 1 and (distributed or zero is None or zero > 0)),
        "sequence_parallel": float(tensor > 1 and bool(row.number("sequence_parallel"))),
    }


def _interleave(row: Row, layers: int) -> int:
    """Stages of a rank: as the row says, or as software does that interleaves wherever it can."""
    pipeline = int(row.number("pp") or 1)
    if pipeline == 1:
        return 1
    if stages := row.number("vpp"):
        return int(stages)
    each = -(-layers // pipeline)
    return next(count for count in range(MOST_STAGES, 0, -1) if each % count == 0) if row.number("interleaves") else 1


def _shards(row: Row, data: int, context: int, per_node: int) -> int:
    text, replicas = row.text("fsdp_shard").upper(), data * context
    if not text or "DDP" in text:
        return 1
    if text == "HSDP" or "HYBRID" in text:
        return min(per_node, replicas)
    shards = row.number("fsdp_shard")
    # Sharding by name, or over the ranks of both axes where context parallelism has some.
    return min(replicas, int(shards) * context) if shards else replicas


def _throughput(row: Row, element: Problem) -> float:
    """Tokens per second of all devices. Raises `Unusable` where the row has no rate."""
    devices = row.number("n_gpus") or 1.0
    if total := row.number("tokens_per_s_total"):
        return total
    if each := row.number("tokens_per_s_per_gpu"):
        return each * devices
    if sequences := row.number("seqs_per_s_total"):
        return sequences * float(element.seq_len[0])
    if seconds := row.number("iter_time_s"):
        return float(element.step_tokens[0]) / seconds
    if rate := row.number("tflops_per_gpu"):
        return rate * 1e12 * devices / _counted_flops(row, element)
    raise Unusable("it has no throughput")


def _counted_flops(row: Row, element: Problem) -> float:
    """Operations a token as the row's source counts them."""
    blocks = float((element.layers * element.block_parameters)[0])
    match row.text("flops"):
        case "blocks":
            return 8 * blocks
        case "hardware":
            scores = float((element.layers * element.seq_len * element.width)[0])
            return 8 * blocks + 16 * scores + 6 * float((element.vocab * element.width)[0])
        case _:
            return float(model_flops(element)[0])
