"""The tables of the README and the pages that show figures, made from the stored runs.

`python -m tests.docs.tables` (`make tables`) writes them anew; `test_tables.py` tells where a page differs from them. A
table stands behind the comment `<!-- made from stored runs: NAME -->`, with NAME one of `TABLES`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from parbench.export.waterfall import TITLES
from parbench.figures.definitions import FIGURES
from parbench.figures.waterfall import LOSS_MEANINGS
from parbench.results.store import read_run
from parbench.results.tables import cells_table
from parbench.results.waterfall import waterfall_table
from parbench.text import with_reach
from tests.docs.blocks import PAGES, REPOSITORY

STORED = REPOSITORY / "results/stored"
MARKED = re.compile(r"(?P<mark><!-- made from stored runs: (?P<name>\S+) -->\n\n)(?P<table>(?:\|.*\n)*)")
NETWORKS = {
    "10 Gbit/s": "slow_network-10gbit-2-hosts",
    "1 Gbit/s": "slow_network-1gbit-2-hosts",
    "200 Mbit/s": "slow_network-200mbit-2-hosts",
    "50 Mbit/s": "slow_network-50mbit-2-hosts",
}
OPTIMIZERS = {
    "Adam, 1e-3": "adam, lr=0.001",
    "Adam, 3e-4": "adam, lr=0.0003",
    "AdamW, 1e-3, decay 0.1": "adamw, ",
    "SGD, 0.1, momentum 0.9": "sgd, lr=0.1",
    "SGD, 1e-5": "sgd, lr=1e-05",
}

Row = Mapping[str, Any]
Column = tuple[str, Callable[[Row], str]]


@cache
def rows_of(run: str) -> Sequence[Row]:
    """The cells of a stored run as rows of its table."""
    records = cells_table(read_run(STORED / run)).to_dict(orient="records")
    return [{str(name): value for name, value in record.items()} for record in records]


def of_two_devices(run: str) -> Iterator[Row]:
    """The good cells on two devices."""
    return (row for row in rows_of(run) if row["devices"] == 2 and row["status"] == "ok")


def strategy(row: Row) -> str:
    """A cell's label with what qualifies it, such as `data_parallel` (emulated)."""
    notes = [note for note in ("emulated", "oversubscribed") if row[note]]
    return f"`{row['label']}`" + (f" ({', '.join(notes)})" if notes else "")


def figure(name: str, title: str | None = None) -> Column:
    """A figure's column, with its interval where it has one."""
    return title or FIGURES[name].title, FIGURES[name].with_interval


STRATEGY: Column = ("strategy", strategy)
DEVICES: Column = ("devices", lambda row: str(row["devices"]))
PARITY: Column = ("parity", lambda row: str(row["parity"]))


def _bubble(row: Row) -> str:
    bubble, ideal = (FIGURES["bubble"].text(row[name]) for name in ("bubble", "ideal_bubble"))
    return bubble if ideal == "–" else f"{bubble} ({ideal})"


BUBBLE: Column = ("bubble (ideal)", _bubble)


def headline() -> str:
    """Every cell of the headline scenario."""
    figures = map(figure, ("tokens_per_s", "speedup", "scaling_efficiency", "mean_step_s", "peak_memory_bytes"))
    return write(rows_of("lstm_scaling-cpu-2-cores"), STRATEGY, DEVICES, *figures, BUBBLE, PARITY)


def first_answer() -> str:
    """The headline scenario's cells on two devices, and the reference."""
    rows = [row for row in rows_of("lstm_scaling-cpu-2-cores") if row["devices"] == 2 or row["parity"] == "reference"]
    figures = map(figure, ("tokens_per_s", "speedup", "peak_memory_bytes"))
    return write(rows, STRATEGY, DEVICES, *figures, BUBBLE, PARITY)


