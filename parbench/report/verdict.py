"""The verdict on a panel in sentences, made of its numbers alone. Differences within their uncertainty are ties."""

from collections import Counter
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from parbench.figures.definitions import FIGURES
from parbench.report.panels import CellView, Panel
from parbench.report.ranking import (
    best_of_each_label,
    bounds_of,
    is_exact,
    memory_ratio,
    model_count,
    overlap,
    ranked_cells,
    ranking_figure,
    ranking_interval,
    rivals_of,
    score,
    tied_cells,
)
from parbench.text import plain, with_unit

_VERBS = {
    "train": ("trains", "training"),
    "score": ("scores", "scoring"),
    "generate": ("generates text with", "generating text with"),
}
_OTHER_VERBS = ("runs", "running")
MAX_NAMES = 4


def write_verdict(panel: Panel) -> list[Markup]:
    """Writes the sentences on one workload in one run, the most important first. Names in them are escaped."""
    if not ranked_cells(panel):
        return [_say_nothing_ranked(panel), *_say_undecided(panel)]
    rivals = rivals_of(panel)
    return [
        _say_fastest(panel, rivals),
        *_say_followers(panel, rivals),
        *_say_several_models(panel),
        *_say_inexact(panel),
        *_say_least_memory(panel),
        *_say_undecided(panel),
        *_say_cautions(panel),
    ]


def as_code(name: str) -> Markup:
    """A name from a scenario as an HTML element."""
    return Markup("<code>{}</code>").format(plain(name))


def join_words(words: Sequence[Markup | str], limit: int = MAX_NAMES) -> Markup:
    """Joins words as `a, b and c`. Beyond `limit` it gives their number: `a, b and 3 more`."""
    parts = list(words[:limit])
    if len(words) > limit:
        parts.append(f"{len(words) - limit} more")
    if len(parts) < 2:
        return Markup("").join(parts)
    return Markup("{} and {}").format(Markup(", ").join(parts[:-1]), parts[-1])


def _say_fastest(panel: Panel, rivals: Sequence[CellView]) -> Markup:
    """Which cell is fastest, and by how much; or which cells tie."""
    verb, gerund = _verbs(panel)
    best = max(rivals, key=lambda cell: score(panel, cell))
    place, workload = _place(best), as_code(panel.workload)
    if len(rivals) == 1:
        return Markup("{}, {} {} {} at {} tokens/s; there is no other cell to compare it with.").format(
            place, _name(best), verb, workload, FIGURES["tokens_per_s"].with_interval(best.row)
        )
    if ranking_interval(panel, best) is None:
        return _say_fastest_of_one_round(panel, best)
    tied = tied_cells(panel, rivals, best)
    if panel.base in tied:
        if best is panel.base:
            return Markup("No strategy is faster than one device at {} {}.").format(gerund, workload)
        return Markup(
            "No strategy is measurably faster than one device at {} {}: the best is {} with {}, an interval that "
            "contains 1."
        ).format(gerund, workload, _name_and_devices(best), _amount(panel, best))
    if len(tied) > 1:
        return _say_tie(panel, tied)
    return Markup("{}, {} {} {} fastest: {}{}.").format(
        place, _name(best), verb, workload, _amount(panel, best), _memory_clause(panel, best)
    )


def _say_tie(panel: Panel, tied: Sequence[CellView]) -> Markup:
    _, gerund = _verbs(panel)
    if len({cell.record.devices for cell in tied}) == 1:
        names = Markup("{}, {}").format(_place(tied[0]), join_words([_name(cell) for cell in tied]))
    else:
        names = join_words([_name_and_devices(cell) for cell in tied])
    amounts = join_words([FIGURES[ranking_figure(panel)].with_interval(cell.row) for cell in tied])
    return Markup("{} tie for fastest at {} {} with {} {}: the first is not measurably faster.").format(
        names, gerund, as_code(panel.workload), amounts, _amount_unit(panel)
    )


def _say_fastest_of_one_round(panel: Panel, best: CellView) -> Markup:
    """Which cell was fastest, where one round does not tell how much launches differ."""
    _, gerund = _verbs(panel)
    if best is panel.base:
        opening = Markup("No strategy was faster than one device at {} {}").format(gerund, as_code(panel.workload))
    else:
        opening = Markup("{}, {} was fastest at {} {} ({})").format(
            _place(best), _name(best), gerund, as_code(panel.workload), _amount(panel, best)
        )
    return Markup("{} in the only round: one launch cannot tell whether that is more than luck.").format(opening)


def _say_followers(panel: Panel, rivals: Sequence[CellView]) -> Iterable[Markup]:
    """The strategies on several devices behind the fastest: faster than one device, not measurably so, or slower."""
    if panel.base is None or ranking_interval(panel, panel.base) is None:
        return
    best = max(rivals, key=lambda cell: score(panel, cell))
    leaders = {cell.record.label for cell in tied_cells(panel, rivals, best)}
    followers = [cell for cell in rivals if cell.record.devices > 1 and cell.record.label not in leaders]
    faster: list[CellView] = []
    equal: list[CellView] = []
    slower: list[CellView] = []
    for cell in best_of_each_label(panel, followers):
        low, high = ranking_interval(panel, cell) or (0.0, float("inf"))
        (faster if low > 1 else slower if high < 1 else equal).append(cell)
    for cells, opening in (
        (faster, "Behind, but faster than one device"),
        (equal, "Not measurably faster than one device"),
        (slower, "Slower than one device"),
    ):
        if cells:
            yield Markup("{}: {}.").format(opening, join_words([_name_with_losses(panel, cell) for cell in cells], 6))


