"""`python -m tests.benchmarks.defaults [GLOB] [ROUNDS] [TURNS]`: what a strategy's default is to its best option.

Every option of a strategy takes each of its other values, the rest as by default; all of them train the same model side
by side, in turns. What computes the same in as much memory must not be surely faster than the default.
"""

import statistics
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from itertools import chain, product
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from pydantic import ValidationError

from parbench.errors import Unsupported
from parbench.figures.statistics import Summary, summarise
from parbench.scenario.specs import Options, describe_options
from parbench.strategies.base import Layout, Strategy
from parbench.system.devices import Devices
from tests.benchmarks.arms import BUILT_IN, KINDS, SMALL, Ours, Sizes, Task, take_turns

DEVICES = Devices(kind="cpu", count=2)
MAGNITUDES = (1, 2, 8)
"""Values of a number whose default is left open; another number is halved and doubled."""
MARGIN, SURE = 1.03, 0.05
EQUAL_MEMORY = 1.03
ROUNDS, TURNS, STEPS = 6, 8, 2
WIDE = Sizes("wide", width=384, length=32, batch=16, layers=12)
"""Parameters take more memory than activations, and a block's are few of them."""
WORKLOADS = {"fsdp": WIDE}
"""The workload of each strategy whose options do not show on a small model."""


class Sweep(NamedTuple):
    """A default with what else computes the same, on a named workload."""

    name: str
    strategy: str
    task: Task
    default: Options
    others: dict[str, Options]

    def arms(self) -> list[Ours]:
        """The default, then all others."""
        return [
            Ours(self.strategy, devices_of(BUILT_IN[self.strategy]).count, each.model_dump(exclude_unset=True))
            for each in (self.default, *self.others.values())
        ]


class Option(NamedTuple):
    """An option beside the default, in parts of the default's, a value a round: speed, by CPU time, and memory."""

    name: str
    speeds: list[float]
    cpu_speeds: list[float]
    memories: list[float]

    @property
    def memory(self) -> float:
        """Its memory over the default's, the median of the rounds."""
        return statistics.median(self.memories)

    @property
    def is_equal(self) -> bool:
        """Whether it needs as much memory or less, so that only speed decides."""
        return self.memory <= EQUAL_MEMORY


class Judgement(NamedTuple):
    """The speed over the default's with its interval, at the level at which Holm's procedure tests it."""

    speed: Summary
    is_sure: bool


def sweeps() -> Iterator[Sweep]:
    """A sweep for each default of each strategy, family and phase; without others where no option computes the same."""
    for name, cls in BUILT_IN.items():
        for family, phase in product(KINDS, cls.phases):
            yield from sweeps_of(name, cls, Task(family, phase, WORKLOADS.get(name, SMALL)))


def sweeps_of(name: str, cls: type[Strategy[Any]], task: Task) -> Iterator[Sweep]:
    """The sweeps of a strategy at a task: one for each variant of its default options."""
    model = cls.options_type
    changed = [
        (field, value, options)
        for field, value in other_values(model)
        for options in possible(cls, task, {field: value})
    ]
    for default in possible(cls, task, {}):
        others = {
            f"{field}={value}": options
            for field, value, options in changed
            if differing_fields(default, options) == {field} and computes_the_same(cls, task, default, options)
        }
        yield Sweep(
            f"{name}{describe_options(default.model_dump(exclude_unset=True))}-{task}", name, task, default, others
        )


def other_values(model: type[Options]) -> Iterator[tuple[str, Any]]:
    """Each field with each value that is not its default."""
    for name, field in model.model_fields.items():
        for value in values_of(field.annotation, field.default):
            if value != field.default:
                yield name, value


