"""Launcher slurm without SLURM: what ranks are told, what travels over a step, and what a job's script runs."""

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parbench.cli.options import BatchCommand
from parbench.errors import LaunchError, ResultsError, UsageError
from parbench.launch.base import BatchJob
from parbench.launch.slurm import commands, launcher, node_task, rank_task
from parbench.launch.slurm.batch import sbatch_command, write_script
from parbench.launch.slurm.messages import MESSAGE, FilePiece, Meeting, NodeReport, RankEnd, split_file
from parbench.launch.slurm.rank_task import tasks_per_node, torchrun_variables
from parbench.records.node import NodeRecord
from parbench.system.devices import Machine
from parbench.system.environment import capture
from tests.support.records import assignment
from tests.support.waiting import PATIENCE_S

HOSTILE = ["a b", "$(touch owned)", "'; exit 7; '", '"', "new\nline #SBATCH --wrap=x", "`id`", "\\", "*", "é", "--x=%j"]


def test_a_rank_is_told_in_torchruns_words_what_slurm_tells_its_task() -> None:
    slurm_says = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_NODEID": "2",
        "SLURM_STEP_NUM_TASKS": "6",
        "SLURM_STEP_TASKS_PER_NODE": "2(x3)",
    }
    told = torchrun_variables(slurm_says, Meeting(address="127.0.0.1", port=1234))
    assert told == {
        "RANK": "5",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "6",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "1234",
        "PARBENCH_LISTENER": "1",
        "GLOO_SOCKET_IFNAME": "lo",
        "NCCL_SOCKET_IFNAME": "lo",
    }
    chosen = torchrun_variables({**slurm_says, "GLOO_SOCKET_IFNAME": "ib0"}, Meeting(address="127.0.0.1", port=1))
    assert chosen["GLOO_SOCKET_IFNAME"] == "ib0"


@pytest.mark.parametrize(
    ("text", "numbers"), [("1", [1]), ("2(x3)", [2, 2, 2]), ("2(x3),1", [2, 2, 2, 1]), ("4,3(x2)", [4, 3, 3])]
)
def test_slurm_writes_equal_numbers_once(text: str, numbers: list[int]) -> None:
    assert tasks_per_node(text) == numbers


def test_a_file_travels_in_lines_that_srun_does_not_break() -> None:
    content = bytes(range(256)) * 20
    lines = [part.model_dump_json() for part in split_file(123456, "log", content)]
    assert max(map(len, lines)) < 1000
    told = [MESSAGE.validate_json(line) for line in lines]
    assert b"".join(part.data for part in told if isinstance(part, FilePiece)) == content


