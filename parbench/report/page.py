"""The report: what the page shows, gathered and rendered, and the files it is written to."""

import base64
import hashlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from parbench.errors import NothingMeasuredError, UsageError
from parbench.export.json import as_json
from parbench.figures.definitions import FIGURES
from parbench.report import provenance
from parbench.report.charts.canvas import Chart, inline, png, svg
from parbench.report.charts.losses import losses
from parbench.report.charts.network import network
from parbench.report.charts.rows import further, memory
from parbench.report.charts.side_by_side import efficiency, throughput, trade_off
from parbench.report.charts.steps import step_series, step_times
from parbench.report.panels import Panel, RunView, grouped, shared_figures, slug, views
from parbench.report.table import Column, columns, filters, parity_detail, table_rows
from parbench.report.verdict import listed, verdict
from parbench.results.looks import DARK_PALETTE, PALETTE
from parbench.results.store import Run
from parbench.system.files import write_whole
from parbench.text import plain

FORMATS = ("html", "png", "svg")
PAGE = "index.html"
CHARTS = "charts"

_TEMPLATES = Path(__file__).parent / "templates"
_PER_PANEL = (losses, memory, step_times, step_series, further)
"""Charts of one run's panel. A breakdown of step time goes here once runs have one."""


@dataclass(frozen=True)
class Drawn:
    """A chart as it stands on the page, with the files of it that were written."""

    chart: Chart
    drawing: Markup
    files: Sequence[str]


@dataclass(frozen=True)
class Section:
    """A workload on the page: its panel in each run, their verdicts, and its charts."""

    id: str
    title: str
    panels: Sequence[Panel]
    charts: Sequence[Drawn]

    @property
    def verdicts(self) -> Iterator[tuple[Panel, list[Markup]]]:
        """What can be said of it, run by run."""
        return ((panel, verdict(panel)) for panel in self.panels)


def write_report(runs: Sequence[Run], out: Path, formats: Collection[str] = FORMATS) -> Path:
    """Writes the page and the charts of `runs` below `out`; returns the page, or the charts' folder if none is wanted.

    Raises `UsageError` where `out` cannot be written, and `NothingMeasuredError` where there is no page and no chart.
    """
    shown = views(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        sections = _sections(shown, out / CHARTS, formats)
        if "html" not in formats:
            return _charts_alone(sections, out / CHARTS)
        write_whole(out / PAGE, render(shown, sections).encode(errors="replace"))
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {out}: {error.strerror}; choose another with --out"
        ) from None
    return out / PAGE


def folder_name(runs: Sequence[Run]) -> str:
    """What a report's folder is called unless one is chosen: the runs' ids."""
    names = [slug(run.record.id) for run in runs]
    return "_vs_".join(names) if len(names) < 3 else f"{names[0]}_vs_{len(names) - 1}_more"


def render(runs: Sequence[RunView], sections: Sequence[Section]) -> str:
    """The whole page: style, script, drawings and data are in it, and nothing is fetched."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "script.js").read_text()
    cells = [cell for view in runs for cell in view.cells]
    shown: list[Column] = columns(runs)
    return environment.get_template("page.html").render(
        title=_title(runs),
        description=_description(runs),
        runs=runs,
        sections=sections,
        columns=shown,
        rows=table_rows(runs, shown),
        filters=filters(runs),
        data=[_data(view) for view in runs],
        facts=_facts,
        figures=[FIGURES[name] for name in shared_figures(cells)],
        measured=provenance,
        differences=[[name, *values] for name, values in provenance.differences(runs)],
        compared=provenance.compared(runs),
        compared_titles=[f"run {number} ÷ run 1" for number in range(2, len(runs) + 1)],
        noise_rows=provenance.noise_rows,
        listed=listed,
        plain=plain,
        parity_detail=parity_detail,
        style=Markup((_TEMPLATES / "style.css").read_text() + _palettes()),  # noqa: S704 - no user's text is in it
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _sections(runs: Sequence[RunView], folder: Path, formats: Collection[str]) -> list[Section]:
    panels = [panel for view in runs for panel in view.panels]
    sections = []
    taken: set[str] = set()
    for group in grouped(panels, lambda panel: panel.key):
        name = slug(f"{group[0].workload} {group[0].scaling}")
        name = name if name not in taken else f"{name}-{len(taken) + 1}"
        taken.add(name)
        # One by one: a drawing is dropped as soon as it is written down.
        charts = [_drawn(chart, folder, formats) for chart in _charts(group, name)]
        sections.append(Section(name, group[0].title, group, charts))
    return sections


def _charts_alone(sections: Sequence[Section], folder: Path) -> Path:
    if not any(section.charts for section in sections):
        raise NothingMeasuredError(
            "no cell was measured, so there is no chart to write; the page says why: --format html"
        )
    return folder


def _charts(panels: Sequence[Panel], prefix: str) -> Iterator[Chart]:
    for chart in (throughput, efficiency, trade_off, network):
        if drawn := chart(panels, prefix):
            yield drawn
    for number, panel in enumerate(panels, start=1):
        for charts in _PER_PANEL:
            yield from charts(panel, prefix if len(panels) == 1 else f"{prefix}-run{number}")


def _drawn(chart: Chart, folder: Path, formats: Collection[str]) -> Drawn:
    written = []
    drawing = svg(chart) if {"html", "svg"} & set(formats) else ""
    for form in ("png", "svg"):
        if form in formats:
            folder.mkdir(exist_ok=True)
            write_whole(
                folder / f"{chart.id}.{form}", png(chart) if form == "png" else drawing.encode(errors="replace")
            )
            written.append(f"{CHARTS}/{chart.id}.{form}")
    # matplotlib escapes every name in it, and canvas those that it adds.
    shown = Markup(inline(drawing)) if "html" in formats else Markup("")  # noqa: S704
    chart.figure.clear()
    return Drawn(chart, shown, written)


def _title(runs: Sequence[RunView]) -> str:
    names = dict.fromkeys(plain(view.run.record.scenario.get("name", "unnamed")) for view in runs)
    return " and ".join(names) + (f": {len(runs)} runs compared" if len(runs) > 1 else "")


def _description(runs: Sequence[RunView]) -> str:
    found = dict.fromkeys(plain(view.run.record.scenario.get("description", "")) for view in runs)
    return " ".join(filter(None, found))


def _facts(view: RunView) -> list[str]:
    """What one wants to know of a run before anything else."""
    fields = provenance.environment(view.run)
    devices = sorted({(cell.record.device_kind.upper(), cell.record.devices) for cell in view.cells})
    most = dict(devices)
    found = [f"up to {count} {kind} {'device' if count == 1 else 'devices'}" for kind, count in most.items()]
    found += [value for key in ("accelerators", "cpu_model") if (value := fields.get(key, "–")) not in ("–", "none")]
    found += [f"{key} {fields[key]}" for key in ("torch", "python") if fields.get(key, "–") != "–"]
    rounds = view.run.record.rounds
    return [*found, f"{rounds} {'round' if rounds == 1 else 'rounds'}", plain(view.run.record.created_at[:10])]


def _data(view: RunView) -> dict[str, Any]:
    """The table for programs that read the page."""
    return {
        "run": view.name,
        "cells": [{"id": cell.record.id, **as_json(cell.row)} for cell in view.cells],
    }


def _palettes() -> str:
    light = "".join(f"--s{number}:{colour};" for number, colour in enumerate(PALETTE))
    dark = "".join(f"--s{number}:{colour};" for number, colour in enumerate(DARK_PALETTE))
    return f"\n:root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
