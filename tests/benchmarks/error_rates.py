"""The error rates that docs/regression.md states: seeded campaigns of 40 cells with the nested noise of real ones.

    python -m tests.benchmarks.error_rates > results/stored/proof/simulated.txt

It prints the noise of the stored runs as well, which the second noise of the simulation is made after.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from parbench.check.looks import looks_between
from parbench.check.observations import observe
from parbench.results.store import read_run
from parbench.scenario.specs import CheckSpec, MetricName
from tests.support.confirmation import confirmed_shares
from tests.support.simulation import (
    QUIET,
    STORED,
    UNEQUAL,
    Design,
    Noise,
    Sequential,
    Slowdown,
    arms,
    between_sessions_p,
    campaigns,
    paired_p,
    unmoderated_paired_p,
    within_run_p,
)

CELLS, CAMPAIGNS, SLOWED = 40, 1000, 200
LEAST_ROUNDS = 3
RUNS = Path(__file__).parents[2] / "results" / "stored"
GATES = {"the fastest step alone": CheckSpec(gate=("step_time_min_s",)), "the default gate": CheckSpec()}
NOISES = {"3.6 %": QUIET, "5.5 %": STORED, "4.7 %, unequal": UNEQUAL}
DESIGNS = {
    "10 sessions of 5 rounds": Design(sessions=11, rounds=5, drawn=campaigns, test=between_sessions_p),
    "10 sessions of 10 rounds": Design(sessions=11, rounds=10, drawn=campaigns, test=between_sessions_p),
    "1 session of 5 rounds": Design(sessions=2, rounds=5, drawn=campaigns, test=within_run_p),
    "1 session of 10 rounds": Design(sessions=2, rounds=10, drawn=campaigns, test=within_run_p),
    "two arms, 5 rounds": Design(sessions=2, rounds=5, drawn=arms, test=paired_p),
    "two arms, 10 rounds": Design(sessions=2, rounds=10, drawn=arms, test=paired_p),
    "two arms, 20 rounds": Design(sessions=2, rounds=20, drawn=arms, test=paired_p),
}
OWN_VARIANCE = {
    f"two arms, {rounds} rounds, each cell's own variance alone": Design(
        sessions=2, rounds=rounds, drawn=arms, test=unmoderated_paired_p
    )
    for rounds in (5, 10, 20)
}
EFFECTS = (Slowdown(share=0.1), Slowdown(share=0.2), Slowdown(share=0.2, every=5))


def stored_noise() -> Iterator[str]:
    """The spread between launches in the stored runs: of each cell's logs over rounds, its quartiles."""
    metrics: tuple[MetricName, ...] = ("step_time_min_s", "tokens_per_s", "peak_memory_bytes")
    everywhere: dict[str, list[float]] = {metric: [] for metric in metrics}
    for folder in sorted(path for path in RUNS.iterdir() if (path / "run.json").exists()):
        cells = observe(read_run(folder)).values()
        for metric in metrics:
            logs = [np.log(list(cell.metrics[metric].values())) for cell in cells if metric in cell.metrics]
            spreads = [float(each.std(ddof=1)) for each in logs if len(each) >= LEAST_ROUNDS]
            everywhere[metric] += spreads
            if spreads:
                yield f"{folder.name}, {metric}: {_quartiles(spreads)}"
    yield from (f"all, {metric}: {_quartiles(spreads)}" for metric, spreads in everywhere.items())


def fixed_rounds() -> Iterator[str]:
    """Every design at every noise."""
    for noise_name, noise in NOISES.items():
        for name, design in {**DESIGNS, **OWN_VARIANCE}.items():
            rng = np.random.default_rng(5)
            false = _batched(design, rng, noise, CAMPAIGNS, Slowdown()).any(axis=2).mean(axis=1)
            shares = [_batched(design, rng, noise, SLOWED, slow)[:, :, 0].mean(axis=1) for slow in EFFECTS]
            for gate, alarms, small, large, some in zip(GATES, false, *shares, strict=True):
                yield (
                    f"{noise_name}, {name}, {gate}: a false alarm in {alarms:.1%}, +10 % found in {small:.0%}, "
                    f"+20 % in {large:.0%}, +20 % in one step of five in {some:.0%}"
                )


def added_rounds() -> Iterator[str]:
    """Two arms whose rounds are added until all is decided."""
    for noise_name, noise in NOISES.items():
        for first, last in ((5, 40), (10, 40)):
            design = Sequential(looks_between(first, last), CheckSpec())
            words = []
            for share, count in ((0.0, CAMPAIGNS), (0.1, SLOWED), (0.2, SLOWED)):
                rng = np.random.default_rng(5)
                parts = [
                    design.draw_regressed(rng, (50, CELLS), noise, Slowdown(share=share)) for _ in range(count // 50)
                ]
                cells, rounds = (np.concatenate(each) for each in zip(*parts, strict=True))
                regressed = cells[:, 0].mean() if share else cells.any(axis=1).mean()
                what = f"+{share:.0%} found in {regressed:.0%}" if share else f"a false alarm in {regressed:.1%}"
                words.append(f"{what} after {rounds.mean():.0f} rounds")
            yield f"{noise_name}, two arms, {first} to {last} rounds, the default gate: {', '.join(words)}"


def confirmations() -> Iterator[str]:
    """What `--confirm` leaves, by rule."""
    for noise_name, noise in NOISES.items():
        for arms_too in (True, False):
            shares = [
                confirmed_shares(5, (count, CELLS), 10, noise, share, arms=arms_too)
                for share, count in ((0.0, 2 * CAMPAIGNS), (0.1, 2 * SLOWED), (0.2, 2 * SLOWED))
            ]
            for rule in shares[0]:
                false, small, large = (each[rule] for each in shares)
                yield (
                    f"{noise_name}, {'two arms' if arms_too else '1 session'}, 10 rounds, {rule}: "
                    f"a false alarm in {1000 * false:.1f} of 1,000, +10 % in {small:.0%}, +20 % in {large:.0%}"
                )


def _batched(
    design: Design, rng: np.random.Generator, noise: Noise, count: int, slow: Slowdown, batch: int = 50
) -> np.ndarray:
    parts = [design.draw_regressed(rng, (batch, CELLS), GATES.values(), noise, slow) for _ in range(count // batch)]
    return np.concatenate(parts, axis=1)


def _quartiles(spreads: list[float]) -> str:
    return f"{len(spreads)} cells, median {np.median(spreads):.1%}, upper quartile {np.quantile(spreads, 0.75):.1%}"


def main() -> None:
    """Prints everything; a heading names what follows."""
    print("$ python -m tests.benchmarks.error_rates")
    for part in (stored_noise, fixed_rounds, added_rounds, confirmations):
        print(f"\n{(part.__doc__ or '').splitlines()[0]}")
        for line in part():
            print(line, flush=True)


if __name__ == "__main__":
    main()
