"""The verdict in plain words, from the numbers alone: what the data cannot tell apart is called a tie."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from markupsafe import Markup

from parbench.figures.definitions import FIGURES
from parbench.figures.statistics import Summary, summarise
from parbench.report.panels import CellView, Panel, grouped
from parbench.text import plain, shown

_VERBS = {
    "train": ("trains", "training"),
    "score": ("scores", "scoring"),
    "generate": ("generates text with", "generating text with"),
}
_OTHER_VERBS = ("runs", "running")
_MAX_NAMES = 4


def verdict(panel: Panel) -> list[Markup]:
    """Sentences on one workload, the most important first, as HTML in which every name is escaped."""
    if not _ranked(panel):
        return [_nothing(panel), *_undecided(panel)]
    alike = _alike(panel)
    sentences = [_leaders(panel, alike), *_followers(panel, alike), *_several_models(panel), *_inexact(panel)]
    return [*sentences, *_least_memory(panel), *_undecided(panel), *_cautions(panel)]


def overlap(a: tuple[float, float], b: tuple[float, float]) -> bool:
    """Whether two intervals have a value in common."""
    return a[0] <= b[1] and b[0] <= a[1]


def code(text: str) -> Markup:
    """A name from a scenario."""
    return Markup("<code>{}</code>").format(plain(text))


def listed(parts: Sequence[Markup | str], limit: int = _MAX_NAMES) -> Markup:
    """`a, b and c`; beyond a limit only how many more there are."""
    shown_parts = list(parts[:limit])
    if len(parts) > limit:
        shown_parts.append(f"{len(parts) - limit} more")
    if len(shown_parts) < 2:
        return Markup("").join(shown_parts)
    return Markup("{} and {}").format(Markup(", ").join(shown_parts[:-1]), shown_parts[-1])


def _leaders(panel: Panel, alike: Sequence[CellView]) -> Markup:
    """Who is fastest, and by how much; or who ties."""
    verb, gerund = _VERBS.get(panel.phase, _OTHER_VERBS)
    best = max(alike, key=lambda cell: _score(panel, cell))
    where, workload = _where(best), code(panel.workload)
    if len(alike) == 1:
        return Markup("{}, {} {} {} at {} tokens/s; there is no other cell to compare it with.").format(
            where, _named(best), verb, workload, FIGURES["tokens_per_s"].with_interval(best.row)
        )
    if _interval(panel, best) is None:
        return _in_one_round(panel, best)
    tied = _tied(panel, alike, best)
    if panel.base in tied:
        if best is panel.base:
            return Markup("No strategy is faster than one device at {} {}.").format(gerund, workload)
        return Markup(
            "No strategy is measurably faster than one device at {} {}: the best is {} with {}, an interval that "
            "contains 1."
        ).format(gerund, workload, _placed(best), _amount(panel, best))
    if len(tied) > 1:
        same_place = len({cell.record.devices for cell in tied}) == 1
        names = listed([_named(cell) if same_place else _placed(cell) for cell in tied])
        opening = Markup("{}, {}").format(where, names) if same_place else names
        amounts = listed([FIGURES[_figure(panel)].with_interval(cell.row) for cell in tied])
        return Markup("{} tie for fastest at {} {} with {} {}: the first is not measurably faster.").format(
            opening, gerund, workload, amounts, _of_what(panel)
        )
    return Markup("{}, {} {} {} fastest: {}{}.").format(
        where, _named(best), verb, workload, _amount(panel, best), _memory_beside(panel, best)
    )


def _in_one_round(panel: Panel, best: CellView) -> Markup:
    """Who was fastest where nothing is known of the spread between launches."""
    _, gerund = _VERBS.get(panel.phase, _OTHER_VERBS)
    if best is panel.base:
        opening = Markup("No strategy was faster than one device at {} {}").format(gerund, code(panel.workload))
    else:
        opening = Markup("{}, {} was fastest at {} {} ({})").format(
            _where(best), _named(best), gerund, code(panel.workload), _amount(panel, best)
        )
    return Markup("{} in the only round: one launch cannot tell whether that is more than luck.").format(opening)


def _followers(panel: Panel, alike: Sequence[CellView]) -> Iterable[Markup]:
    """The strategies behind the fastest on several devices: faster than one device, no faster, or slower."""
    if panel.base is None or _interval(panel, panel.base) is None:
        return
    best = max(alike, key=lambda cell: _score(panel, cell))
    ahead = {cell.record.label for cell in _tied(panel, alike, best)}
    rest = [cell for cell in alike if cell.record.devices > 1 and cell.record.label not in ahead]
    faster: list[CellView] = []
    same: list[CellView] = []
    slower: list[CellView] = []
    for cell in _best_of_each(panel, rest):
        low, high = _interval(panel, cell) or (0.0, float("inf"))
        (faster if low > 1 else slower if high < 1 else same).append(cell)
    for cells, what in (
        (faster, "Behind, but faster than one device"),
        (same, "Not measurably faster than one device"),
        (slower, "Slower than one device"),
    ):
        if cells:
            yield Markup("{}: {}.").format(what, listed([_with_cause(panel, cell) for cell in cells], 6))


def _several_models(panel: Panel) -> Iterable[Markup]:
    """Strategies that train more models at a time than the reference answer another question."""
    several = [cell for cell in _ranked(panel) if _exact(cell) and cell.record.models != _models(panel)]
    for cell in _best_of_each(panel, several):
        verb, _ = _VERBS.get(panel.phase, _OTHER_VERBS)
        yield Markup("{}, {} {} {} independent models at once: in sum {}{}.").format(
            _where(cell), _named(cell), verb, cell.record.models, _amount(panel, cell), _memory_beside(panel, cell)
        )


def _inexact(panel: Panel) -> Iterable[Markup]:
    for cell in _best_of_each(panel, [cell for cell in _ranked(panel) if not _exact(cell)]):
        yield Markup("{}, {} reaches {}, but does not compute what the reference computes.").format(
            _where(cell), _named(cell, but="inexact"), _amount(panel, cell)
        )


def _undecided(panel: Panel) -> Iterable[Markup]:
    """Cells of which nobody knows whether they computed the right thing: they are shown, and win nothing."""
    cells = [cell for cell in panel.comparable if not cell.decided]
    if cells:
        names = listed([_with_amount(panel, cell) for cell in _best_of_each(panel, cells)], 6)
        yield Markup("Not ranked, because parity is undecided: {}; the table says why.").format(names)


def _least_memory(panel: Panel) -> Iterable[Markup]:
    """Which layout needs least memory on its fullest rank; silent where one device needs as little."""
    sizes = [(cell, cell.memory) for cell in _ranked(panel) if cell.memory]
    if len(sizes) < 2:
        return
    least, size = min(sizes, key=lambda each: each[1].mean)
    bounds = _bounds(size)
    if bounds is None:
        return
    tied = [cell for cell, other in sizes if (around := _bounds(other)) is None or overlap(bounds, around)]
    if panel.base in tied:
        return
    ratio = _memory_ratio(panel, least)
    about = "" if ratio is None else f", {'about ' if len(tied) > 1 else ''}{ratio:.2f}× that of one device"
    verb = "needs" if len(tied) == 1 else "tie for"
    names = listed([_placed(cell) for cell in sorted(tied, key=lambda cell: cell is not least)])
    yield Markup("{} {} the least memory on a rank: {}{}.").format(
        names,
        verb,
        shown(least.value("peak_memory_bytes"), "bytes"),
        about,
    )


def _cautions(panel: Panel) -> Iterable[Markup]:
    if any(cell.record.oversubscribed for cell in panel.cells):
        yield Markup("Oversubscribed cells share cores between devices: they say how it runs, not how it scales.")
    counts = Counter(_outcome(cell) for cell in panel.left_out)
    if counts:
        named = listed([f"{count} {what}" for what, count in counts.items()], 8)
        yield Markup("Left out of this: {}; the table says why.").format(named)


def _nothing(panel: Panel) -> Markup:
    counts = Counter(_outcome(cell) for cell in panel.cells)
    named = listed([f"{count} {what}" for what, count in counts.items()], 8)
    return Markup("No cell of {} can be ranked: {}. The table gives each one's reason.").format(
        code(panel.workload), named
    )


def _outcome(cell: CellView) -> str:
    status = str(cell.row["status"]).replace("_", " ")
    if status != "ok":
        return status
    return "not comparable" if cell.decided else "undecided"


def _alike(panel: Panel) -> list[CellView]:
    """What the verdict ranks: cells that compute what the reference computes, on as many models."""
    exact = [cell for cell in _ranked(panel) if _exact(cell)]
    return [cell for cell in exact if cell.record.models == _models(panel)] or exact or _ranked(panel)


def _ranked(panel: Panel) -> list[CellView]:
    """Cells that are known to compute what they should."""
    return [cell for cell in panel.comparable if cell.decided]


def _exact(cell: CellView) -> bool:
    return bool(cell.row["parity"] != "inexact")


def _models(panel: Panel) -> int:
    return (panel.base or min(_ranked(panel), key=lambda cell: cell.record.models)).record.models


def _best_of_each(panel: Panel, cells: Sequence[CellView]) -> list[CellView]:
    """Each label's fastest cell, the fastest first."""
    groups = grouped(cells, lambda cell: cell.record.label)
    best = [max(group, key=lambda cell: _score(panel, cell)) for group in groups]
    return sorted(best, key=lambda cell: -_score(panel, cell))


