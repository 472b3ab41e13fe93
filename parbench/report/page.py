"""The report: one HTML page with everything in it, and the charts as files of their own."""

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
from parbench.report.cautions import collect_cautions
from parbench.report.charts.base import CHART_KINDS, draw_charts
from parbench.report.comparison import compare_environments, compare_speeds
from parbench.report.drawing.chart import Chart, to_inline, to_png, to_svg
from parbench.report.drawing.marks import mark_name
from parbench.report.panels import CellView, Panel, RunView, group_by, shared_figures, slugify, view_runs
from parbench.report.place import PAGE
from parbench.report.table import describe_parity, filter_choices, make_columns, make_rows
from parbench.report.verdict import join_words, write_verdict
from parbench.results.looks import DARK_PALETTE, PALETTE
from parbench.results.sessions import count_rounds, say_coverage
from parbench.results.store import Run
from parbench.system.files import write_whole
from parbench.text import plain

FORMATS = ("html", "png", "svg")
CHARTS = "charts"

CAPTION_IN = 1.2
"""Inches that a chart's name and caption take beside its drawing, about."""

MAX_OPEN_VERDICTS = 2
"""Of more verdicts, the page shows the first sentence, and the others on demand."""

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PlacedChart:
    """A chart on the page: its drawing as an HTML element, and the paths of its files, relative to the page."""

    chart: Chart
    drawing: Markup
    files: Sequence[str]


@dataclass(frozen=True)
class Chip:
    """A button that brings out a strategy in all charts: what its marks are called there, its name and its colour."""

    mark: str
    name: str
    colour: int


@dataclass(frozen=True)
class Section:
    """A workload on the page: its panel in each run, and its charts."""

    id: str
    title: str
    panels: Sequence[Panel]
    charts: Sequence[PlacedChart]

    @property
    def columns(self) -> list[list[tuple[int, PlacedChart]]]:
        """The charts of usual width in two columns of about the same height, each with its place in the order of all.

        A chart stands in the column that is shorter so far.
        """
        columns: list[list[tuple[int, PlacedChart]]] = [[], []]
        heights = [0.0, 0.0]
        for number, placed in enumerate(self.charts):
            if not placed.chart.wide:
                column = heights.index(min(heights))
                columns[column].append((number, placed))
                heights[column] += placed.chart.figure.get_figheight() + CAPTION_IN
        return columns

    @property
    def verdicts(self) -> Iterator[tuple[Panel, list[Markup]]]:
        """Each panel with the sentences of its verdict."""
        return ((panel, write_verdict(panel)) for panel in self.panels)


def write_report(runs: Sequence[Run], out: Path, formats: Collection[str] = FORMATS) -> Path:
    """Writes the page and the charts of `runs` into the folder `out`.

    Returns the path of the page or, where `formats` lacks html, of the charts' folder. Raises `UsageError` if `out`
    cannot be written, and `NothingMeasuredError` if there is neither a page nor a chart.
    """
    views = view_runs(runs)
    try:
        out.mkdir(parents=True, exist_ok=True)
        sections = _make_sections(views, out / CHARTS, formats)
        if "html" not in formats:
            return _require_charts(sections, out / CHARTS)
        write_whole(out / PAGE, render_page(views, sections).encode(errors="replace"))
    except OSError as error:
        raise UsageError(
            f"the report cannot be written to {out}: {error.strerror}; choose another with --out"
        ) from None
    return out / PAGE


