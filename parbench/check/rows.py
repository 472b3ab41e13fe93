"""What a check has to say, as rows, sentences, data and test cases: the formats write them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

from parbench.check.verdicts import Finding, Report
from parbench.export.base import Case, Document
from parbench.export.json import as_json
from parbench.figures.definitions import FIGURES
from parbench.system import exit_codes
from parbench.text import plain

COLUMNS = (
    "verdict",
    "cell",
    "metric",
    "before",
    "now",
    "now ÷ before",
    "p (Holm)",
    "p (signs)",
    "margin",
    "would find",
)

OF_PAIRS = COLUMNS.index("p (signs)")

EXPLANATION = (
    "p: the probability of so bad a change in any comparison if none were worse than its margin (Holm); "
    "would find: the smallest worsening found with the power asked for."
)

EXPLANATION_OF_SIGNS = "p (signs): that of this comparison alone by a permutation test, which assumes no normality."

ADVISORY = "What is advisory is worse as well, but not among the metrics of the scenario's gate, or not portable."

NOT_COMPLETE = "A cell failed, is missing or cannot be compared."

UNKNOWN = "–"


def document(report: Report, *, strict: bool = False) -> Document:
    """The check as every export format can write it: the findings in rows, as data, and as test cases."""
    header, rows = columns_and_rows(report)
    return Document(
        command="check",
        title=report.title,
        header=header,
        rows=[row for _, row in rows],
        sentences=sentences(report, strict=strict),
        data=_data(report, strict=strict),
        cases=_cases(report, strict=strict),
    )


def _data(report: Report, *, strict: bool) -> dict[str, Any]:
    """All findings, advisory ones too; what is unknown is None."""
    return {
        "title": report.title,
        "exit_code": report.exit_code(strict=strict),
        "check": report.spec.model_dump(mode="json"),
        "foreign": [field._asdict() for field in report.foreign],
        "notes": list(report.notes),
        "findings": [as_json(asdict(finding)) for finding in report.findings],
    }


def _cases(report: Report, *, strict: bool) -> list[Case]:
    """A test case for the gate itself, and one for each cell and metric that decides.

    In a foreign environment there is one for all others as well, skipped; the gate itself is then the error.
    """
    broken = report.exit_code(strict=strict) in (exit_codes.CELL_FAILED, exit_codes.NO_BASELINE)
    gate = Case("gate", "judged something", "error" if broken else "passed", report.problem or NOT_COMPLETE)
    return [
        gate,
        *(
            Case(finding.cell, finding.metric or "measured", _outcome(finding, strict=strict), sentence(finding))
            for finding in report.findings
            if finding.gated or report.foreign
        ),
    ]


def _findings_to_list(report: Report) -> list[Finding]:
    """What decides, and of the rest what got worse; in a foreign environment all that is known."""
    return [finding for finding in report.findings if finding.gated or finding.verdict == "regressed" or report.foreign]


def columns_and_rows(report: Report) -> tuple[list[str], list[tuple[Finding, list[str]]]]:
    """The table, with the column of the permutation test only where one was made."""
    findings = _findings_to_list(report)
    unused = () if any(finding.p_permutation is not None for finding in findings) else (OF_PAIRS,)

    def used(values: Sequence[str]) -> list[str]:
        return [value for index, value in enumerate(values) if index not in unused]

    return used(COLUMNS), [(finding, used(_row(finding))) for finding in findings]


def _row(finding: Finding) -> tuple[str, ...]:
    interval = f" [{finding.low:.3f}, {finding.high:.3f}]" if finding.low is not None else ""
    return (
        finding.verdict + ("" if finding.gated else " (advisory)"),
        finding.cell,
        FIGURES[finding.metric].title if finding.metric else UNKNOWN,
        _value(finding, finding.old),
        _value(finding, finding.new),
        f"{finding.ratio:.3f}{interval}" if finding.ratio is not None else UNKNOWN,
        f"{finding.p:.2g}" if finding.p is not None else UNKNOWN,
        f"{finding.p_permutation:.2g}" if finding.p_permutation is not None else UNKNOWN,
        f"{finding.margin:.0%}" if finding.margin is not None else UNKNOWN,
        f"+{finding.detectable:.0%}" if finding.detectable is not None else UNKNOWN,
    )


def _value(finding: Finding, value: float | None) -> str:
    if value is None or finding.metric is None:
        return UNKNOWN
    figure = FIGURES[finding.metric]
    if figure.gate == "exact":
        return f"{value:,.0f}"
    match figure.unit:
        case "s":
            return f"{1000 * value:.4g} ms"
        case "bytes":
            return f"{value / 2**20:,.0f} MiB"
        case "J":
            return figure.text(value)
        case "×" | "%":
            return f"{value:.3f}"
        case _:
            return f"{value:,.0f}"


def sentences(report: Report, *, strict: bool) -> list[str]:
    """What the table cannot say, in sentences; the last one is the outcome."""
    lines = [plain(f"{name}: {finding.reason}") for name, finding in _reasons(report)]
    if report.problem:
        lines.append(plain(report.problem))
    if report.foreign:
        lines.append("The environment is not that of the baseline:")
        lines += [f"  {plain(field)}" for field in report.foreign]
    lines += report.notes
    lines.append(EXPLANATION)
    if any(finding.p_permutation is not None for finding in report.findings):
        lines.append(EXPLANATION_OF_SIGNS)
    if any(not finding.gated and finding.verdict == "regressed" for finding in report.findings):
        lines.append(ADVISORY)
    unsure = len(report.of("inconclusive"))
    if unsure and report.exit_code(strict=strict) == exit_codes.OK:
        lines.append(f"{unsure} of the verdicts are inconclusive, which is not ok: --strict would exit with 5.")
    counts = Counter(finding.verdict for finding in report.findings if finding.gated)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "nothing could be judged"
    return [*lines, f"{summary} (exit code {report.exit_code(strict=strict)})"]


def _reasons(report: Report) -> list[tuple[str, Finding]]:
    """Gated findings with a reason, each under its verdict, cell and metric."""
    return [
        (f"{finding.verdict}: {finding.cell}{f', {FIGURES[finding.metric].title}' if finding.metric else ''}", finding)
        for finding in report.findings
        if finding.gated and finding.reason
    ]


def _outcome(finding: Finding, *, strict: bool) -> Literal["passed", "failure", "error", "skipped"]:
    if not finding.gated:
        return "skipped"
    match finding.verdict:
        case "regressed":
            return "failure"
        case "failed" | "missing":
            return "error"
        case "inconclusive":
            return "failure" if strict else "skipped"
        case "new" | "not comparable":
            return "skipped"
        case _:
            return "passed"


def sentence(finding: Finding) -> str:
    """A finding in one line."""
    if finding.reason:
        return plain(f"{finding.verdict}: {finding.reason}")
    verdict, _, _, before, now, ratio, p, signs, margin, _ = _row(finding)
    of_pairs = f", p of random signs {signs}" if finding.p_permutation is not None else ""
    return f"{verdict}: {before} before, {now} now, ratio {ratio}, p {p}{of_pairs}, margin {margin}"
