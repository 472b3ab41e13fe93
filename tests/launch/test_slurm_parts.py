"""Launcher slurm without SLURM: what ranks are told, what travels over a step, and what a job's script runs."""

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from parbench.batch_options import BatchCommand
from parbench.devices import Machine
from parbench.environment import capture
from parbench.errors import UsageError
from parbench.launch import slurm, slurm_node
from parbench.launch.base import Job
from parbench.launch.slurm_batch import sbatch_words, write_script
from parbench.launch.slurm_messages import MESSAGE, Meeting, NodeReport, Part, content_of, parts
from parbench.launch.slurm_task import tasks_per_node, torchrun_variables
from parbench.results.trial import NodeRecord

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
    lines = [part.model_dump_json() for part in parts(123456, "log", content)]
    assert max(map(len, lines)) < 1000
    told = [MESSAGE.validate_json(line) for line in lines]
    assert b"".join(content_of(part) for part in told if isinstance(part, Part)) == content


@pytest.mark.parametrize(
    ("granted", "cores"), [(1, [(0, 4)]), (2, [(0, 4)]), (3, [(0, 4)]), (6, [(0, 4), (1, 5), (2, 6)])]
)
def test_no_more_cores_are_used_than_slurm_granted(
    monkeypatch: pytest.MonkeyPatch, granted: int, cores: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(slurm_node, "detect", lambda: Machine(cores=((0, 4), (1, 5), (2, 6), (3, 7))))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", str(granted))
    assert list(slurm_node.granted().cores) == cores


def test_nodes_with_different_software_are_refused_by_name() -> None:
    def report(torch: str) -> NodeReport:
        environment = capture().model_dump(mode="json")
        return NodeReport(
            record=NodeRecord(node=0, host="h", address="a", machine="m"),
            cores=((0,),),
            gpus=0,
            compute_capability=None,
            environment={**environment, "speed": {**environment["speed"], "torch": torch}},
            lacks=(),
            clock_s=0.0,
        )

    slurm.require_same_software({"n1": report("2.13.0"), "n2": report("2.13.0")})
    with pytest.raises(UsageError, match=r"n1 has parbench .*, torch 2\.13\.0, .*; n2 has parbench .*, torch 2\.12\.1"):
        slurm.require_same_software({"n1": report("2.13.0"), "n2": report("2.12.1")})


def test_whatever_a_campaign_is_called_its_script_runs_its_words_and_nothing_else(tmp_path: Path) -> None:
    told = "import json, sys; print(json.dumps(sys.argv[1:]))"
    folder = tmp_path / "50 % of $HOME"
    job = Job(name="a;b\n", folder=folder, command=(sys.executable, "-c", told, *HOSTILE), options=("--nodes=2",))
    ended = subprocess.run([write_script(job)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == HOSTILE
    assert list(tmp_path.iterdir()) == [folder]
    *ours, options, script = sbatch_words(job)
    assert "--job-name=parbench-a-b-" in ours
    assert f"--output={tmp_path}/50 %% of $HOME/slurm-%j.log" in ours
    assert (options, script) == ("--nodes=2", str(folder / "job.sh"))


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