def render_page(runs: Sequence[RunView], sections: Sequence[Section]) -> str:
    """Renders the page as HTML, which holds its style, script, drawings and data and fetches nothing."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = (_TEMPLATES / "script.js").read_text()
    cells = [cell for view in runs for cell in view.cells]
    columns = make_columns(runs)
    return environment.get_template("page.html").render(
        title=_title(runs),
        description=_description(runs),
        runs=runs,
        sections=sections,
        broken_charts=CHART_KINDS.broken,
        columns=columns,
        rows=make_rows(runs, columns),
        filters=filter_choices(runs),
        chips=_make_chips(cells),
        mark_name=mark_name,
        verdict_count=sum(len(section.panels) for section in sections),
        max_open_verdicts=MAX_OPEN_VERDICTS,
        data=[_table_data(view) for view in runs],
        list_facts=_list_facts,
        figures=[FIGURES[name] for name in shared_figures(cells)],
        provenance=provenance,
        collect_cautions=collect_cautions,
        count_rounds=count_rounds,
        say_coverage=say_coverage,
        environment_differences=[[name, *values] for name, values in compare_environments(runs)],
        speeds=compare_speeds(runs),
        speed_ratio_titles=[f"run {number} ÷ run 1" for number in range(2, len(runs) + 1)],
        join_words=join_words,
        plain=plain,
        describe_parity=describe_parity,
        style=Markup((_TEMPLATES / "style.css").read_text() + _palette_css()),  # noqa: S704 - it has no user's text
        script=Markup(script),  # noqa: S704
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _make_sections(runs: Sequence[RunView], folder: Path, formats: Collection[str]) -> list[Section]:
    panels = [panel for view in runs for panel in view.panels]
    sections = []
    ids: set[str] = set()
    for group in group_by(panels, lambda panel: panel.key):
        id_ = slugify(f"{group[0].workload} {group[0].scaling}")
        id_ = id_ if id_ not in ids else f"{id_}-{len(ids) + 1}"
        ids.add(id_)
        # One chart at a time: its figure is cleared before the next one takes memory.
        charts = [_place_chart(chart, folder, formats) for chart in draw_charts(group, id_)]
        sections.append(Section(id_, group[0].title, group, charts))
    return sections


def _make_chips(cells: Sequence[CellView]) -> list[Chip]:
    """A button for each strategy that was measured, in the runs' order."""
    strategies = {cell.record.strategy: cell for cell in reversed(cells) if cell.trials}
    return [Chip(mark_name(cell), plain(name), cell.look.colour) for name, cell in reversed(strategies.items())]


def _require_charts(sections: Sequence[Section], folder: Path) -> Path:
    if not any(section.charts for section in sections):
        raise NothingMeasuredError(
            "no cell was measured, so there is no chart to write; the page says why: --format html"
        )
    return folder


def _place_chart(chart: Chart, folder: Path, formats: Collection[str]) -> PlacedChart:
    """Writes a chart's files and makes its drawing for the page."""
    files = []
    svg = to_svg(chart) if {"html", "svg"} & set(formats) else ""
    for form in ("png", "svg"):
        if form in formats:
            folder.mkdir(exist_ok=True)
            content = to_png(chart) if form == "png" else svg.encode(errors="replace")
            write_whole(folder / f"{chart.id}.{form}", content)
            files.append(f"{CHARTS}/{chart.id}.{form}")
    # matplotlib escapes the names in the drawing, and to_svg those in its title and description.
    drawing = Markup(to_inline(svg)) if "html" in formats else Markup("")  # noqa: S704
    chart.figure.clear()
    return PlacedChart(chart, drawing, files)


def _title(runs: Sequence[RunView]) -> str:
    names = dict.fromkeys(plain(view.run.record.scenario.get("name", "unnamed")) for view in runs)
    return " and ".join(names) + (f": {len(runs)} runs compared" if len(runs) > 1 else "")


def _description(runs: Sequence[RunView]) -> str:
    descriptions = dict.fromkeys(plain(view.run.record.scenario.get("description", "")) for view in runs)
    return " ".join(filter(None, descriptions))


def _list_facts(view: RunView) -> list[str]:
    """The run's devices, hardware, versions, rounds and date, for the page's head."""
    fields = provenance.environment(view.run)
    devices = sorted({(cell.record.device_kind.upper(), cell.record.devices) for cell in view.cells})
    most_devices = dict(devices)
    facts = [f"up to {count} {kind} {'device' if count == 1 else 'devices'}" for kind, count in most_devices.items()]
    facts += [value for key in ("accelerators", "cpu_model") if (value := fields.get(key, "–")) not in ("–", "none")]
    facts += [f"{key} {fields[key]}" for key in ("torch", "python") if fields.get(key, "–") != "–"]
    dates = dict.fromkeys(plain(session.record.created_at[:10]) for session in view.run.sessions)
    return [*facts, count_rounds(view.run), ", ".join(dates)]


def _table_data(view: RunView) -> dict[str, Any]:
    """The run's table as JSON, for programs that read the page."""
    return {
        "run": view.name,
        "cells": [{"id": cell.record.id, **as_json(cell.row)} for cell in view.cells],
    }


def _palette_css() -> str:
    """The strategies' colours as CSS variables, for light and for dark pages."""
    light = "".join(f"--s{number}:{colour};" for number, colour in enumerate(PALETTE))
    dark = "".join(f"--s{number}:{colour};" for number, colour in enumerate(DARK_PALETTE))
    return f"\n:root{{{light}}}\n@media screen and (prefers-color-scheme: dark){{:root{{{dark}}}}}\n"
