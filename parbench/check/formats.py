"""A report in every format. Whatever a scenario or a strategy named is inert in all of them."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from parbench import exit_codes
from parbench.check.metrics import METRICS
from parbench.check.verdicts import Finding, Report
from parbench.export.markdown import markdown_cell
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


STYLES = {"regressed": "bold red", "failed": "red", "missing": "red", "improved": "green", "inconclusive": "yellow"}


EXPLANATION = (
    "p: the probability of so bad a change in any comparison if none were worse than its margin (Holm); "
    "would find: the smallest worsening found with the power asked for."
)


EXPLANATION_OF_SIGNS = "p (signs): that of this comparison alone by a permutation test, which assumes no normality."


ADVISORY = "What is advisory is worse as well, but not among the metrics of the scenario's gate, or not portable."


NOT_COMPLETE = "A cell failed, is missing or cannot be compared."


UNKNOWN = "–"


ANY_WIDTH = 10_000


def print_report(report: Report, console: Console, *, strict: bool = False) -> None:
    """The report for people: what got worse first, then why what could not be judged could not."""
    view = _table(report)
    if console.measure(view, options=console.options.update(max_width=ANY_WIDTH)).maximum > console.width:
        _print_one_by_one(report, console)
    else:
        console.print(view)
    for line in _lines(report, strict=strict):
        console.print(Text(line), soft_wrap=True)


def _table(report: Report) -> Table:
    view = Table(title=Text(plain(report.title)), title_justify="left", header_style="bold")
    columns, rows = _columns_and_rows(report)
    for index, title in enumerate(columns):
        view.add_column(title, justify="left" if index < 3 else "right", no_wrap=True)
    for finding, (verdict, *rest) in rows:
        view.add_row(Text(verdict, style=STYLES.get(finding.verdict, "")), *map(Text, map(plain, rest)))
    return view


def _print_one_by_one(report: Report, console: Console) -> None:
    """What is too wide for a table: a paragraph a finding, in which nothing is cut."""
    columns, rows = _columns_and_rows(report)
    console.print(Text(plain(report.title), style="bold"))
    for finding, (verdict, cell, metric, *figures) in rows:
        console.print(Text.assemble((verdict, STYLES.get(finding.verdict, "")), plain(f" {cell}, {metric}")))
        said = [f"{title} {value}" for title, value in zip(columns[3:], figures, strict=True) if value != UNKNOWN]
        if said:
            console.print(Padding(Text(", ".join(said)), (0, 0, 0, 4)))


def to_json(report: Report, *, strict: bool = False) -> str:
    """All findings, advisory ones too; what is unknown is null."""
    content = {
        "title": report.title,
        "exit_code": report.exit_code(strict=strict),
        "check": report.spec.model_dump(mode="json"),
        "foreign": [difference._asdict() for difference in report.foreign],
        "notes": list(report.notes),
        "findings": [_plain_values(asdict(finding)) for finding in report.findings],
    }
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


def to_junit(report: Report, *, strict: bool = False) -> str:
    """A test case for the gate itself and for each cell and metric that decides, in the form that CI services read.

    Where the environment is foreign there is one for all others as well, skipped; the gate itself is then the error.
    """
    suite = ElementTree.Element("testsuite", {"name": "parbench check"})
    broken = report.exit_code(strict=strict) in (exit_codes.CELL_FAILED, exit_codes.NO_BASELINE)
    cases = [("gate", "judged something", "error" if broken else "passed", report.problem or NOT_COMPLETE)]
    cases += [
        (finding.cell, finding.metric or "measured", _outcome(finding, strict=strict), sentence(finding))
        for finding in report.findings
        if finding.gated or report.foreign
    ]
    for cell, name, outcome, message in cases:
        case = ElementTree.SubElement(suite, "testcase", {"classname": plain(cell), "name": name, "time": "0"})
        if outcome != "passed":
            kind = {} if outcome == "skipped" else {"type": "parbench"}
            ElementTree.SubElement(case, outcome, {"message": plain(message), **kind})
    outcomes = Counter(outcome for _, _, outcome, _ in cases)
    for key, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(key, str(outcomes[outcome]))
    suite.set("tests", str(len(cases)))
    suites = ElementTree.Element("testsuites")
    suites.append(suite)
    ElementTree.indent(suites)
    return ElementTree.tostring(suites, encoding="unicode", xml_declaration=True) + "\n"


def to_markdown(report: Report, *, strict: bool = False) -> str:
    """For a pull request or `$GITHUB_STEP_SUMMARY`."""
    columns, found = _columns_and_rows(report)
    rows = "".join(f"| {' | '.join(map(markdown_cell, row))} |\n" for _, row in found)
    table = f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}\n{rows}"
    lines = "".join(f"- {markdown_cell(line)}\n" for line in _lines(report, strict=strict))
    return f"### {markdown_cell(report.title)}\n\n{table}\n{lines}"


def _shown(report: Report) -> list[Finding]:
    """What decides, and of the rest what got worse; in a foreign environment all that is known."""
    return [finding for finding in report.findings if finding.gated or finding.verdict == "regressed" or report.foreign]


def _columns_and_rows(report: Report) -> tuple[list[str], list[tuple[Finding, list[str]]]]:
    """The table, with the column of the permutation test only where one was made."""
    shown = _shown(report)
    unused = () if any(finding.p_permutation is not None for finding in shown) else (OF_PAIRS,)

    def used(values: Sequence[str]) -> list[str]:
        return [value for index, value in enumerate(values) if index not in unused]

    return used(COLUMNS), [(finding, used(_row(finding))) for finding in shown]


def _row(finding: Finding) -> tuple[str, ...]:
    interval = f" [{finding.low:.3f}, {finding.high:.3f}]" if finding.low is not None else ""
    return (
        finding.verdict + ("" if finding.gated else " (advisory)"),
        finding.cell,
        METRICS[finding.metric].title if finding.metric else UNKNOWN,
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
    match METRICS[finding.metric].unit:
        case "s":
            return f"{1000 * value:.4g} ms"
        case "bytes":
            return f"{value / 2**20:,.0f} MiB"
        case "×" | "%":
            return f"{value:.3f}"
        case _:
            return f"{value:,.0f}"


def _lines(report: Report, *, strict: bool) -> list[str]:
    """What the table cannot say, in sentences; the last one is the outcome."""
    lines = [plain(f"{name}: {finding.reason}") for name, finding in _reasons(report)]
    if report.problem:
        lines.append(plain(report.problem))
    if report.foreign:
        lines.append("The environment is not that of the baseline:")
        lines += [f"  {plain(difference)}" for difference in report.foreign]
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
    said = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common()) or "nothing could be judged"
    return [*lines, f"{said} (exit code {report.exit_code(strict=strict)})"]


def _reasons(report: Report) -> list[tuple[str, Finding]]:
    """Gated findings with a reason, each under its verdict, cell and metric."""
    return [
        (f"{finding.verdict}: {finding.cell}{f', {METRICS[finding.metric].title}' if finding.metric else ''}", finding)
        for finding in report.findings
        if finding.gated and finding.reason
    ]


def _outcome(finding: Finding, *, strict: bool) -> str:
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
    """A finding in a line."""
    if finding.reason:
        return plain(f"{finding.verdict}: {finding.reason}")
    verdict, _, _, before, now, ratio, p, signs, margin, _ = _row(finding)
    of_pairs = f", p of random signs {signs}" if finding.p_permutation is not None else ""
    return f"{verdict}: {before} before, {now} now, ratio {ratio}, p {p}{of_pairs}, margin {margin}"


def _plain_values(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