def _say_several_models(panel: Panel) -> Iterable[Markup]:
    """Strategies that run more models at a time than the reference, which are not ranked with the others."""
    verb, _ = _verbs(panel)
    cells = [cell for cell in ranked_cells(panel) if is_exact(cell) and cell.record.models != model_count(panel)]
    for cell in best_of_each_label(panel, cells):
        yield Markup("{}, {} {} {} independent models at once: in sum {}{}.").format(
            _place(cell), _name(cell), verb, cell.record.models, _amount(panel, cell), _memory_clause(panel, cell)
        )


def _say_inexact(panel: Panel) -> Iterable[Markup]:
    for cell in best_of_each_label(panel, [cell for cell in ranked_cells(panel) if not is_exact(cell)]):
        yield Markup("{}, {} reaches {}, but does not compute what the reference computes.").format(
            _place(cell), _name(cell, without="inexact"), _amount(panel, cell)
        )


def _say_undecided(panel: Panel) -> Iterable[Markup]:
    """Cells whose parity is undecided: they may compute something else than the reference, and are in no ranking."""
    cells = [cell for cell in panel.comparable if not cell.decided]
    if cells:
        amounts = [
            Markup("{} with {}").format(_name(cell, without="undecided"), _amount(panel, cell))
            for cell in best_of_each_label(panel, cells)
        ]
        yield Markup("Not ranked, because parity is undecided: {}; the table says why.").format(join_words(amounts, 6))


def _say_least_memory(panel: Panel) -> Iterable[Markup]:
    """Which cells need least memory on their fullest rank; nothing where one device is among them."""
    sizes = [(cell, cell.memory) for cell in ranked_cells(panel) if cell.memory]
    if len(sizes) < 2:
        return
    least, size = min(sizes, key=lambda pair: pair[1].mean)
    bounds = bounds_of(size)
    if bounds is None:
        return
    tied = [cell for cell, other in sizes if (interval := bounds_of(other)) is None or overlap(bounds, interval)]
    if panel.base in tied:
        return
    ratio = memory_ratio(panel, least)
    comparison = "" if ratio is None else f", {'about ' if len(tied) > 1 else ''}{ratio:.2f}× that of one device"
    yield Markup("{} {} the least memory on a rank: {}{}.").format(
        join_words([_name_and_devices(cell) for cell in sorted(tied, key=lambda cell: cell is not least)]),
        "needs" if len(tied) == 1 else "tie for",
        with_unit(least.value("peak_memory_bytes"), "bytes"),
        comparison,
    )


def _say_cautions(panel: Panel) -> Iterable[Markup]:
    if any(cell.record.oversubscribed for cell in panel.cells):
        yield Markup("Oversubscribed cells share cores between devices: they say how it runs, not how it scales.")
    if panel.left_out:
        yield Markup("Left out of this: {}; the table says why.").format(_count_outcomes(panel.left_out))


def _say_nothing_ranked(panel: Panel) -> Markup:
    return Markup("No cell of {} can be ranked: {}. The table gives each one's reason.").format(
        as_code(panel.workload), _count_outcomes(panel.cells)
    )


def _count_outcomes(cells: Sequence[CellView]) -> Markup:
    """How many cells had which outcome, such as `2 failed and 1 skipped`."""
    counts = Counter(map(_outcome, cells))
    return join_words([f"{count} {outcome}" for outcome, count in counts.items()], 8)


def _outcome(cell: CellView) -> str:
    status = str(cell.row["status"]).replace("_", " ")
    if status != "ok":
        return status
    return "not comparable" if cell.decided else "undecided"


def _amount(panel: Panel, cell: CellView) -> str:
    return f"{FIGURES[ranking_figure(panel)].with_interval(cell.row)} {_amount_unit(panel)}"


def _amount_unit(panel: Panel) -> str:
    return "over one device" if panel.base is not None else "tokens/s"


def _memory_clause(panel: Panel, cell: CellView) -> str:
    ratio = memory_ratio(panel, cell)
    return "" if ratio is None else f", at {ratio:.2f}× its memory per rank"


def _name_with_losses(panel: Panel, cell: CellView) -> Markup:
    """A cell with its figure, and the shares of its step that are lost, such as to communication, from 5 % on."""
    losses = [
        f"{figure.title} {figure.text(cell.value(name))}"
        for name, figure in FIGURES.items()
        if figure.unit == "%" and figure.better == "lower" and (cell.value(name) or 0) >= 0.05
    ]
    cause = f" because of {', '.join(losses)}" if losses else ""
    return Markup("{} with {}{}").format(
        _name_and_devices(cell), FIGURES[ranking_figure(panel)].with_interval(cell.row), cause
    )


def _verbs(panel: Panel) -> tuple[str, str]:
    """What a strategy does in the panel's phase, such as `trains`, and its gerund."""
    return _VERBS.get(panel.phase, _OTHER_VERBS)


def _place(cell: CellView) -> str:
    count, kind = cell.record.devices, cell.record.device_kind.upper()
    return f"On {'one' if count == 1 else count} {kind} {'device' if count == 1 else 'devices'}"


def _name(cell: CellView, without: str = "") -> Markup:
    """The cell's label with its notes, apart from one that the sentence says already."""
    notes = [note for note in cell.notes if note != without]
    return Markup("{}{}").format(as_code(cell.label), f" ({', '.join(notes)})" if notes else "")


def _name_and_devices(cell: CellView) -> Markup:
    return Markup("{} on {}").format(_name(cell), cell.record.devices)
