from parbench.report.panels import view_runs
from parbench.report.verdict import write_verdict
from parbench.verdict.verdict import verdicts_on
from tests.support.records import cell, reference, run, trial


def test_the_page_says_what_the_terminal_says():
    single, ddp = cell(), cell("ddp", 2)
    trials = [
        trial(of, number, window_s=size * (1 + number / 50))
        for of, size in ((single, 2.0), (ddp, 1.0))
        for number in (0, 1, 2)
    ]
    stored = run([single, ddp], [reference(single), *trials], rounds=3)
    (view,), (verdict,) = view_runs([stored]), verdicts_on(stored)
    (panel,) = view.panels
    assert [sentence.striptags() for sentence in write_verdict(panel)] == [line.text for line in verdict.lines]
    assert "<code>ddp</code> trains <code>lstm</code> fastest" in write_verdict(panel)[0]


def test_names_are_escaped():
    hostile = "</script><script>alert(1)</script>"
    single, ddp = cell(workload=hostile), cell("ddp", 2, workload=hostile, label=hostile)
    trials = [trial(of, number, window_s=size) for of, size in ((single, 2.0), (ddp, 1.0)) for number in (0, 1, 2)]
    (view,) = view_runs([run([single, ddp], [reference(single), *trials], rounds=3)])
    html = " ".join(write_verdict(view.panels[0]))
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)" in html
