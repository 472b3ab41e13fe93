"""The page and its files, from made-up runs and from the stored one."""

import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup
from rich.console import Console

from parbench.errors import NothingMeasuredError, UsageError
from parbench.export.terminal import print_table
from parbench.records.trial import DeviceMemory, MemoryRecord
from parbench.report.charts.base import CHART_KINDS
from parbench.report.page import write_report
from parbench.report.panels import view_runs
from parbench.report.place import folder_name
from parbench.report.table import make_columns
from parbench.results.looks import looks
from parbench.results.store import Run, read_run
from parbench.results.tables import cells_table
from parbench.text import plain
from tests.support.records import LOSSES, cell, job, rank, reference, run, run_record, trial

REPOSITORY = Path(__file__).parents[2]
STORED = REPOSITORY / "results/stored/lstm_scaling-cpu-2-cores"
CROWDED = REPOSITORY / "results/stored/strategies_full-cpu-2-cores"
CHARTS = ("throughput", "efficiency", "memory-trade-off", "losses", "memory", "steps", "series")
HOSTILE = [
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><svg onload=alert(1)>",
    "[/red]",
    "\x1b[31mred\x1b[0m\x00",
    "$\\frac{$",
    "_hidden",
    "{{ 7 * 7 }}",
    '=HYPERLINK("http://example.org","x")',
    "\u202egnp.exe\uffff",
    "漢字 🙂",
    "x" * 100,
    "javascript:alert(1)",
    "&lt;script&gt;",
    " ",
]