def _tied(panel: Panel, cells: Sequence[CellView], best: CellView) -> list[CellView]:
    """The best cell and those of other strategies that it is not measurably faster than, the fastest first."""
    close = [
        cell
        for cell in cells
        if cell is best or (cell.record.label != best.record.label and not _surely_faster(panel, best, cell))
    ]
    return _best_of_each(panel, close)


def _surely_faster(panel: Panel, best: CellView, cell: CellView) -> bool:
    """Whether the ratio within rounds is above 1 with its whole interval; without shared rounds, whether speeds are.

    Of a cell with one round, which an interrupted run may have, nothing is sure.
    """
    shared = sorted(best.speed_by_round.keys() & cell.speed_by_round.keys())
    if len(shared) > 1:
        ratio = summarise([best.speed_by_round[number] / cell.speed_by_round[number] for number in shared])
        return ratio.low is not None and ratio.low > 1
    ours, theirs = _interval(panel, best), _interval(panel, cell)
    return ours is not None and theirs is not None and not overlap(ours, theirs)


def _figure(panel: Panel) -> str:
    """Speedups are formed within rounds and so tell more apart; without a reference there are only speeds."""
    return "speedup" if panel.base is not None else "tokens_per_s"


def _score(panel: Panel, cell: CellView) -> float:
    return cell.value(_figure(panel)) or 0.0