def waterfalls() -> str:
    """What the headline scenario's cells lose of 2×, each loss with half of its interval."""
    rows = waterfall_table(read_run(STORED / "lstm_scaling-cpu-2-cores")).to_dict(orient="records")
    shown = [loss for loss in LOSS_MEANINGS if any(abs(row[loss]) >= 0.005 for row in rows)]
    losses = [(TITLES.get(loss, loss), loss) for loss in shown]

    def lost(name: str) -> Callable[[Row], str]:
        return lambda row: with_reach(row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"])

    ideal: Column = ("ideal", lambda row: f"{row['ideal']}×")
    speedup: Column = ("speedup", lambda row: f"{row['speedup']:.2f}×")
    return write(rows, STRATEGY, DEVICES, ideal, *((title, lost(name)) for title, name in losses), speedup)


def strategies() -> str:
    """What every strategy does on two devices; a hybrid over one axis is its pure strategy."""
    rows = [row for row in of_two_devices("strategies_full-cpu-2-cores") if row["strategy"] != "hybrid"]
    figures = figure("speedup"), figure("peak_memory_bytes"), figure("communicated_bytes", "handed over in a step")
    return write(rows, STRATEGY, *figures, BUBBLE)


def zero1() -> str:
    """A sharded optimizer beside plain DDP."""
    figures = map(figure, ("speedup", "peak_memory_bytes", "collectives"))
    return write(of_two_devices("zero1-cpu-2-cores"), STRATEGY, *figures)


def memory() -> str:
    """Memory of each strategy beside that of `ddp`."""
    rows = rows_of("memory-cpu-2-cores")
    (whole,) = (row["peak_memory_bytes"] for row in rows if row["label"] == "ddp" and row["devices"] == 2)
    share: Column = ("of `ddp`'s", lambda row: f"{row['peak_memory_bytes'] / whole:.2f}")
    return write(rows, STRATEGY, DEVICES, figure("peak_memory_bytes"), share)


def inference() -> str:
    """Scoring and generating with the Transformer on two devices."""
    rows = list(of_two_devices("inference_scaling-cpu-2-cores"))
    generating = {row["label"]: row for row in rows if row["workload"] == "transformer(phase=generate)"}

    def when_generating(name: str, title: str) -> Column:
        return title, lambda row: FIGURES[name].with_interval(generating.get(row["label"], {name: None}))

    return write(
        [row for row in rows if row["workload"] == "transformer(phase=score)"],
        STRATEGY,
        figure("speedup", "score"),
        when_generating("speedup", "generate"),
        when_generating("time_to_first_token_s", "first token"),
        when_generating("time_per_output_token_p50_s", "per token p50"),
        when_generating("time_per_output_token_p99_s", "p99"),
    )


def network() -> str:
    """Speedup of each strategy at every rate of the link between two hosts."""
    speedups = {rate: {row["label"]: row for row in of_two_devices(run)} for rate, run in NETWORKS.items()}

    def at(rate: str) -> Column:
        return rate, lambda row: FIGURES["speedup"].with_interval(speedups[rate][row["label"]])

    sizes = figure("communicated_bytes", "handed over in a step"), figure("collectives", "in calls")
    return write(of_two_devices(NETWORKS["10 Gbit/s"]), STRATEGY, *sizes, *map(at, NETWORKS))


def parity_power() -> str:
    """The power of parity by optimizer and precision, of `ddp` on two devices."""
    rows = [row for row in of_two_devices("parity_power-cpu-2-cores") if row["strategy"] == "ddp"]

    def power(precision: str) -> Column:
        return precision, lambda optimizer: _power(rows, precision, optimizer["in the run"])

    optimizers = [{"name": name, "in the run": name_in_run} for name, name_in_run in OPTIMIZERS.items()]
    return write(optimizers, ("optimizer", lambda row: row["name"]), *map(power, ("fp32", "bf16", "fp16")))


def _power(rows: Sequence[Row], precision: str, optimizer: str) -> str:
    (row,) = (row for row in rows if row["workload"].startswith(f"gpt(precision={precision}, name={optimizer}"))
    value = row["parity_power"]
    return f"{value:.{1 if value < 10 else 0}f}" + (": undecided" if row["parity"] == "undecided" else "")


TABLES: Mapping[str, Callable[[], str]] = {
    "headline": headline,
    "first-answer": first_answer,
    "waterfalls": waterfalls,
    "strategies": strategies,
    "zero1": zero1,
    "memory": memory,
    "inference": inference,
    "network": network,
    "parity-power": parity_power,
}


def write(rows: Iterator[Row] | Sequence[Row], *columns: Column) -> str:
    """A Markdown table."""
    lines = [[title for title, _ in columns], ["---"] * len(columns)]
    lines += [[text(row) for _, text in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def with_tables(page: str) -> str:
    """A page's text, its tables made anew."""
    return MARKED.sub(lambda match: match["mark"] + TABLES[match["name"]](), page)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text()))
