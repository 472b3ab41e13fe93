"""Traces that are damaged, or not what they are taken for."""

import gzip
import json

import pytest

from parbench.errors import ResultsError
from parbench.records.account import trace_file
from parbench.results.store import Run
from parbench.results.traces import merge_traces
from tests.support.records import cell, rank, run_record, trial

DDP = cell("ddp", 2)


@pytest.fixture
def traced(tmp_path):
    """A run of one cell on two ranks, and a function that writes a rank's trace."""
    of = trial(DDP, ranks=(rank(0), rank(1)))
    folder = tmp_path / "trials" / f"r000-{DDP.key}"
    folder.mkdir(parents=True)

    def write(number, content):
        data = content if isinstance(content, bytes) else gzip.compress(json.dumps(content).encode())
        trace_file(folder, number).write_bytes(data)

    return Run(tmp_path, run_record([DDP]), (of,), ()), write


def events(*values):
    return {"traceEvents": list(values)}


def meeting(ts, dur):
    return {"ph": "X", "name": "parbench::meet", "pid": 99, "tid": 1, "ts": ts, "dur": dur}


def test_times_begin_at_the_meeting_of_each_rank(traced) -> None:
    run, write = traced
    for number, start in ((0, 1000.0), (1, 777000.0)):
        step = {"ph": "X", "name": "parbench::step", "pid": 99, "tid": 1, "ts": start + 25, "dur": 5}
        write(number, events(meeting(start, 20), step, {"ph": "s", "id": 3, "pid": 99, "tid": 1, "ts": start + 26}))
    merged = json.loads(gzip.decompress(merge_traces(run, DDP).read_bytes()))["traceEvents"]
    assert [each["ts"] for each in merged if each.get("name") == "parbench::step"] == [5, 5]
    assert {each["pid"] for each in merged} == {0, 1}
    assert [each["id"] for each in merged if "id" in each] == ["0-3", "1-3"]


def test_a_rank_whose_trace_is_elsewhere_is_left_out(traced) -> None:
    run, write = traced
    write(1, events(meeting(0, 1)))
    merged = json.loads(gzip.decompress(merge_traces(run, DDP).read_bytes()))["traceEvents"]
    assert {each["pid"] for each in merged} == {1}


DAMAGED = {
    "empty": b"",
    "no gzip": b"no gzip",
    "no json": gzip.compress(b"no json"),
    "a list": gzip.compress(b"[]"),
    "no events": gzip.compress(b'{"traceEvents": [3]}'),
    "cut short": gzip.compress(b'{"traceEvents": []}')[:-6],
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_a_sentence(traced, content) -> None:
    run, write = traced
    write(0, content)
    with pytest.raises(ResultsError, match="holds no trace that can be read"):
        merge_traces(run, DDP)


def test_a_link_is_not_followed(traced, tmp_path) -> None:
    run, write = traced
    write(0, events(meeting(0, 1)))
    path = trace_file(run.folder / "trials" / f"r000-{DDP.key}", 0)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ResultsError, match="has no trace of"):
        merge_traces(run, DDP)


def test_names_of_cells_do_not_become_paths(traced) -> None:
    run, write = traced
    write(0, events(meeting(0, 1)))
    wild = DDP.model_copy(update={"id": "../../etc/passwd"})
    path = merge_traces(run, wild)
    assert path.parent == run.folder / "traces"