def values_of(annotation: Any, default: Any) -> Sequence[Any]:
    """Values of a type: all of a choice, some of a number. Raises `TypeError` for a type of which none is known."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return parts
    if origin is Annotated:
        return values_of(parts[0], default)
    if origin in (Union, types.UnionType):
        return list(chain.from_iterable(values_of(part, default) for part in parts))
    if annotation is bool:
        return (False, True)
    if annotation is type(None):
        return (None,)
    if annotation in (int, float):
        numeric = isinstance(default, int | float)
        return [annotation(value) for value in ((default / 2, default * 2) if numeric else MAGNITUDES)]
    raise TypeError(f"no values are known for an option of type {annotation}")


def possible(cls: type[Strategy[Any]], task: Task, values: dict[str, Any]) -> list[Options]:
    """What these options can mean here; nothing where they are refused."""
    try:
        variants = cls.variants(cls.options_type.model_validate(values), task.spec(), devices_of(cls))
        return [each for each in variants if cls.layout(each, task.spec(), devices_of(cls))]
    except (ValidationError, Unsupported):
        return []


def devices_of(cls: type[Strategy[Any]]) -> Devices:
    """Two devices, or one."""
    return DEVICES if cls.scales else replace(DEVICES, count=1)


def differing_fields(one: Options, other: Options) -> set[str]:
    """The names of the fields in which they differ."""
    values = other.model_dump()
    return {name for name, value in one.model_dump().items() if value != values[name]}


def computes_the_same(cls: type[Strategy[Any]], task: Task, one: Options, other: Options) -> bool:
    """Whether both are exact, and lay the same models out over the same ranks."""

    def place(options: Options) -> Layout:
        return replace(cls.layout(options, task.spec(), devices_of(cls)), note="", bubble=None)

    return cls.is_exact(one) and cls.is_exact(other) and place(one) == place(other)


def measure(sweep: Sweep, rounds: int = ROUNDS, turns: int = TURNS) -> list[Option]:
    """Every option of a sweep beside the default, in so many rounds of fresh ranks."""
    options = [Option(name, [], [], []) for name in sweep.others]
    for number in range(rounds):
        add_round(sweep, options, number, turns)
    return options


def add_round(sweep: Sweep, options: Sequence[Option], number: int, turns: int = TURNS) -> None:
    """Adds the values of round `number` to each option."""
    arms = sweep.arms()
    layout = arms[0].layout(sweep.task)
    default, *others = take_turns(arms, layout, sweep.task, number=number, turns=turns, steps=STEPS)
    for option, taken in zip(options, others, strict=True):
        both = list(zip(default, taken, strict=True))
        option.speeds.append(statistics.median(its.wall_s / own.wall_s for its, own in both))
        option.cpu_speeds.append(statistics.median(its.cpu_s / own.cpu_s for its, own in both))
        option.memories.append(taken[-1].memory / default[-1].memory)


def judge(options: Sequence[Option]) -> list[Judgement]:
    """Which options are surely faster than the default by more than the margin, corrected for the number of them.

    One-sided t-tests of the logarithms, with Holm's correction (Holm 1979). The interval of an option is two-sided, at
    the level that Holm's procedure has reached when it comes to it.
    """
    import numpy as np
    from scipy import stats
    from statsmodels.stats.multitest import multipletests

    tests = [
        float(stats.ttest_1samp(np.log(each.speeds), np.log(MARGIN), alternative="greater").pvalue) for each in options
    ]
    rejected = multipletests(tests, alpha=SURE, method="holm")[0]
    places = np.argsort(np.argsort(tests))
    levels = [SURE / (len(tests) - int(place)) for place in places]
    return [
        Judgement(summarise(each.speeds, 1 - 2 * level), bool(sure))
        for each, level, sure in zip(options, levels, rejected, strict=True)
    ]


def describe(sweep: Sweep, options: Sequence[Option]) -> Iterator[str]:
    """A line for each option, and before them default ÷ best."""
    equals = [each for each in options if each.is_equal]
    judgements = judge(equals) if equals else []
    what = f"{sweep.name}, {sweep.task.sizes.name}"
    best = max(zip(judgements, equals, strict=True), key=lambda pair: pair[0].speed.mean, default=None)
    if best is None:
        yield f"{what}: no other option computes the same in as much memory"
    else:
        (speed, sure), option = best
        low, high = 1 / (speed.high or speed.mean), 1 / (speed.low or speed.mean)
        verdict = "  LOSES SURELY" * sure
        yield f"{what}: default ÷ best {1 / speed.mean:.3f} [{low:.3f}, {high:.3f}] ({option.name}){verdict}"
    for each in options:
        clock, cpu = ("{:.3f} [{:.3f}, {:.3f}]".format(*summarise(speeds)) for speeds in (each.speeds, each.cpu_speeds))
        memory = "" if each.is_equal else " (more)"
        yield f"    {each.name:36} speed {clock}  by CPU time {cpu}  memory {each.memory:.2f}{memory}"


def main(glob: str = "*", rounds: int = ROUNDS, turns: int = TURNS) -> None:
    for sweep in sweeps():
        if fnmatchcase(sweep.name, glob):
            options = measure(sweep, rounds, turns) if sweep.others else []
            print(*describe(sweep, options), sep="\n", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
