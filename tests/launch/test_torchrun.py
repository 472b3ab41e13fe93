"""The torchrun launcher between hosts that share neither a network nor a folder: namespaces on a switch."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from parbench.launch.secret import VARIABLE
from parbench.results.store import Run, read_run
from tests.conftest import CommandLine, python_path
from tests.faults.scenarios import trials_of, under_deadline
from tests.launch.hosts import SECRET, Host, hosts, restore, together
from tests.support.waiting import PATIENCE_S, ending, wait_for

SCENARIO = """\
workloads:
  gpt:
    model: {kind: transformer, layers: 2, d_model: 16, heads: 2}
    data: {source: synthetic, vocab_size: 64, tokens: 20000}
    seq_len: 16
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: [single]
measure: {rounds: 1, warmup: 1, window_s: 0.2, deadline_s: 600}
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Host]]:
    """Two hosts on a link of 200 Mbit/s, each with the scenario in its own folder."""
    try:
        with hosts(2, tmp_path_factory.mktemp("pair"), "200mbit") as found:
            yield _with_scenario(found)
    except LookupError as reason:
        pytest.skip(f"no hosts here: {reason}")


@pytest.fixture
def pair(both: list[Host]) -> Iterator[list[Host]]:
    """The two hosts, on which nothing runs that another test has started."""
    yield both
    restore(both)


@pytest.fixture
def four(tmp_path: Path) -> Iterator[list[Host]]:
    try:
        with hosts(4, tmp_path) as found:
            yield _with_scenario(found)
    except LookupError as reason:
        pytest.skip(f"no hosts here: {reason}")


def _with_scenario(found: list[Host]) -> list[Host]:
    for host in found:
        (host.folder / "nodes.yaml").write_text(SCENARIO)
    return found


def ended(nodes: Sequence[subprocess.Popen[str]]) -> list[tuple[int, str, str]]:
    """Exit code, output and messages of every node, once all have ended."""
    said = [node.communicate(timeout=PATIENCE_S) for node in nodes]
    return [(node.returncode, *each) for node, each in zip(nodes, said, strict=True)]


def sets(**changes: object) -> list[str]:
    return [word for path, value in changes.items() for word in ("--set", f"{path.replace('__', '.')}={value}")]


def stage_of(host: Host, out: str, cell: str) -> str | None:
    """How far rank 0 of the trial that runs now has come, if it is of this cell."""
    for folder in (host.folder / out / "trials").glob("r*"):
        try:
            if json.loads((folder / "cell.json").read_text())["cell"] == cell:
                stage = json.loads((folder / "rank0.json").read_text())["stage"]
                return str(stage) if stage != "done" else None
        except (OSError, ValueError):
            continue
    return None


def of_cell(found: Run, cell: str) -> list[tuple[str, str | None]]:
    return [(each.status, each.reason) for each in found.trials if each.cell == cell and each.purpose == "measure"]


def wait_for_window(nodes: Sequence[subprocess.Popen[str]], host: Host, out: str) -> None:
    """Until the trial across both hosts is being measured."""
    wait_for(lambda: stage_of(host, out, "gpt/ddp/2") == "window", "the window", ended=lambda: ending(*nodes))


def wait_until_alone(found: Sequence[Host]) -> None:
    """Until nothing runs on these hosts any more."""
    wait_for(lambda: not any(host.processes() for host in found), "the end of all processes")