class Page(HTMLParser):
    """What a browser makes of the page: its tags, ids, links and visible text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.text = ""
        self.source = path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data):
        self.text += data


def made_up(name="lstm", label="ddp", reason=None) -> Run:
    """A run in which everything is called `name`, and one cell failed because of it."""
    single = cell(workload=name)
    ddp, failed = cell("ddp", 2, workload=name, label=label), cell("fsdp", 2, workload=name, label=f"{label}2")
    trials = [reference(single)]
    for number in range(3):
        trials += [trial(single, number, window_s=2 + number / 20), trial(ddp, number, window_s=1 + number / 20)]
        trials.append(trial(failed, number, status="failed", reason=reason or "rank 0 failed"))
    scenario = {"name": name, "description": name, "workloads": {name: {"seq_len": 64}}, "strategies": ["single"]}
    record = run_record([single, ddp, failed], rounds=3, scenario=scenario, command=("parbench", "run", name))
    return Run(Path("made-up"), record, tuple(trials), (reason,) if reason else ())


def page_of(runs, folder, formats=("html",)) -> Page:
    return Page(write_report(runs, folder, formats))


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory) -> Page:
    return page_of([made_up()], tmp_path_factory.mktemp("ordinary"))


def test_the_stored_run_has_every_part_and_every_chart(tmp_path):
    stored = read_run(STORED)
    page = page_of([stored], tmp_path / "out", ("html", "png", "svg"))
    ids = page.ids
    assert [part for part in ids if part in ("verdict", "table", "charts", "measured", "glossary")] == [
        "verdict", "charts", "table", "measured", "glossary",
    ]  # fmt: skip
    for chart in CHARTS:
        assert f"lstm-strong-{chart}" in ids
        assert (tmp_path / f"out/charts/lstm-strong-{chart}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"out/charts/lstm-strong-{chart}.svg").read_text().startswith("<?xml")
    cells = cells_table(stored)
    for cell_ in cells.itertuples():
        assert f"{cell_.tokens_per_s:,.0f}" in page.text
        assert f"{cell_.speedup:.2f}×" in page.text
    for shown in ("task_pool", "fastest", "torch 2.13.0+cpu"):
        assert shown in page.text
    assert len([id_ for id_ in ids if id_.startswith("cell-")]) == len(cells)


def test_ids_are_unique_and_what_is_linked_exists(tmp_path):
    page = page_of([read_run(STORED), made_up()], tmp_path, ("html", "png"))
    assert len(set(page.ids)) == len(page.ids)
    for _, attributes in page.tags:
        for name in ("href", "xlink:href"):
            target = attributes.get(name) or ""
            if target.startswith("#"):
                assert target[1:] in page.ids
            elif target and not target.startswith("data:"):
                assert (tmp_path / target).is_file()
        for name in (attributes.get("aria-labelledby") or "").split():
            assert name in page.ids
    for used in re.findall(r"url\(#([^)]+)\)", page.source):
        assert used in page.ids


def test_a_page_of_78_cells_is_small_and_has_a_legend_in_none_of_its_charts(tmp_path):
    page = page_of([read_run(CROWDED)], tmp_path)
    assert len(page.source.encode()) < 1_500_000
    assert 'id="transformer-strong-ranking"' in page.source
    assert "Drawn: the fastest cell of each strategy and its options" in page.text


def test_two_runs_of_many_cells_have_a_chart_each(tmp_path):
    stored = read_run(CROWDED)
    page = page_of([stored, stored], tmp_path)
    assert len(set(page.ids)) == len(page.ids)
    for chart in ("ranking", "throughput", "efficiency"):
        assert {f"transformer-strong-{chart}", f"transformer-strong-{chart}-2"} <= set(page.ids)


def test_of_many_workloads_the_page_shows_the_first_sentence_of_each_verdict(tmp_path, monkeypatch):
    monkeypatch.setattr("parbench.report.page.write_verdict", lambda panel: [Markup("first"), Markup("second")])
    cells = [cell(workload=name) for name in "abc"]
    page = page_of([run(cells, [*map(reference, cells), *map(trial, cells)])], tmp_path / "many")
    assert page.text.count("More on ") == 3
    page = page_of([run(cells[:1], [reference(cells[0]), trial(cells[0])])], tmp_path / "one")
    assert "More on " not in page.text


def test_the_page_fetches_nothing(tmp_path):
    page = page_of([read_run(STORED)], tmp_path)
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "img")
        assert "src" not in attributes
        for name in ("href", "xlink:href", "action"):
            assert not re.match(r"(https?:)?//", attributes.get(name) or "")
    assert "@import" not in page.source
    assert not re.search(r"url\((?!#)", page.source)


def test_drawings_have_titles_descriptions_and_their_numbers(tmp_path):
    page = page_of([read_run(STORED)], tmp_path)
    drawings = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawings) == len([tag for tag, _ in page.tags if tag == "figcaption"]) >= len(CHARTS)
    assert all(attributes["role"] == "img" and attributes["aria-labelledby"] for attributes in drawings)
    assert page.source.count("The numbers as a table") == len(drawings)


def test_the_same_run_renders_to_the_same_bytes(tmp_path):
    runs = [read_run(STORED)]
    for name in ("a", "b"):
        write_report(runs, tmp_path / name, ("html", "png", "svg"))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) > 2 * len(CHARTS)
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_no_name_is_anything_but_text(text, ordinary, tmp_path):
    page = page_of([made_up(text, text, reason=text)], tmp_path / "hostile", ("html", "svg"))
    count = {tag: sum(name == tag for name, _ in page.tags) for tag in ("script", "img", "style", "svg", "iframe")}
    assert count == {tag: sum(name == tag for name, _ in ordinary.tags) for tag in count}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert not re.search(
        r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]", page.source
    )
    for _, attributes in page.tags:
        assert not (attributes.get("href") or "").startswith("javascript:")
    for drawing in (tmp_path / "hostile/charts").glob("*.svg"):
        root = Page(drawing)
        assert not {"script", "img", "iframe"} & {tag for tag, _ in root.tags}
        assert plain(text)[:20] in root.text
    folders = [path.name for path in tmp_path.rglob("*")]
    assert all(re.fullmatch(r"[a-z0-9.-]+", name) for name in folders)


def test_data_for_programs_is_json(tmp_path):
    page = page_of([made_up("</script>", "</script>")], tmp_path)
    block = page.source.partition('<script type="application/json" id="data">')[2].partition("</script>")[0]
    (table,) = json.loads(block, parse_constant=pytest.fail)
    assert [row["label"] for row in table["cells"]] == ["single", "</script>", "</script>2"]
    assert table["cells"][2]["speedup"] is None


def test_what_went_wrong_is_a_row_with_its_reason(tmp_path):
    cells = [cell(), cell("ddp", 2), cell("pp", 2, reason="too few blocks"), cell("dp", 2, emulated=True)]
    trials = [reference(), trial(), trial(cells[1], status="timed_out", reason="stuck in setup"), trial(cells[3])]
    page = page_of([run(cells, trials)], tmp_path)
    for shown in ("stuck in setup", "timed out", "too few blocks", "skipped", "emulated"):
        assert shown in page.text


@pytest.mark.parametrize("status", ["failed", "out_of_memory", "killed", "timed_out"])
def test_a_run_in_which_every_cell_failed_says_so(status, tmp_path):
    cells = [cell(), cell("ddp", 2)]
    page = page_of([run(cells, [trial(of, status=status, reason="alas") for of in cells])], tmp_path, ("html", "png"))
    assert f"No cell of lstm can be ranked: 2 {status.replace('_', ' ')}." in page.text
    assert "No cell was measured, so there is nothing to draw." in page.text
    assert page.text.count("alas") >= 2


def test_a_run_without_cells_or_trials_has_a_page(tmp_path):
    assert "planned no cells" in page_of([run()], tmp_path / "none").text
    assert "No cell of lstm can be ranked: 2 skipped" in page_of([run([cell(), cell("ddp", 2)])], tmp_path / "new").text


def test_a_single_cell_and_a_single_round_have_a_page(tmp_path):
    page = page_of([run([cell()], [reference(), trial()])], tmp_path)
    assert "no other cell" in page.text
    assert "Only 1 round:" in page.text


def test_several_runs_stand_side_by_side_with_what_their_environments_differ_in(tmp_path):
    def of(name, torch, window_s):
        trials = [trial(number=number, window_s=window_s * (1 + number / 100)) for number in range(3)]
        environment = {"speed": {"torch": torch, "physical_cores": 8, "variables": {"OMP": torch}}, "context": {}}
        record = run_record([cell()], rounds=3, id=name, environment=environment)
        return Run(Path(name), record, (reference(), *trials), ())

    page = page_of([of("before", "2.12", 2.0), of("after", "2.13", 1.0)], tmp_path)
    assert "The environments differ" in page.text
    assert "variables.OMP" in page.text
    assert "2.00× (faster)" in page.text
    assert {"run1-cell-lstm-single-1-strong", "run2-cell-lstm-single-1-strong"} <= set(page.ids)
    assert "lstm-strong-throughput" in page.ids
    same = [of("a", "2.12", 2.0), of("b", "2.12", 2.0)]
    text = page_of(same, tmp_path / "same").text
    assert "The environments agree" in text
    assert "1.00× (tie)" in text
    assert folder_name(same) == "a_vs_b"
    assert folder_name([*same, *same]) == "a_vs_3_more"


def test_environments_are_compared_though_runs_share_no_cell(tmp_path):
    def of(name, strategy, torch):
        record = run_record([cell(strategy, 2)], id=name, environment={"speed": {"torch": torch}, "context": {}})
        return Run(Path(name), record, (reference(), trial(cell(strategy, 2))), ())

    page = page_of([of("before", "ddp", "2.12"), of("after", "fsdp", "2.13")], tmp_path)
    assert "The environments differ" in page.text
    assert "The runs have no cell in common" in page.text
    assert "runs" in page.ids


def test_new_figures_of_the_registry_are_drawn_and_explained(tmp_path, monkeypatch):
    from parbench.figures.base import Figure
    from parbench.figures.definitions import FIGURES

    idle = Figure(
        name="idle_share", title="idle", unit="%", better="lower", meaning="What is not used.", of=lambda launch: 0.25
    )
    monkeypatch.setitem(FIGURES, "idle_share", idle)
    page = page_of([made_up()], tmp_path)
    assert "lstm-strong-idle-share" in page.ids
    assert "What is not used." in page.text
    assert "25 %" in page.text


def test_a_chart_of_another_package_that_cannot_be_imported_is_named_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setitem(CHART_KINDS.broken, "<b>odd</b>", "ImportError: no module named odd")
    page = page_of([made_up()], tmp_path)
    assert "The chart <b>odd</b> could not be imported: ImportError: no module named odd" in page.text


def test_memory_of_cuda_devices_is_stacked_by_kind(tmp_path):
    memory = MemoryRecord(devices=(DeviceMemory(allocated_peak=300 * 2**20, reserved_peak=400 * 2**20),))
    ranks = tuple(rank(number, jobs=(job(losses=LOSSES),), memory=memory) for number in range(2))
    page = page_of([run([cell()], [reference(), trial(ranks=ranks)])], tmp_path)
    assert "reserved beyond that" in page.text
    assert "300 MiB" in page.text
    assert "100 MiB" in page.text


def test_weak_and_strong_scaling_are_apart(tmp_path):
    cells = [cell(scaling=scaling, id=f"{scaling}/{n}", devices=n) for scaling in ("strong", "weak") for n in (1, 2)]
    page = page_of([run(cells, [reference(), *(trial(of) for of in cells)])], tmp_path)
    assert {"lstm-strong-throughput", "lstm-weak-throughput"} <= set(page.ids)


def test_names_with_the_same_slug_get_different_addresses(tmp_path):
    cells = [cell(workload="a b"), cell(workload="a-b"), cell(workload="漢字"), cell(workload="漢")]
    page = page_of([run(cells, [*map(reference, cells), *map(trial, cells)])], tmp_path)
    assert len(set(page.ids)) == len(page.ids)


def test_a_file_in_the_way_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="choose another with --out"):
        write_report([made_up()], tmp_path / "file" / "out")


def test_charts_alone(tmp_path):
    assert write_report([made_up()], tmp_path, ("png",)) == tmp_path / "charts"
    assert not (tmp_path / "index.html").exists()
    assert not list(tmp_path.rglob("*.svg"))


def test_charts_alone_of_a_run_without_any_are_a_sentence(tmp_path):
    failed = run([cell()], [trial(status="failed", reason="fell over")])
    with pytest.raises(NothingMeasuredError, match="no chart to write; the page says why: --format html"):
        write_report([failed], tmp_path, ("png",))


def test_what_a_cell_is_and_whether_it_counts_stands_before_its_figures():
    (view,) = view_runs([made_up()])
    titles = [column.title for column in make_columns([view])]
    assert titles[:5] == ["strategy", "devices", "status", "parity", "tokens/s"]
    several = view_runs([made_up(), made_up("gpt")])
    assert make_columns(several)[0].title == "workload"


def test_a_strategy_has_the_same_marker_on_the_page_as_in_the_terminal(tmp_path):
    stored = read_run(STORED)
    console = Console(file=io.StringIO(), width=300)
    print_table(cells_table(stored), console)
    page = page_of([stored], tmp_path).text
    for label, look in looks((each.strategy, each.label) for each in stored.record.cells).items():
        assert f"{look.glyph} {label}" in console.file.getvalue()
        assert f"{look.glyph} {label}" in page


def test_each_phase_has_a_section_of_its_own(tmp_path):
    cells = [
        cell(workload=name, phase=phase) for name, phase in (("a", "train"), ("a, score", "score"), ("b", "score"))
    ]
    page = page_of([run(cells, [*map(reference, cells), *map(trial, cells)])], tmp_path)
    for title in ("a, strong scaling", "a, score, strong scaling", "b (score), strong scaling"):
        assert title in page.text
    assert {"a-strong-throughput", "a-score-strong-throughput", "b-strong-throughput"} <= set(page.ids)
