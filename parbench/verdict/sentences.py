"""What the standing of a panel's cells says, in at most five sentences however many cells there are."""

from collections.abc import Iterator

from parbench.figures.definitions import FIGURES
from parbench.figures.memory import PEAK_MEMORY_BYTES
from parbench.figures.traffic import COLLECTIVES, COMMUNICATED_BYTES
from parbench.results.judged_cells import JudgedCell
from parbench.verdict.candidates import OTHER_WORK, SEVERAL_MODELS, amount, memory, speed, tokens_per_s
from parbench.verdict.contest import POWER
from parbench.verdict.lines import Line, Name, Phrase, capitalised, listing, phrase, separated
from parbench.verdict.losses import list_losses, say_losses
from parbench.verdict.rounds import summary
from parbench.verdict.standing import Standing

_VERBS = {
    "train": ("trains", "training"),
    "score": ("scores", "scoring"),
    "generate": ("generates text with", "generating text with"),
}
_OTHER_VERBS = ("runs", "running")
_LOSS_WORTH_SAYING = 0.05
_NOTHING_SEEN = 9.0


def lines_of(standing: Standing, *, emulated_hosts: bool) -> Iterator[Line]:
    """The sentences, the most important first. `emulated_hosts` says that all hosts are parts of one machine."""
    explained = next((cell for cell in standing.candidates if standing.tested and cell.waterfall), None)
    why = _say_why(standing, explained) if explained else ()
    yield Line("fastest", separated([each for each in (_say_fastest(standing), why) if each], " "))
    if standing.thriftiest:
        yield Line("memory", _say_least_memory(standing))
    if standing.frontier:
        yield Line("frontier", _say_frontier(standing))
    if standing.tested and any((standing.followers.faster, standing.followers.level, standing.followers.slower)):
        yield Line("losers", _say_losers(standing, explained))
    unjudged: list[Phrase] = []
    if standing.candidates and standing.others:
        unjudged.append(phrase("Not ranked: {}; the table has the reasons.", _list_others(standing)))
    if emulated_hosts:
        unjudged.append(_HOSTS)
    if unjudged:
        yield Line("unjudged", separated(unjudged, " "))


_HOSTS: Phrase = (
    "All hosts are emulated: they show what the network between them costs, not how fast real hosts are.",
)


def _say_fastest(standing: Standing) -> Phrase:
    """Which cell is fastest, and by how much; or which cells cannot be told apart."""
    workload = Name(standing.cells[0].record.workload)
    if not standing.candidates:
        return phrase("No cell of {} can be ranked: {}. The table has the reasons.", workload, _list_others(standing))
    verb, gerund = _VERBS.get(standing.cells[0].record.phase, _OTHER_VERBS)
    best = standing.leaders[0]
    if len(standing.candidates) == 1:
        return phrase(
            "{}, {} {} {} at {}; there is no other cell to compare it with.",
            _place(best), Name(best.record.label), verb, workload, tokens_per_s(best),
        )  # fmt: skip
    if not standing.tested:
        return _say_fastest_untested(standing, gerund, workload)
    if standing.base_leads:
        if best is standing.base:
            return phrase("No strategy is faster than one device at {} {}{}.", gerund, workload, _blind_spot(standing))
        return phrase(
            "No strategy is measurably faster than one device at {} {}: the best is {}, which cannot be told from "
            "it{}.", gerund, workload, _with_amount(best), _blind_spot(standing),
        )  # fmt: skip
    if len(standing.leaders) > 1:
        return phrase(
            "{} cannot be told apart as the fastest at {} {}{}.",
            listing([_with_amount(cell) for cell in standing.leaders]), gerund, workload, _blind_spot(standing),
        )  # fmt: skip
    ratio = "" if standing.memory_ratio is None else f", at {standing.memory_ratio:.2f}× its memory per rank"
    return phrase(
        "{}, {} {} {} fastest: {}{}.", _place(best), Name(best.record.label), verb, workload, _over(best), ratio
    )


def _say_why(standing: Standing, cell: JudgedCell) -> Phrase:
    """What the fastest cell on several devices loses of its ideal speedup."""
    just_named = len(standing.leaders) == 1 and standing.leaders[0] is cell
    return say_losses(cell, ("It",) if just_named else _with_devices(cell))


def _say_fastest_untested(standing: Standing, gerund: str, workload: Name) -> Phrase:
    """Which cell was fastest, where no round or only one is shared: that does not tell how much launches differ."""
    best = standing.leaders[0]
    rounds = max(len(cell.launches) for cell in standing.candidates)
    when = "in the only round: one launch" if rounds == 1 else "but shares too few rounds with the others, which"
    if best is standing.base:
        opening = phrase("No strategy was faster than one device at {} {}", gerund, workload)
    else:
        opening = phrase(
            "{}, {} was fastest at {} {} ({})", _place(best), Name(best.record.label), gerund, workload, _over(best)
        )
    return phrase("{} {} cannot tell whether that is more than luck.", opening, when)