def _interval(panel: Panel, cell: CellView) -> tuple[float, float] | None:
    return cell.interval(_figure(panel))


def _amount(panel: Panel, cell: CellView) -> str:
    return f"{FIGURES[_figure(panel)].with_interval(cell.row)} {_of_what(panel)}"


def _of_what(panel: Panel) -> str:
    return "over one device" if panel.base is not None else "tokens/s"


def _memory_beside(panel: Panel, cell: CellView) -> str:
    ratio = _memory_ratio(panel, cell)
    return "" if ratio is None else f", at {ratio:.2f}× its memory per rank"


def _memory_ratio(panel: Panel, cell: CellView) -> float | None:
    """A cell's memory over one device's, where both are known and differ for certain."""
    if panel.base is None or cell is panel.base or not cell.memory or not panel.base.memory:
        return None
    mine, theirs = _bounds(cell.memory), _bounds(panel.base.memory)
    if mine is None or theirs is None or overlap(mine, theirs):
        return None
    return (cell.value("peak_memory_bytes") or 0.0) / (panel.base.value("peak_memory_bytes") or math.nan)


def _bounds(summary: Summary) -> tuple[float, float] | None:
    return None if summary.low is None or summary.high is None else (summary.low, summary.high)


def _with_amount(panel: Panel, cell: CellView) -> Markup:
    return Markup("{} with {}").format(_named(cell, but="undecided"), _amount(panel, cell))


def _with_cause(panel: Panel, cell: CellView) -> Markup:
    """A cell with its figure, and the shares of its step that are lost, where they were measured."""
    lost = [
        f"{figure.title} {figure.text(cell.value(name))}"
        for name, figure in FIGURES.items()
        if figure.unit == "%" and figure.better == "lower" and (cell.value(name) or 0) >= 0.05
    ]
    cause = f" because of {', '.join(lost)}" if lost else ""
    return Markup("{} with {}{}").format(_placed(cell), FIGURES[_figure(panel)].with_interval(cell.row), cause)


def _where(cell: CellView) -> str:
    count, kind = cell.record.devices, cell.record.device_kind.upper()
    return f"On {'one' if count == 1 else count} {kind} {'device' if count == 1 else 'devices'}"


def _named(cell: CellView, but: str = "") -> Markup:
    told = [note for note in cell.notes if note != but]
    notes = f" ({', '.join(told)})" if told else ""
    return Markup("{}{}").format(code(cell.label), notes)


def _placed(cell: CellView) -> Markup:
    return Markup("{} on {}").format(_named(cell), cell.record.devices)
