"""Every figure's name, title, unit, direction and meaning: tables, charts, pages and checks read it."""

from parbench.figures.base import Figure

FIGURES = {
    figure.name: figure
    for figure in (
        Figure(
            name="tokens_per_s",
            title="tokens/s",
            unit="tokens/s",
            better="higher",
            meaning="Tokens that the whole system trains on (or scores, or generates) in a second: models × measured "
            "steps × global batch × sequence length (or new tokens) ÷ the slowest rank's window. The geometric mean "
            "over rounds, with its 95 % interval.",
        ),
        Figure(
            name="speedup",
            title="speedup",
            unit="×",
            better="higher",
            meaning="tokens/s over that of the reference on one device in the same round; geometric mean over rounds.",
        ),
        Figure(
            name="scaling_efficiency",
            title="efficiency",
            unit="%",
            better="higher",
            meaning="Speedup ÷ devices. Strong scaling keeps the global batch; weak scaling grows it with the devices.",
        ),
        Figure(
            name="step_time_s",
            title="step",
            unit="s",
            better="lower",
            meaning="Median time of an optimizer step on the slowest rank; the median over rounds.",
        ),
        Figure(
            name="peak_memory_bytes",
            title="memory/rank",
            unit="bytes",
            better="lower",
            meaning="The largest rank's peak, the median over rounds. CUDA: the peak that torch allocated on a device. "
            "CPU: the peak growth of resident memory over what was there before the model was built.",
        ),
        Figure(
            name="validation_perplexity",
            title="val ppl",
            unit="perplexity",
            better="lower",
            meaning="exp of the mean loss on the validation split after the window. Windows are equally long, so a "
            "faster strategy has trained for more steps: it is a check of sanity, not a ranking.",
        ),
        Figure(
            name="compile_s",
            title="compile",
            unit="s",
            better="lower",
            meaning="What torch.compile took before the window, on the slowest rank; the median over rounds.",
        ),
        Figure(
            name="mfu",
            title="MFU",
            unit="%",
            better="higher",
            meaning="Model FLOPs utilisation: the operations that the model needs (counted as in the PaLM paper, "
            "appendix B) in a second, over the peak of all devices for dense 16-bit matrix products. Empty where that "
            "is not known.",
        ),
        Figure(
            name="bubble",
            title="bubble",
            unit="%",
            better="lower",
            meaning="The share of the window in which a pipeline's stages did not compute, the mean over ranks: idle "
            "or waiting for messages.",
            ideal="ideal_bubble",
            ideal_meaning="what the schedule leaves idle even if all stages cost the same",
        ),
        Figure(
            name="makespan_s",
            title="makespan",
            unit="s",
            better="lower",
            meaning="From the start of the first model's window to the end of the last one's, and all between.",
        ),
        Figure(
            name="models_per_hour",
            title="models/h",
            unit="models/h",
            better="higher",
            meaning="Models ÷ makespan: models of as many steps as were measured.",
        ),
        Figure(
            name="averaged_perplexity",
            title="averaged ppl",
            unit="perplexity",
            better="lower",
            meaning="Validation perplexity of the average of all models' parameters, where a pool makes one.",
        ),
        Figure(
            name="collectives",
            title="collectives",
            unit="calls",
            better="lower",
            meaning="Calls of process groups in a step, collectives, sends and receives alike, on the rank with the "
            "most; the median over rounds.",
        ),
        Figure(
            name="communicated_bytes",
            title="communicated",
            unit="bytes",
            better="lower",
            meaning="Bytes of the tensors that the rank with the most hands to process groups in a step, the median "
            "over rounds. What that makes on the wire is up to the backend.",
        ),
        Figure(
            name="time_to_first_token_s",
            title="first token",
            unit="s",
            better="lower",
            meaning="From a prompt to its first new token: the median over steps of the slowest rank.",
        ),
        Figure(
            name="time_per_output_token_p50_s",
            title="per token p50",
            unit="s",
            better="lower",
            meaning="From one new token to the next: the median over all ranks and steps.",
        ),
        Figure(
            name="time_per_output_token_p90_s",
            title="per token p90",
            unit="s",
            better="lower",
            meaning="From one new token to the next: the 90th percentile over all ranks and steps.",
        ),
        Figure(
            name="time_per_output_token_p99_s",
            title="per token p99",
            unit="s",
            better="lower",
            meaning="From one new token to the next: the 99th percentile over all ranks and steps.",
        ),
        Figure(
            name="prefill_tokens_per_s",
            title="prefill tokens/s",
            unit="tokens/s",
            better="higher",
            meaning="Tokens of prompts that the whole system takes in, in a second until the first new token.",
        ),
        Figure(
            name="decode_tokens_per_s",
            title="decode tokens/s",
            unit="tokens/s",
            better="higher",
            meaning="New tokens of the whole system in a second, after the first of each sequence.",
        ),
        Figure(
            name="parity_deviation",
            title="deviation",
            unit="nats",
            better="lower",
            meaning="The largest distance between the losses of the verified steps and the reference's on the same "
            "global batch, over all models and rounds, in nats per token.",
        ),
        Figure(
            name="differing_sequences",
            title="differing",
            unit="sequences",
            better="lower",
            meaning="How many of the verified steps' generated sequences are not, token by token, the reference's.",
        ),
        Figure(
            name="parity_power",
            title="power",
            unit="tolerances",
            better="higher",
            meaning="How far a mistake that is made on purpose (gradients that are not synchronised, half of a batch, "
            "a strategy that stops to learn) leads away from the reference's losses, in tolerances: the least of "
            "them. Below 10 parity is undecided.",
        ),
        Figure(
            name="verified_steps",
            title="verified",
            unit="steps",
            better=None,
            meaning="How many of each trial's steps, warm-up first, were compared with the reference's.",
        ),
    )
}
