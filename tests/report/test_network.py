"""Runs of one scenario at several link rates: one chart, and every place that must say that hosts are emulated."""

from pathlib import Path

import pytest

from parbench.export.cells import cells_document
from parbench.export.markdown import Markdown
from parbench.records.node import NodeRecord
from parbench.report.cautions import collect_cautions
from parbench.report.charts.network import Network
from parbench.report.page import write_report
from parbench.report.panels import view_runs
from parbench.results.store import Run
from parbench.results.tables import cells_table
from tests.support.records import cell, run_record, trial


def node(number: int, mbit: float | None, **changes: object) -> NodeRecord:
    values = {"interface": "eth0", "interface_mbit": 10_000, "shaped_mbit": mbit, "machine": "one", **changes}
    return NodeRecord(node=number, host=f"host{number}", address=f"10.0.0.{number + 1}", **values)


def at(mbit: float | None, ddp_s: float, **changes: object) -> Run:
    """A run in which ddp on two nodes takes `ddp_s` for what one device does in two seconds."""
    single, ddp = cell("single"), cell("ddp", 2, nodes=2)
    trials = [
        trial(single, purpose="reference", key=single.reference),
        trial(single, window_s=2.0),
        trial(ddp, window_s=ddp_s),
    ]
    nodes = tuple(node(number, mbit, **changes) for number in range(2))
    return Run(Path("made-up"), run_record([single, ddp], nodes=nodes, launcher="torchrun"), tuple(trials), ())


def panels(*runs: Run):
    return [panel for view in view_runs(runs) for panel in view.panels]


def test_speedups_at_each_rate_are_a_line_from_the_slowest_link_to_the_fastest():
    (chart,) = Network.draw(panels(at(1000.0, 1.0), at(50.0, 8.0)), "lstm")
    assert [row[2:4] for row in chart.rows] == [["50 Mbit/s", "0.25×"], ["1 Gbit/s", "2.00×"]]
    assert {row[0] for row in chart.rows} == {"ddp (emulated hosts)"}
    assert "emulated" in chart.caption


@pytest.mark.parametrize("rates", [(), (50.0,), (50.0, 50.0)])
def test_there_is_no_chart_of_one_rate(rates):
    assert list(Network.draw(panels(*(at(rate, 1.0) for rate in rates)), "lstm")) == []


def test_a_link_is_as_fast_as_its_slowest_end_and_unknown_where_one_end_is():
    assert at(50.0, 1.0).record.link_mbit == 50.0
    assert at(None, 1.0).record.link_mbit == 10_000
    assert at(None, 1.0, interface_mbit=None).record.link_mbit is None


def test_emulated_hosts_are_named_in_table_and_page(tmp_path):
    emulated = at(50.0, 1.0)
    table = Markdown().write(cells_document(cells_table(emulated)))
    assert "ddp (emulated hosts) | 2 (2 nodes)" in table
    assert "single (emulated hosts)" not in table
    page = write_report([emulated], tmp_path, ["html"]).read_text()
    assert "The hosts are emulated" in page
    assert "host1, 10.0.0.2, eth0, 10,000 Mbit/s, limited to 50 Mbit/s" in page
    real = emulated.record.model_copy(update={"nodes": (node(0, None, machine="a"), node(1, None, machine="b"))})
    assert not real.emulated_nodes


def test_nodes_that_differ_and_clocks_that_differ_are_warned_of():
    odd = at(50.0, 1.0, differs=("cpu_model",), clock_offset_s=-90.0)
    (view,) = view_runs([odd])
    texts = " ".join(caution.text for caution in collect_cautions(view))
    assert "Node 1 (host1) differs from node 0 in cpu_model." in texts
    assert "The clock of node 1 (host1) is -90 s from node 0's." in texts
