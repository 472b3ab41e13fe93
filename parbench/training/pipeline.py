"""A pipeline of stages over the ranks of a group, and the schedule that drives it."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed import ProcessGroup, pipelining
from torch.distributed.pipelining import schedules

from parbench.data.batches import Batch
from parbench.training.generation import Mark, choose_likeliest
from parbench.training.loss import TokenLoss

F = TypeVar("F", bound=Callable[..., Any])

FORWARD = ("forward_one_chunk",)
BACKWARD = ("backward_one_chunk", "backward_weight_one_chunk", "perform_reduce_grad")
"""What a schedule calls on a stage to compute; older versions of torch lack the last one."""

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
    """torch's stage, without the first message between two stages of the same rank.

    Before the first step, torch 2.11 has neighbouring stages send each other a number, even where one rank holds both,
    as in V-shaped schedules. gloo cannot send to its own rank.
    """

    def _get_init_p2p_neighbors_ops(self) -> list[distributed.P2POp]:
        return [op for op in super()._get_init_p2p_neighbors_ops() if op.group_peer != self.group_rank]


class Pipeline:
    """The stages of one rank under a schedule.

    `modules` are the stages by their number in the whole pipeline of `stages`; they are split and wrapped already.
    `loss` is the mean loss of what the last stage gives, and the backward pass starts from `scaled(loss)`.
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
        loss: TokenLoss,
        scaled: Callable[[Tensor], Tensor],
    ) -> None:
        self.modules = modules
        self.group = group
        self.micro_batches = micro_batches
        self.stages = stages
        self.first, self.last = 0 in modules, stages - 1 in modules
        self.losses: list[Tensor] = []
        self.forms: dict[tuple[int, torch.Size], TensorForm] = {}
        self.clock = WaitClock(device)
        self._mean_loss = loss
        self._scaled = scaled
        own_stages = self.own_stages = [
            self.clock.attach(PipelineStage(module, index, stages, device, group=group))
            for index, module in modules.items()
        ]
        takes_several = issubclass(SCHEDULES[schedule], schedules.PipelineScheduleMulti)
        self._schedule = SCHEDULES[schedule](
            own_stages if takes_several else own_stages[0],
            n_microbatches=micro_batches,
            loss_fn=self.clock.time_work(self._share_of_loss),
            scale_grads=False,
        )
        self._run_schedule = self.clock.time_schedule(self._schedule.step)
        self.ranks = [own_stages[0].stage_index_to_group_rank[index] for index in range(stages)]

    def train(self, batch: Batch) -> Tensor | None:
        """Forward and backward passes of all micro-batches; the mean loss, in the rank of the last stage."""
        self.losses.clear()
        inputs = (batch.inputs,) if self.first else ()
        self._run_schedule(*inputs, **({"target": batch.targets} if self.last else {}), return_outputs=False)
        # The last ones: before its first step a schedule also calls the loss on made-up logits, to learn its shape.
        return torch.stack(self.losses[-self.micro_batches :]).mean() if self.last else None

    def _share_of_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss = self._mean_loss(logits, targets)
        self.losses.append(loss.detach())
        # Divided here: the schedule would divide all gradients, also those that earlier parts of the step have left.
        return self._scaled(loss / self.micro_batches)

    def parts(self) -> list[tuple[Any, str, str]]:
        """The methods that make up a step, and the part of it that each is.

        Outside of stages and loss, the schedule and its passes without gradients do nothing but wait for messages.
        """
        passes = [(stage, name, "forward") for stage in self.own_stages for name in FORWARD]
        passes += [(stage, name, "backward") for stage in self.own_stages for name in BACKWARD if hasattr(stage, name)]
        schedule = [(self, name, "pipeline") for name in ("_run_schedule", "evaluate", "generate")]
        return [*passes, *schedule, (self, "_mean_loss", "loss"), (Relay, "_run_stage", "forward")]

    def evaluate(self, batch: Batch) -> Tensor | None:
        """The mean loss without a backward pass, in the rank of the last stage."""
        outputs = Relay(self).forward(batch.inputs.chunk(self.micro_batches))
        if not self.last:
            return None
        targets = batch.targets.chunk(self.micro_batches)
        losses = [self._mean_loss(logits, part) for logits, part in zip(outputs, targets, strict=True)]
        return torch.stack(losses).mean()

    def generate(self, prompts: Tensor, new_tokens: int, mark: Mark) -> Tensor | None:
        """Greedy decoding. Micro-batches follow each other through the stages.

        A micro-batch starts its next token when the last stage has sent the token before to the first stage.
        """
        relay = Relay(self, length=prompts.shape[1] + new_tokens)
        tokens, generated = list(prompts.chunk(self.micro_batches)), list[list[Tensor]]()
        for step in range(new_tokens):
            logits = relay.forward(tokens, from_last_stage=step > 0)
            tokens = [part[:, :1] for part in tokens]
            if self.last:
                tokens = [choose_likeliest(each) for each in logits]
                generated.append(tokens)
                if step < new_tokens - 1:
                    relay.return_to_first(tokens)
            mark()
        return torch.cat([torch.cat(step) for step in generated], dim=1) if self.last else None


class TensorForm(NamedTuple):
    """The shape and type of a tensor, which its receiver must know."""

    shape: torch.Size
    dtype: torch.dtype


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
"""Types of hidden states; a message names one by its place in this list."""