def _say_least_memory(standing: Standing) -> Phrase:
    """Which cells need least memory on their fullest rank."""
    least = standing.thriftiest[0]
    size = PEAK_MEMORY_BYTES.text(memory(least))
    if any(cell is standing.base for cell in standing.thriftiest):
        return phrase("No strategy needs measurably less memory on a rank than one device: {}.", size)
    names = listing([_with_devices(cell) for cell in standing.thriftiest])
    several = len(standing.thriftiest) > 1
    verb = "need" if several else "needs" if standing.thrift_tested else "needed"
    when = "" if standing.thrift_tested else " in the only round"
    share = "" if standing.base is None else f", {memory(least) / memory(standing.base):.2f}× that of one device"
    pace = "" if least is standing.leaders[0] else f", {'the first ' * several}at a speed of {amount(least)}"
    return phrase("{} {} the least memory on a rank{}: {}{}{}.", names, verb, when, size, share, pace)


def _say_frontier(standing: Standing) -> Phrase:
    """What lies between the fastest and the one that needs least memory."""
    between = [
        phrase("{} with {} at {}", _with_devices(cell), amount(cell), PEAK_MEMORY_BYTES.text(memory(cell)))
        for cell in standing.frontier
    ]
    return phrase("Between these two, each the fastest that saves memory: {}.", listing(between, 4))


def _say_losers(standing: Standing, explained: JudgedCell | None) -> Phrase:
    """The strategies behind the fastest, by how they compare with one device, and what they lose it to.

    Of one that is `explained` already, no losses are listed.
    """

    def name(cell: JudgedCell) -> Phrase:
        return _with_amount(cell) if cell is explained else _with_losses(cell)

    device = " than one device" if standing.base else ""
    groups = (
        (f"behind, but faster{device}", standing.followers.faster),
        (f"not measurably faster{device}", standing.followers.level),
        (f"slower{device}", standing.followers.slower),
    )
    said = [(words, cells) for words, cells in groups if cells]
    limit = 4 if len(said) == 1 else 2
    clauses = [phrase("{}: {}", words, listing([name(cell) for cell in cells], limit)) for words, cells in said]
    return capitalised(phrase("{}.", separated(clauses, "; ")))


def _list_others(standing: Standing) -> Phrase:
    """How many cells are not ranked, by the reason; and those that look faster than the winner, or do other work."""
    bar = speed(standing.leaders[0]) if standing.leaders else float("inf")
    groups = []
    for reason, cells in standing.others.items():
        words = phrase(f"{len(cells)} {reason}")
        alike = [cell for cell in cells if reason == SEVERAL_MODELS or cell.record.models == standing.models]
        top = max((cell for cell in alike if cell.comparable), key=speed, default=None)
        if top and (reason in OTHER_WORK or speed(top) >= bar):
            total = " in sum" if reason == SEVERAL_MODELS else ""
            words = phrase("{} ({}{})", words, _with_amount(top), total)
        groups.append(words)
    return listing(groups, len(groups))


def _blind_spot(standing: Standing) -> str:
    """The difference that would have been seen; nothing where that is not known."""
    if standing.detectable is None:
        return ""
    share = max(standing.detectable, 0.01)
    if share > _NOTHING_SEEN:
        return "; so few launches show hardly any difference"
    size = f"{share * 100:.0f} %" if share < 1 else f"a factor of {1 + share:.1f}"
    return f"; a difference of {size} would have been seen in {POWER * 10:.0f} of 10 such runs"


def _with_losses(cell: JudgedCell) -> Phrase:
    """A cell with its speed, and what it loses: of its ideal speedup, or else the shares of its step that are lost, or
    else what it communicates.
    """
    if lost := list_losses(cell, most=2):
        return phrase("{} (it loses {})", _with_amount(cell), lost)
    losses = [
        f"{figure.title} {figure.text(share)}"
        for figure in FIGURES.values()
        if figure.unit == "%"
        and figure.better == "lower"
        and (share := summary(cell, figure).mean) >= _LOSS_WORTH_SAYING
    ]
    sent = summary(cell, COMMUNICATED_BYTES).mean
    if not losses and sent > 0:
        calls = COLLECTIVES.text(summary(cell, COLLECTIVES).mean)
        losses = [f"{COMMUNICATED_BYTES.text(sent)} in {calls} calls a step"]
    return phrase("{} ({})", _with_amount(cell), ", ".join(losses)) if losses else _with_amount(cell)


def _with_amount(cell: JudgedCell) -> Phrase:
    return phrase("{} with {}", _with_devices(cell), amount(cell))


def _with_devices(cell: JudgedCell) -> Phrase:
    return phrase("{} on {}", Name(cell.record.label), str(cell.record.devices))


def _over(cell: JudgedCell) -> str:
    return f"{amount(cell)} over one device" if cell.base else amount(cell)


def _place(cell: JudgedCell) -> str:
    count, kind = cell.record.devices, cell.record.device_kind.upper()
    return f"On {'one' if count == 1 else count} {kind} {'device' if count == 1 else 'devices'}"