@pytest.mark.parametrize(
    ("granted", "cores"), [(1, [(0, 4)]), (2, [(0, 4)]), (3, [(0, 4)]), (6, [(0, 4), (1, 5), (2, 6)])]
)
def test_no_more_cores_are_used_than_slurm_granted(
    monkeypatch: pytest.MonkeyPatch, granted: int, cores: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(node_task, "detect", lambda: Machine(cores=((0, 4), (1, 5), (2, 6), (3, 7))))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", str(granted))
    assert list(node_task.detect_allocation().cores) == cores


def test_each_task_pins_its_rank_on_its_own_node(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Machine(cores=((0,), (1,), (2,), (3,)), gpus=2, gpu_cpus=((2, 3), (0, 1)))
    monkeypatch.setattr(rank_task, "detect_allocation", lambda: here)
    on_cpu = assignment(threads=2)
    on_gpus = assignment(device_kind="cuda", cores=(), rank_cores=((0, 1), (2, 3)))
    assert rank_task.localize(on_cpu).cores == ((0, 1), (2, 3))
    assert rank_task.localize(on_gpus).rank_cores == ((2, 3), (0, 1))


def test_nodes_with_different_software_are_refused_by_name() -> None:
    def report(torch: str = "2.13.0", code: str = "c") -> NodeReport:
        environment = capture().model_dump(mode="json")
        return NodeReport(
            record=NodeRecord(node=0, host="h", address="a", machine="m"),
            cores=((0,),),
            gpus=0,
            compute_capability=None,
            environment={**environment, "speed": {**environment["speed"], "torch": torch}},
            code=code,
            lacks=(),
            clock_s=0.0,
        )

    launcher.require_same_software({"n1": report(), "n2": report()}, "c")
    with pytest.raises(UsageError, match=r"n1 has parbench .*, torch 2\.13\.0, .*; n2 has parbench .*, torch 2\.12\.1"):
        launcher.require_same_software({"n1": report(), "n2": report("2.12.1")}, "c")
    with pytest.raises(UsageError, match="n2 has other code than this process"):
        launcher.require_same_software({"n1": report(), "n2": report(code="d")}, "c")


def test_the_code_of_plug_ins_belongs_to_what_nodes_must_have_in_common(monkeypatch: pytest.MonkeyPatch) -> None:
    before = node_task.measuring_code()
    assert node_task.measuring_code() == before
    monkeypatch.setattr(node_task.STRATEGIES, "classes", lambda: {"own": type(NodeRecord)})
    assert node_task.measuring_code() != before


SRUN = """#!/bin/sh
for word; do case $word in --input=*) input=${word#--input=};; esac; done
while [ "$1" != sh ]; do shift; done
head -c $BYTES "$input" | "$@" || exit
sleep $SECONDS_MORE
"""


@pytest.mark.parametrize(
    ("sent", "more_s", "patience_s", "sentence"),
    [
        (9, 0, PATIENCE_S, None),
        (3, 0, PATIENCE_S, "cannot be copied to node n2"),
        (9, 60, 3.0, r"could not be copied to node n2 within 3 s"),
    ],
)
def test_a_file_reaches_a_node_whole_and_in_time_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: int, more_s: int, patience_s: float, sentence: str | None
) -> None:
    """Here `srun` is a script that breaks off; the commands that it runs are the real ones."""
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("BYTES", str(sent))
    monkeypatch.setenv("SECONDS_MORE", str(more_s))
    monkeypatch.setattr(commands, "PATIENCE_S", patience_s)
    data = tmp_path / "data"
    data.write_bytes(b"123456789")
    before = data.stat().st_ino
    with pytest.raises(LaunchError, match=sentence) if sentence else contextlib.nullcontext():
        commands.copy_to_node(data, "n2")
    assert data.read_bytes() == b"123456789"
    assert (data.stat().st_ino == before) == (sent < 9)
    assert {path.name for path in tmp_path.iterdir()} == {"data", "srun"}


def job_in(folder: Path, *words: str) -> BatchJob:
    told = "import json, sys; print(json.dumps(sys.argv[1:]))"
    return BatchJob(name="a;b\n", folder=folder, command=(sys.executable, "-c", told, *words), options=("--nodes=2",))


def test_whatever_a_campaign_is_called_its_script_runs_its_words_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "50 % of $HOME"
    job = job_in(folder, *HOSTILE)
    ended = subprocess.run([write_script(job)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == HOSTILE
    assert list(tmp_path.iterdir()) == [folder]
    *ours, options, script = sbatch_command(job)
    assert "--job-name=parbench-a-b-" in ours
    assert f"--output={tmp_path}/50 %% of $HOME/slurm-%j.log" in ours
    assert (options, script) == ("--nodes=2", str(folder / "job.sh"))


def test_a_script_is_written_anew_and_never_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "job.sh").symlink_to("mine")
    for words in (["a"], ["b"]):
        script = write_script(job_in(tmp_path, *words))
        assert json.loads(subprocess.run([script], capture_output=True, check=True).stdout) == words
    assert (tmp_path / "mine").read_text() == "mine"


def test_a_script_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match=r"results cannot be kept in .*/file/out: "):
        write_script(job_in(tmp_path / "file" / "out"))
    (tmp_path / "job.sh").mkdir()
    with pytest.raises(ResultsError, match=f"results cannot be written to {tmp_path}: "):
        write_script(job_in(tmp_path))


@pytest.mark.parametrize(
    ("words", "names", "options"),
    [
        (["a", "--submit", "--", "--nodes=2", "-N", "2"], ("a",), ("--nodes=2", "-N", "2")),
        (["--submit", "a"], ("a",), ()),
        (["a", "--", "--submit"], ("a", "--submit"), ()),
    ],
)
def test_what_follows_two_dashes_is_for_the_batch_system(
    words: list[str], names: tuple[str, ...], options: tuple[str, ...]
) -> None:
    heard = []

    @click.command(cls=BatchCommand)
    @click.argument("names", nargs=-1)
    @click.option("--submit", is_flag=True)
    def command(names: tuple[str, ...], submit: bool, batch_options: tuple[str, ...]) -> None:
        heard.append((names, batch_options))

    assert CliRunner().invoke(command, words).exit_code == 0
    assert heard == [(names, options)]


def test_what_a_plug_in_prints_is_no_message() -> None:
    code = (
        "from parbench.launch.slurm.messages import Channel, RankEnd\n"
        "channel = Channel()\n"
        "print('loading', end='', flush=True)\n"
        "channel.send(RankEnd(rank=3))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert MESSAGE.validate_json(ended.stdout) == RankEnd(rank=3)
    assert ended.stderr == "loading"
