"""What the report says of energy: a chart where it is known, the reason where it is not, and nothing of older runs."""

from pathlib import Path

from parbench.records.energy import EnergyRecord, GpuReadings, PackageReadings, Reading, counted, sampled, unavailable
from parbench.records.trial import GpuSurroundings, RankRecord, SurroundingsRecord
from parbench.report.charts.energy import HEADER, Energy
from parbench.report.drawing.chart import Chart, to_svg
from parbench.report.page import write_report
from parbench.report.panels import Panel, view_runs
from parbench.results.store import Run
from tests.support.records import cell, job, rank, reference, run, trial

SINGLE, DDP = cell(device_kind="cuda"), cell("ddp", 2, device_kind="cuda")
UNREADABLE = unavailable("/sys/class/powercap/x cannot be read here")


def reader(joules: Reading, *, window_s: float = 2.0, machine: Reading = UNREADABLE) -> RankRecord:
    gpu = GpuReadings(uuid="GPU-1", energy_j=joules, utilization=sampled(0.9, 12), clock_mhz=sampled(1650.0, 2))
    packages = PackageReadings(machine="m", energy_j=machine)
    return rank(
        jobs=(job(window_s=window_s),),
        energy=EnergyRecord(seconds=2.0, gpus=(gpu,), packages=packages),
        surroundings=SurroundingsRecord(
            window_s=2.0, gpus=(GpuSurroundings(uuid="GPU-1", throttled_s={"power limit": 1.0, "heat": 0.0}),)
        ),
    )


def run_of(single: Reading, ddp: Reading, **changes: object) -> Run:
    cells = [cell_.model_copy(update=changes) for cell_ in (SINGLE, DDP)]
    readings = zip(cells, (single, ddp), strict=True)
    return run(cells, [reference(cells[0]), *(trial(of, ranks=(reader(joules),)) for of, joules in readings)])


def chart_of(made: Run) -> Chart:
    ((panel,),) = [view.panels for view in view_runs([made])]
    (chart,) = Energy.draw(panel, "lstm")
    assert "<svg" in to_svg(chart)
    return chart


def test_every_cell_with_its_meters_is_in_the_table_with_sources() -> None:
    chart = chart_of(run_of(counted(1280.0), sampled(640.0, 90)))
    assert (chart.id, chart.name, tuple(chart.header)) == ("lstm-tokens-per-joule", "Tokens per joule", HEADER)
    own, of_packages, *others = chart.rows
    assert own == [
        "single", "1", "4.00 tokens/J (counter)", "GPU-1", "1,280 J (counter)", "640 W (counter)", "90 % (sampled)",
        "1,650 MHz (sampled)", "power limit 50 % (counter)",
    ]  # fmt: skip
    assert of_packages[3:] == ["packages of here", "unavailable", "unavailable", "–", "–", "–"]
    assert [row[:3] for row in others] == [["ddp", "2", "8.00 tokens/J (sampled)"]] * 2
    assert chart.caption.endswith(" Source here: counter, sampled.")


def test_cells_whose_energy_is_unavailable_are_counted_below_the_chart() -> None:
    chart = chart_of(run_of(counted(1280.0), unavailable("a slice has none")))
    assert chart.caption.endswith(" Source here: counter. The energy of 1 cell is unavailable: a slice has none.")
    assert [row[2] for row in chart.rows] == ["4.00 tokens/J (counter)"] * 2 + ["unavailable"] * 2


def test_where_no_energy_is_known_the_reason_stands_in_place_of_the_chart(tmp_path: Path) -> None:
    made = run_of(counted(1.0), counted(1.0), device_kind="cpu")
    chart = chart_of(made)
    sentence = f"The energy of 2 cells is unavailable: {UNREADABLE.reason}."
    assert chart.alt == sentence
    (drawn,) = chart.figure.texts
    assert drawn.get_text().replace("\n", " ") == sentence
    page = write_report([made], tmp_path, ("html",)).read_text()
    assert 'id="lstm-strong-tokens-per-joule"' in page
    assert sentence in page


def test_runs_of_versions_that_read_no_meters_have_neither() -> None:
    cells = [cell(), cell("ddp", 2)]
    ((panel,),) = [view.panels for view in view_runs([run(cells, [reference(), *map(trial, cells)])])]
    assert isinstance(panel, Panel)
    assert list(Energy.draw(panel, "lstm")) == []


def test_the_page_shows_what_tokens_cost_in_the_scenarios_currency(tmp_path: Path) -> None:
    priced = run_of(counted(1280.0), counted(640.0), price_per_device_hour=9.216, currency="€")
    page = write_report([priced], tmp_path, ("html",)).read_text()
    # 2,560 tokens/s are 9.216 million an hour: a million costs 1 on one device, 2 on two of the same speed.
    assert "1.00 (€)" in page
    assert "2.00 (€)" in page
    assert 'id="lstm-strong-cost-per-million-tokens"' in page