def test_a_campaign_on_two_hosts(pair):
    strategies = sets(strategies="[single, data_parallel, ddp, hybrid, task_pool]")
    first, second = ended(together(pair, "nodes.yaml", *strategies, "--out", "whole", cpus="0,1"))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "4 (2 nodes)" in first[1]
    assert (second[1], "node 0 keeps the results" in second[2]) == ("", True)
    assert not (pair[1].folder / "whole").exists()

    found = read_run(pair[0].folder / "whole")
    assert [(node.host, node.address, node.interface, node.shaped_mbit) for node in found.record.nodes] == [
        ("host0", "10.77.0.1", "eth0", 200.0),
        ("host1", "10.77.0.2", "eth0", 200.0),
    ]
    assert (found.record.launcher, found.record.emulated_nodes, found.record.link_mbit) == ("torchrun", True, 200.0)
    assert {trial.status for trial in found.trials} == {"ok"}
    cells = {cell.id: cell for cell in found.record.cells}
    assert cells["gpt/data_parallel/4"].reason == "one process drives 4 devices, and a node has 2 of them"
    split = next(cell for cell in cells.values() if "data 2 across nodes × pipeline 1 × tensor 2" in cell.layout)
    placed = {
        trial.cell: [(rank.rank, rank.host, rank.node, rank.local_rank) for rank in trial.ranks]
        for trial in found.trials
    }
    assert placed["gpt/ddp/2"] == [(0, "host0", 0, 0), (1, "host0", 0, 1)]
    assert placed[split.id] == placed["gpt/ddp/4"]
    assert placed[split.id] == [(0, "host0", 0, 0), (1, "host0", 0, 1), (2, "host1", 1, 0), (3, "host1", 1, 1)]
    wait_until_alone(pair)


def test_hosts_may_meet_at_an_ipv6_address(pair):
    options = sets(strategies="[ddp]", devices__counts="[2]")
    said = ended(together(pair, "nodes.yaml", *options, "--out", "ipv6", address=f"[{pair[0].address6}]"))
    assert [code for code, _, _ in said] == [0, 0], said
    found = read_run(pair[0].folder / "ipv6")
    assert [(node.address, node.interface) for node in found.record.nodes] == [("fd77::1", "eth0"), ("fd77::2", "eth0")]
    assert [(trial.cell, trial.status) for trial in found.trials if trial.purpose == "measure"] == [("gpt/ddp/2", "ok")]
    wait_until_alone(pair)


def test_a_host_that_is_cut_off_fails_its_cell_and_takes_part_again_when_it_is_back(pair):
    cell, out = "gpt/ddp/2", pair[0].folder / "cut"
    options = sets(strategies="[single, ddp]", measure__rounds=200, measure__window_s=0.5, devices__counts="[2]")
    nodes = together(pair, "nodes.yaml", *options, "--out", out.name)

    def ends() -> list[str]:
        return [each["status"] for each in trials_of(out) if (each["cell"], each["purpose"]) == (cell, "measure")]

    wait_for_window(nodes, pair[0], out.name)
    pair[1].cut()
    wait_for(lambda: "failed" in ends(), "what the cut does", ended=lambda: ending(*nodes))
    pair[1].mend()
    # It has as many rounds as it needs to come back, and once it has there need be no more.
    wait_for(lambda: ends()[-1] == "ok", "the other host", ended=lambda: ending(*nodes))
    nodes[0].send_signal(signal.SIGINT)
    first, second = ended(nodes)
    assert (first[0], second[0]) == (130, 3), first[2] + second[2]
    assert "node 0 has ended the campaign: Interrupted by SIGINT" in second[2]

    found = read_run(out)
    spanning = of_cell(found, cell)
    failed = [reason for status, reason in spanning if status == "failed"]
    assert {status for status, _ in spanning} == {"failed", "ok"}
    assert all(reason and reason.startswith("node 1 (host1) was lost: ") for reason in failed)
    assert {status for status, _ in of_cell(found, "gpt/single/1")} == {"ok"}
    wait_until_alone(pair)


def test_nodes_notice_when_one_of_them_is_killed(pair):
    options = sets(strategies="[ddp]", measure__rounds=2, measure__window_s=300, devices__counts="[2]")
    nodes = together(pair, "nodes.yaml", *options, "--out", "killed")
    wait_for_window(nodes, pair[0], "killed")
    os.kill(nodes[1].pid, signal.SIGKILL)
    first, _ = ended(nodes)
    assert first[0] == 3
    reasons = [reason for status, reason in of_cell(read_run(pair[0].folder / "killed"), "gpt/ddp/2")]
    assert reasons == ["node 1 (host1) was lost: hung up"] * 2
    wait_until_alone(pair)

    nodes = together(pair, "nodes.yaml", *options, "--out", "killed-too")
    wait_for_window(nodes, pair[0], "killed-too")
    os.kill(nodes[0].pid, signal.SIGKILL)
    _, second = ended(nodes)
    assert (second[0], second[2].splitlines()[-1]) == (3, "node 0 hung up before the campaign was over, and is gone")
    wait_until_alone(pair)


