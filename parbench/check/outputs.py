"""A report in every format. Whatever a scenario or a strategy named is inert in all of them."""

import json
import math
from collections import Counter
from dataclasses import asdict
from typing import Any
from xml.etree import ElementTree

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parbench.check.metrics import METRICS
from parbench.check.verdicts import Finding, Report
from parbench.results.export import markdown_cell, plain

COLUMNS = ("verdict", "cell", "metric", "before", "now", "now ÷ before", "p (Holm)", "margin", "would find")
STYLES = {"regressed": "bold red", "failed": "red", "missing": "red", "improved": "green", "inconclusive": "yellow"}
EXPLANATION = (
    "p: the probability of so bad a change in any comparison if none were worse than its margin (Holm); "
    "would find: the smallest worsening found with the power asked for."
)


def print_report(report: Report, console: Console, *, strict: bool = False) -> None:
    """The report for people: what got worse first, then why what could not be judged could not."""
    view = Table(title=Text(plain(report.title)), title_justify="left", header_style="bold")
    for index, title in enumerate(COLUMNS):
        view.add_column(title, justify="left" if index in (0, 2) else "right" if index > 2 else "left", no_wrap=True)
    for finding in _shown(report):
        style = STYLES.get(finding.verdict, "")
        view.add_row(
            *(Text(plain(value), style=style if column == 0 else "") for column, value in enumerate(_row(finding)))
        )
    console.print(view)
    for line in _lines(report, strict=strict):
        console.print(Text(line), soft_wrap=True)


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
    """A test case for the gate itself and for each gated cell and metric, in the form that CI services read."""
    suite = ElementTree.Element("testsuite", {"name": "parbench check"})
    cases = [("gate", "judged something", "error" if report.problem else "passed", report.problem or "")]
    cases += [
        (finding.cell, finding.metric or "measured", _outcome(finding, strict=strict), sentence(finding))
        for finding in report.findings
        if finding.gated
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
    rows = "".join(f"| {' | '.join(map(markdown_cell, _row(finding)))} |\n" for finding in _shown(report))
    table = f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}\n{rows}"
    lines = "".join(f"- {markdown_cell(line)}\n" for line in _lines(report, strict=strict))
    return f"### {markdown_cell(report.title)}\n\n{table}\n{lines}"


def _shown(report: Report) -> list[Finding]:
    """What decides; where nothing may, because the environment is foreign, what is known all the same."""
    return [finding for finding in report.findings if finding.gated] or list(report.findings)


def _row(finding: Finding) -> tuple[str, ...]:
    interval = f" [{finding.low:.3f}, {finding.high:.3f}]" if finding.low is not None else ""
    return (
        finding.verdict + ("" if finding.gated else " (advisory)"),
        finding.cell,
        METRICS[finding.metric].title if finding.metric else "–",
        _value(finding, finding.old),
        _value(finding, finding.new),
        f"{finding.ratio:.3f}{interval}" if finding.ratio is not None else "–",
        f"{finding.p:.2g}" if finding.p is not None else "–",
        f"{finding.margin:.0%}" if finding.margin is not None else "–",
        f"+{finding.detectable:.0%}" if finding.detectable is not None else "–",
    )


def _value(finding: Finding, value: float | None) -> str:
    if value is None or finding.metric is None:
        return "–"
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
    match finding.verdict:
        case "regressed":
            return "failure"
        case "failed" | "missing" | "not comparable":
            return "error"
        case "inconclusive":
            return "failure" if strict else "skipped"
        case "new":
            return "skipped"
        case _:
            return "passed"


def sentence(finding: Finding) -> str:
    """A finding in a line."""
    if finding.reason:
        return f"{finding.verdict}: {finding.reason}"
    _, _, _, before, now, ratio, p, margin, _ = _row(finding)
    return f"{finding.verdict}: {before} before, {now} now, ratio {ratio}, p {p}, margin {margin}"


def _plain_values(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