class Relay:
    """Forward passes without backward passes: each stage hands a micro-batch to the next as soon as it is done.

    A rank with several stages takes one micro-batch through all of them before the next one. NCCL may block a send
    until it is received, so ranks that send everything before they receive anything could wait for each other forever.
    With `length`, blocks keep caches of up to that many positions from one pass to the next.
    """

    def __init__(self, pipeline: "Pipeline", *, length: int | None = None) -> None:
        self._pipeline = pipeline
        self._length = length
        self._caches: dict[tuple[int, int], list[Any]] = {}
        self._start = 0
        self._pending: list[tuple[Any, Tensor]] = []
        self._receive_into = pipeline.clock.time_schedule(self._wait_for_message)
        self._wait = pipeline.clock.time_schedule(self._wait_for_receivers)
        self._local: dict[int, list[Tensor]] = {}

    def forward(self, inputs: Sequence[Tensor], *, from_last_stage: bool = False) -> list[Tensor]:
        """Takes micro-batches of token ids through all stages; the outputs of the last stage, in its own rank.

        With `from_last_stage`, the token ids are in the last stage's rank; elsewhere only the shapes of `inputs` count.
        """
        outputs: list[Tensor] = []
        if from_last_stage and self._pipeline.first:
            inputs = [self._receive(0, tokens) for tokens in inputs]
        for number, tokens in enumerate(inputs):
            for index, module in self._pipeline.modules.items():
                output = self._run_stage(module, index, number, self._receive(index, tokens) if index else tokens)
                if index == self._pipeline.stages - 1:
                    outputs.append(output)
                else:
                    self._send(index + 1, output, tokens)
        self._start += inputs[0].shape[1]
        self._wait()
        return outputs

    def return_to_first(self, tokens: Sequence[Tensor]) -> None:
        """Sends the tokens that the last stage has chosen to the first stage."""
        for part in tokens:
            self._send(0, part, part)
        self._wait()

    def _wait_for_receivers(self) -> None:
        """Waits until everything sent has been received; its memory must not be freed earlier."""
        for work, _ in self._pending:
            work.wait()
        self._pending.clear()

    def _run_stage(self, module: nn.Module, index: int, number: int, hidden: Tensor) -> Tensor:
        if self._length is None:
            return cast("Tensor", module(hidden))
        caches = self._caches.get((index, number))
        if caches is None:
            caches = self._caches[index, number] = module.new_caches(self._length)  # type: ignore[operator]
        return cast("Tensor", module(hidden, caches, self._start))

    def _send(self, index: int, tensor: Tensor, tokens: Tensor) -> None:
        """Sends a tensor to stage `index`; before the first hidden states for each shape of tokens, their form."""
        if index in self._pipeline.modules:
            self._local.setdefault(index, []).append(tensor)
            return
        rank, forms = self._pipeline.ranks[index], self._pipeline.forms
        if index and (index, tokens.shape) not in forms:
            forms[index, tokens.shape] = TensorForm(tensor.shape, tensor.dtype)
            self._start_send(torch.tensor([*tensor.shape, DTYPES.index(tensor.dtype)], device=tensor.device), rank)
        self._start_send(tensor.contiguous(), rank)

    def _start_send(self, tensor: Tensor, rank: int) -> None:
        self._pending.append((distributed.isend(tensor, group=self._pipeline.group, group_dst=rank), tensor))

    def _receive(self, index: int, tokens: Tensor) -> Tensor:
        """Receives the input of stage `index`: token ids shaped as `tokens`, or the hidden states of such tokens."""
        if self._local.get(index):
            return self._local[index].pop(0)
        rank, forms = self._pipeline.ranks[index - 1], self._pipeline.forms
        if index == 0:
            return self._receive_into(torch.empty_like(tokens, memory_format=torch.contiguous_format), rank)
        if (index, tokens.shape) not in forms:
            *sizes, number = self._receive_into(torch.empty(4, dtype=torch.int64, device=tokens.device), rank).tolist()
            forms[index, tokens.shape] = TensorForm(torch.Size(sizes), DTYPES[number])
        form = forms[index, tokens.shape]
        return self._receive_into(torch.empty(form.shape, dtype=form.dtype, device=tokens.device), rank)

    def _wait_for_message(self, buffer: Tensor, rank: int) -> Tensor:
        distributed.recv(buffer, group=self._pipeline.group, group_src=rank)
        return buffer


class WaitClock:
    """Sums the time that a rank waits for other stages: that of the schedule without the work that it calls.

    The work is the passes of the rank's stages, with whatever they exchange with ranks that are no stages of theirs,
    and the loss. On CUDA, time is taken between events on the stage's stream, and read later; on CPU, from the
    monotonic clock.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[int, torch.cuda.Event, torch.cuda.Event]] = []

    def attach(self, stage: Any) -> Any:
        """Takes all forward and backward passes of `stage` for work from now on; returns the stage."""
        for name in filter(partial(hasattr, stage), (*FORWARD, *BACKWARD)):
            setattr(stage, name, self.time_work(getattr(stage, name)))
        return stage

    def time_schedule(self, function: F) -> F:
        """`function`, whose time counts as waiting but for the work in it."""
        return self._timed(function, 1)

    def time_work(self, function: F) -> F:
        """`function`, whose time is no waiting."""
        return self._timed(function, -1)

    def read_seconds(self) -> float:
        """The sum so far, in seconds; on CUDA, waits for the device."""
        if self._events:
            torch.cuda.synchronize()
            self._seconds += sum(sign * start.elapsed_time(end) for sign, start, end in self._events) / 1e3
            self._events.clear()
        return self._seconds

    def _timed(self, function: F, sign: int) -> F:
        def on_cpu(*arguments: Any, **named: Any) -> Any:
            started = time.perf_counter()
            result = function(*arguments, **named)
            self._seconds += sign * (time.perf_counter() - started)
            return result

        def on_cuda(*arguments: Any, **named: Any) -> Any:
            start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            start.record()
            result = function(*arguments, **named)
            end.record()
            self._events.append((sign, start, end))
            return result

        return cast("F", on_cuda if self._on_cuda else on_cpu)