def test_faults_of_a_rank_on_another_host_are_told_as_those_of_one_here(pair, foreign_package):
    for host in pair:
        host.environment["PYTHONPATH"] = python_path(foreign_package)
    faults = "[" + ", ".join(f"{{misbehaving: {{how: {how}}}}}" for how in ("raise", "kill", "offspring", "hang")) + "]"

    def run(deadline_s: float) -> Path:
        options = sets(strategies=faults, devices__counts="[2]", measure__deadline_s=deadline_s)
        first, second = ended(together(pair, "nodes.yaml", *options, "--out", f"faults-{deadline_s}"))
        assert (first[0], second[0]) == (3, 0), first[2] + second[2]
        return pair[0].folder / f"faults-{deadline_s}"

    found = read_run(under_deadline(run, 20))
    ends = {trial.cell: (trial.status, str(trial.reason)) for trial in found.trials if trial.purpose == "measure"}
    assert ends["gpt/misbehaving(how=raise)/2"] == (
        "failed",
        "rank 1 failed in warm-up: RuntimeError: the third step always fails",
    )
    assert ends["gpt/misbehaving(how=kill)/2"] == ("killed", "rank 1 was ended by SIGKILL in warm-up")
    assert ends["gpt/misbehaving(how=hang)/2"][0] == "timed_out"
    assert ends["gpt/misbehaving(how=hang)/2"][1].endswith(" was in warm-up")
    measured = (trial for trial in found.trials if trial.purpose == "measure")  # a proof of the cell hangs as well
    (hung,) = (trial for trial in measured if trial.cell == "gpt/misbehaving(how=hang)/2")
    assert "[rank 1]" in hung.log_tail
    assert "in misbehave" in hung.log_tail, f"no stack in {hung.log_tail}"
    wait_until_alone(pair)


def test_four_hosts_of_which_a_cell_needs_two(four):
    options = sets(strategies="[ddp]", devices__counts="[2, 4, 8]")
    said = ended(together(four, "nodes.yaml", *options, "--out", "four"))
    assert [code for code, _, _ in said] == [0] * 4, said
    found = read_run(four[0].folder / "four")
    placed = {trial.cell: [rank.host for rank in trial.ranks] for trial in found.trials if trial.status == "ok"}
    assert placed["gpt/ddp/2"] == ["host0", "host1"]
    assert placed["gpt/ddp/4"] == ["host0", "host1", "host2", "host3"]
    reasons = {cell.devices: cell.reason for cell in found.record.cells}
    assert reasons == {2: None, 4: None, 8: "needs 8 devices; granted are 4 × 1"}
    wait_until_alone(four)


def test_a_rendezvous_that_cannot_be_reached_is_bad_usage(parbench: CommandLine, tmp_path: Path):
    (tmp_path / "nodes.yaml").write_text(SCENARIO)
    parbench.environment[VARIABLE] = SECRET
    where = ("--launcher", "torchrun", "--nodes", 2, "--rendezvous", "127.0.0.1:9", "--rendezvous-timeout", 1)
    there = parbench("run", "nodes.yaml", *where, "--node-rank", 1)
    assert there.returncode == 2
    assert "the rendezvous 127.0.0.1:9 cannot be reached within 1 s: " in there.stderr
    elsewhere = ("--launcher", "torchrun", "--nodes", 2, "--rendezvous", "192.0.2.1:29400")
    here = parbench("run", "nodes.yaml", *elsewhere, "--node-rank", 0)
    assert here.returncode == 2
    assert "node 0 cannot listen at the rendezvous 192.0.2.1:29400: " in here.stderr


def test_the_plan_shows_nodes_and_starts_nothing(parbench: CommandLine, tmp_path: Path):
    (tmp_path / "nodes.yaml").write_text(SCENARIO)
    where = ("--launcher", "torchrun", "--nodes", 2, "--node-rank", 0, "--rendezvous", "192.0.2.1:29400")
    planned = parbench("plan", "nodes.yaml", *sets(strategies="[ddp]", devices__kind="cpu"), *where)
    assert planned.returncode == 0, planned.stderr
    assert "cpu (2 nodes × " in planned.stdout
