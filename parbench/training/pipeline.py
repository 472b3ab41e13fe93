"""A pipeline of stages over the ranks of a group: what each rank holds, and the schedule that drives it."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup, pipelining
from torch.distributed.pipelining import schedules

from parbench.data.batches import Batch
from parbench.training.generation import Mark, likeliest
from parbench.training.workload import next_token_loss

SCHEDULES: dict[str, type[Any]] = {
    "naive": pipelining.ScheduleGPipe,
    "gpipe": pipelining.ScheduleGPipe,
    "1f1b": pipelining.Schedule1F1B,
    "interleaved_1f1b": pipelining.ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": pipelining.ScheduleInterleavedZeroBubble,
    "zbv": pipelining.ScheduleZBVZeroBubble,
    "dualpipev": schedules.ScheduleDualPipeV,
}


class PipelineStage(pipelining.PipelineStage):
    """A stage that greets other ranks only.

    Before its first step, torch 2.11 lets neighbouring stages send each other a number, also where both lie in one
    rank, as in V-shaped schedules; gloo has no connection to itself.
    """

    def _get_init_p2p_neighbors_ops(self) -> list[distributed.P2POp]:
        return [op for op in super()._get_init_p2p_neighbors_ops() if op.group_peer != self.group_rank]


class Pipeline:
    """The stages of one rank, by their numbers in the whole pipeline, under one schedule.

    `modules` are those stages, already split or wrapped; `scaled` makes of a loss what the backward pass starts from.
    """

    def __init__(
        self,
        schedule: str,
        modules: dict[int, nn.Module],
        *,
        stages: int,
        micro_batches: int,
        device: torch.device,
        group: ProcessGroup | None,
        scaled: Callable[[Tensor], Tensor],
    ) -> None:
        self.modules = modules
        self.group = group
        self.micro_batches = micro_batches
        self.stages = stages
        self.first, self.last = 0 in modules, stages - 1 in modules
        self.losses: list[Tensor] = []
        self.forms: dict[tuple[int, torch.Size], Form] = {}
        self.clock = ComputeClock(device)
        self._scaled = scaled
        made = [
            self.clock.attached(PipelineStage(module, index, stages, device, group=group))
            for index, module in modules.items()
        ]
        takes_several = issubclass(SCHEDULES[schedule], schedules.PipelineScheduleMulti)
        self._schedule = SCHEDULES[schedule](
            made if takes_several else made[0], n_microbatches=micro_batches, loss_fn=self._loss, scale_grads=False
        )
        self.ranks = [made[0].stage_index_to_group_rank[index] for index in range(stages)]

    def train(self, batch: Batch) -> Tensor | None:
        """Forward and backward passes of all micro-batches; the mean loss, in the rank of the last stage."""
        self.losses.clear()
        inputs = (batch.inputs,) if self.first else ()
        self._schedule.step(*inputs, **({"target": batch.targets} if self.last else {}), return_outputs=False)
        # Before its first step a schedule tries the loss on made-up logits, to learn what comes out.
        return torch.stack(self.losses[-self.micro_batches :]).mean() if self.last else None

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = next_token_loss(logits, targets)
        self.losses.append(loss.detach())
        # Divided here and not by the schedule, which would divide once more what earlier parts of a step have left.
        return self._scaled(loss / self.micro_batches)

    def evaluate(self, batch: Batch) -> Tensor | None:
        """The mean loss without a backward pass, in the rank of the last stage."""
        outputs = Relay(self).forward(batch.inputs.chunk(self.micro_batches))
        if not self.last:
            return None
        targets = batch.targets.chunk(self.micro_batches)
        losses = [next_token_loss(logits, part) for logits, part in zip(outputs, targets, strict=True)]
        return torch.stack(losses).mean()

    def generate(self, prompts: Tensor, new_tokens: int, mark: Mark) -> Tensor | None:
        """Greedy decoding: micro-batches follow each other through the stages.

        A micro-batch's next token starts when its last one has come round from the last stage to the first.
        """
        relay = Relay(self, length=prompts.shape[1] + new_tokens)
        tokens, generated = list(prompts.chunk(self.micro_batches)), list[list[Tensor]]()
        for step in range(new_tokens):
            logits = relay.forward(tokens, come_round=step > 0)
            tokens = [part[:, :1] for part in tokens]
            if self.last:
                tokens = [likeliest(each) for each in logits]
                generated.append(tokens)
                if step < new_tokens - 1:
                    relay.bring_round(tokens)
            mark()
        return torch.cat([torch.cat(step) for step in generated], dim=1) if self.last else None


class Form(NamedTuple):
    """What a receiver must know of a tensor."""

    shape: torch.Size
    dtype: torch.dtype


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Relay:
    """Forward passes alone: micro-batches handed from stage to stage, as soon as each stage has them done.

    A rank with several stages takes one micro-batch through all of them before the next: NCCL may hold a send back
    until it is received, and ranks that send all that they have before they receive anything would wait for each other.
    With `length`, positions up to that many are remembered from one pass to the next.
    """

    def __init__(self, pipeline: "Pipeline", *, length: int | None = None) -> None:
        self._pipeline = pipeline
        self._length = length
        self._caches: dict[tuple[int, int], list[Any]] = {}
        self._start = 0
        self._pending: list[tuple[Any, Tensor]] = []
        self._kept: dict[int, list[Tensor]] = {}

    def forward(self, inputs: Sequence[Tensor], *, come_round: bool = False) -> list[Tensor]:
        """Through all stages; the outputs of the last one, where it is. `inputs` are token ids of each micro-batch.

        Those that `come_round` are at the last stage, and only their shapes count elsewhere.
        """
        outputs: list[Tensor] = []
        if come_round and self._pipeline.first:
            inputs = [self._receive(0, tokens) for tokens in inputs]
        for number, tokens in enumerate(inputs):
            for index, module in self._pipeline.modules.items():
                output = self._through(module, index, number, self._receive(index, tokens) if index else tokens)
                if index == self._pipeline.stages - 1:
                    outputs.append(output)
                else:
                    self._send(index + 1, output, tokens)
        self._start += inputs[0].shape[1]
        self._wait()
        return outputs

    def bring_round(self, tokens: Sequence[Tensor]) -> None:
        """Hands the tokens of the last stage to the first."""
        for part in tokens:
            self._send(0, part, part)
        self._wait()

    def _wait(self) -> None:
        """Until all that was sent has been taken: it must not be freed before."""
        for work, _ in self._pending:
            work.wait()
        self._pending.clear()

    def _through(self, module: nn.Module, index: int, number: int, hidden: Tensor) -> Tensor:
        timed = self._pipeline.clock.timed(module)
        if self._length is None:
            return cast("Tensor", timed(hidden))
        caches = self._caches.get((index, number))
        if caches is None:
            caches = self._caches[index, number] = module.new_caches(self._length)  # type: ignore[operator]
        return cast("Tensor", timed(hidden, caches, self._start))

    def _send(self, index: int, tensor: Tensor, tokens: Tensor) -> None:
        """To the stage called `index`. The first hidden states of such tokens go after their form."""
        if index in self._pipeline.modules:
            self._kept.setdefault(index, []).append(tensor)
            return
        rank, forms = self._pipeline.ranks[index], self._pipeline.forms
        if index and (index, tokens.shape) not in forms:
            forms[index, tokens.shape] = Form(tensor.shape, tensor.dtype)
            self._post(torch.tensor([*tensor.shape, DTYPES.index(tensor.dtype)], device=tensor.device), rank)
        self._post(tensor.contiguous(), rank)

    def _post(self, tensor: Tensor, rank: int) -> None:
        self._pending.append((distributed.isend(tensor, group=self._pipeline.group, group_dst=rank), tensor))

    def _receive(self, index: int, tokens: Tensor) -> Tensor:
        """What the stage called `index` gets: tokens shaped as `tokens`, or hidden states of such tokens."""
        if self._kept.get(index):
            return self._kept[index].pop(0)
        rank, forms = self._pipeline.ranks[index - 1], self._pipeline.forms
        if index == 0:
            return self._fetch(torch.empty_like(tokens, memory_format=torch.contiguous_format), rank)
        if (index, tokens.shape) not in forms:
            *sizes, number = self._fetch(torch.empty(4, dtype=torch.int64, device=tokens.device), rank).tolist()
            forms[index, tokens.shape] = Form(torch.Size(sizes), DTYPES[number])
        form = forms[index, tokens.shape]
        return self._fetch(torch.empty(form.shape, dtype=form.dtype, device=tokens.device), rank)

    def _fetch(self, into: Tensor, rank: int) -> Tensor:
        distributed.recv(into, group=self._pipeline.group, group_src=rank)
        return into


class ComputeClock:
    """Sums the time that stages compute, apart from what they wait: the rest of a step is bubble and communication.

    On CUDA between events on the stage's stream, read when asked; on CPU by the clock.
    """

    METHODS = ("forward_one_chunk", "backward_one_chunk", "backward_weight_one_chunk")

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def attached(self, stage: Any) -> Any:
        """The stage, whose passes are timed from now on."""
        for name in self.METHODS:
            setattr(stage, name, self.timed(getattr(stage, name)))
        return stage

    def seconds(self) -> float:
        """The time so far."""
        if self._events:
            torch.cuda.synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1e3
            self._events.clear()
        return self._seconds

    def timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        """The method, whose calls are timed."""

        def on_cpu(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = method(*arguments, **named)
            self._seconds += time.perf_counter() - started
            return result

        def on_cuda(*arguments: Any, **named: Any) -> Any:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = method(*arguments, **named)
            end.record()
            self._events.append((start, end))
            return result

        return on_cuda if self._on_cuda else on_cpu
