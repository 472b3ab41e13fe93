"""Stages of a pipeline that know the shapes of their messages. Otherwise they would learn them from each other's."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.pipelining import schedules, stage

from parbench.errors import Unsupported
from parbench.measure.rehearsal.replacing import replaced, wrapped
from parbench.scenario.specs import WorkloadSpec
from parbench.training import pipeline
from parbench.training.workload import AUTOCAST


@contextmanager
def shaped_stages(spec: WorkloadSpec, shards: int) -> Iterator[None]:
    """Pipelines of this workload, over so many data shards, ask nobody for shapes while the block runs."""
    sequences, micro_batches = spec.global_batch // spec.gradient_accumulation // shards, [1]

    def with_note(set_up: Any) -> Any:
        def call(self: Any, *arguments: Any, **named: Any) -> None:
            micro_batches[0] = named["micro_batches"]
            set_up(self, *arguments, **named)

        return call

    class Stage(pipeline.PipelineStage):
        def __init__(self, module: Any, index: int, count: int, device: torch.device, group: Any) -> None:
            inputs, outputs = _messages(spec, sequences // micro_batches[0], device, index, count)
            super().__init__(module, index, count, device, input_args=inputs, output_args=outputs, group=group)

    with ExitStack() as stack:
        stack.enter_context(wrapped(pipeline.Pipeline, "__init__", with_note))
        stack.enter_context(replaced(pipeline, "PipelineStage", Stage))
        # Older versions of torch take no vote on who knows shapes.
        if hasattr(schedules._PipelineSchedule, "_warmup_p2p"):
            stack.enter_context(replaced(schedules._PipelineSchedule, "_warmup_p2p", _know_shapes))
        yield


def _messages(
    spec: WorkloadSpec, sequences: int, device: torch.device, index: int, count: int
) -> tuple[Tensor, Tensor]:
    """What stage `index` of `count` takes and gives for a micro-batch: token ids, hidden states or logits."""
    width = getattr(spec.model, "d_model", None)
    if width is None:
        raise Unsupported(f"models of family {spec.model.kind} do not tell how wide the states between stages are")
    shape = (sequences, spec.seq_len)
    hidden = torch.zeros(*shape, width, device=device, requires_grad=True)
    tokens = torch.zeros(shape, dtype=torch.int64, device=device)
    dtype = AUTOCAST.get(spec.precision, torch.float32)
    logits = torch.zeros(*shape, spec.vocab_size, device=device, dtype=dtype, requires_grad=True)
    return hidden if index else tokens, logits if index == count - 1 else hidden


def _know_shapes(_: Any, own: Any, *__: Any) -> None:
    for each in own:
        each._inference_mode = stage.InferenceMode.STATIC  # type: ignore[attr-defined]
