"""Trials as steps of a real SLURM: the same table as on one machine, faults, and what cannot be launched."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import CommandLine
from tests.faults.scenarios import end_offspring, offspring, trials_of, under_deadline
from tests.launch.cluster import Cluster
from tests.support.waiting import PATIENCE_S, ending, wait_for

SCENARIO = """
name: reach
workloads:
  bag:
    model: {kind: bag}
    data: {source: synthetic, vocab_size: 16, tokens: 2000}
    seq_len: 4
    global_batch: 8
    optimizer: {name: adam, lr: 1e-2}
strategies: STRATEGIES
devices: {kind: cpu, counts: COUNTS, oversubscribe: OVERSUBSCRIBE}
measure: {rounds: 1, warmup: 5, window_s: 0.001, deadline_s: DEADLINE, seed: 0}
"""
BOTH_NODES = "--nodes=2 --exclusive"
ONE_CPU_ON_EACH = "--nodes=2 --ntasks=2 --ntasks-per-node=1"


class SlurmUser(CommandLine):
    """A user of the cluster whose home, caches and results are only on the first node."""

    def __init__(self, folder: Path, packages: Path, cluster: Cluster) -> None:
        super().__init__(folder, packages=packages)
        self.cluster = cluster
        # Short: a socket's path, which multiprocessing puts below it, has room for 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="t", dir=cluster.folder))
        self.environment |= {
            "SLURM_CONF": cluster.environment["SLURM_CONF"],
            "PARBENCH_CACHE": str(folder / "cache"),
            "TMPDIR": str(self.temporary),
        }

    def scenario(
        self, strategies: str, counts: list[int], deadline_s: float = 600, *, oversubscribe: bool = False
    ) -> str:
        text = SCENARIO.replace("STRATEGIES", strategies).replace("COUNTS", str(counts))
        text = text.replace("OVERSUBSCRIBE", str(oversubscribe).lower()).replace("DEADLINE", str(deadline_s))
        (self.folder / "reach.yaml").write_text(text)
        return str(self.folder / "reach.yaml")

    def allocated(self, options: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        """parbench in an allocation of its own."""
        return subprocess.run(
            self.cluster.salloc(options, *self.command(*arguments)),
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    @contextlib.contextmanager
    def allocating(self, options: str, *arguments: object) -> Iterator[list[str]]:
        """parbench in an allocation of its own, from the moment that its trial hangs to its end: what it said."""
        command = self.cluster.salloc(options, *self.command(*arguments))
        said: list[str] = []
        with subprocess.Popen(
            command, cwd=self.folder, env=self.environment, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        ) as salloc:
            try:
                wait_for(self.hanging, "the hanging trial in an allocation", ended=lambda: ending(salloc))
                yield said
            except BaseException:
                salloc.terminate()
                raise
            said += [salloc.communicate(timeout=PATIENCE_S)[1], f"exit code {salloc.returncode}"]

    def hanging(self) -> bool:
        """Whether the last rank of a trial has come to where the others wait for it."""
        return bool(self.ranks(1))

    def ranks(self, number: int) -> list[psutil.Process]:
        """The running ranks of a number that warm up under the strategy that misbehaves."""
        running = []
        for path in self.temporary.glob(f"parbench-*/rank{number}.json"):
            # Trials' folders come and go meanwhile, and so do ranks.
            with contextlib.suppress(OSError, ValueError, psutil.NoSuchProcess):
                cell, record = (json.loads(each.read_text()) for each in (path.with_name("cell.json"), path))
                if (cell["strategy"], record["stage"]) == ("misbehaving", "warm-up"):
                    running.append(psutil.Process(record["pid"]))
        return running

    def rows(self, out: str = "out") -> list[dict[str, Any]]:
        return json.loads(self("table", out, "--format", "json").stdout)

    def trials(self, out: str = "out") -> list[dict[str, Any]]:
        return trials_of(self.folder / out)


@pytest.fixture
def user(request: pytest.FixtureRequest, cluster: Cluster, foreign_package: Path) -> Iterator[SlurmUser]:
    folder = cluster.hidden / request.node.name[:30]
    folder.mkdir()
    yield SlurmUser(folder, foreign_package, cluster)
    cluster.clear()
    end_offspring()


def nothing_is_left(cluster: Cluster) -> None:
    wait_for(lambda: not cluster.jobs() and not cluster.processes(), "the end of all jobs and their processes")


def test_one_scenario_gives_the_same_table_under_every_launcher(user: SlurmUser, cluster: Cluster) -> None:
    ends: dict[str, subprocess.CompletedProcess[str]] = {}

    def measured(launcher: str) -> str:
        def run(deadline_s: float) -> Path:
            scenario = user.scenario("[single, averaging]", [1, 2, 4], deadline_s, oversubscribe=True)
            with Path(scenario).open("a") as file:
                file.write("exclude: [{strategy: averaging, devices: 1}]")
            words = ("run", scenario, "--out", f"{launcher}-{deadline_s}")
            if launcher == "slurm":
                ends[launcher] = user.allocated(BOTH_NODES, *words)
            else:
                ends[launcher] = user(*words, "--launcher", launcher)
            return user.folder / words[-1]

        # Once in many runs four ranks that meet never find each other: all wait in gloo's constructor.
        return under_deadline(run, 60).name

    outs = {launcher: measured(launcher) for launcher in ("slurm", "local", "torchrun")}
    assert {launcher: ended.returncode for launcher, ended in ends.items()} == dict.fromkeys(outs, 0), ends
    assert "Launcher slurm, because this is job" in ends["slurm"].stderr
    alike = ("workload", "label", "devices", "models", "status", "parity", "global_batch")
    tables = [[tuple(row[column] for column in alike) for row in user.rows(out)] for out in outs.values()]
    assert tables[0] == tables[1] == tables[2]
    assert ("bag", "averaging", 4, 1, "ok", "ok", 8) in tables[0]

    trials = {trial["cell"]: trial for trial in user.trials(outs["slurm"])}
    placed = [(rank["node"], rank["local_rank"]) for rank in trials["bag/averaging/4"]["ranks"]]
    assert placed == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [rank["node"] for rank in trials["bag/averaging/2"]["ranks"]] == [0, 0]
    run = json.loads((user.folder / outs["slurm"] / "run.json").read_text())
    assert run["launcher"] == "slurm"
    assert [node["node"] for node in run["nodes"]] == [0, 1]
    assert list(user.temporary.glob("parbench-*")) == []
    nothing_is_left(cluster)


SCONTROL = """#!/bin/sh
echo asked >> {log}
test $(wc -l < {log}) -le {asked} && exec {scontrol} "$@"
echo "scontrol: error: Unable to contact slurm controller" >&2
exit 1
"""


def test_a_controller_that_is_away_while_trials_run_does_not_end_the_campaign(user: SlurmUser) -> None:
    programs, log = user.folder / "bin", user.folder / "asked"
    programs.mkdir()
    # The names of the nodes, and twice the address of the first: before there is a plan, and once its data is there.
    script = SCONTROL.format(log=log, asked=3, scontrol=shutil.which("scontrol"))
    (programs / "scontrol").write_text(script)
    (programs / "scontrol").chmod(0o755)
    user.environment["PATH"] = f"{programs}:{os.environ['PATH']}"
    ended = user.allocated(ONE_CPU_ON_EACH, "run", user.scenario("[averaging]", [2]), "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert len(log.read_text().split()) == 3


def test_a_fault_across_nodes_fails_its_own_cell_with_its_reason(user: SlurmUser, cluster: Cluster) -> None:
    def run(deadline_s: float) -> Path:
        scenario = user.scenario("[misbehaving: {how: [raise, kill, hang]}]", [2], deadline_s)
        ended = user.allocated(ONE_CPU_ON_EACH, "run", scenario, "--out", f"under-{deadline_s}")
        assert ended.returncode == 3, ended.stderr
        assert "Traceback" not in ended.stderr
        return user.folder / f"under-{deadline_s}"

    out = under_deadline(run, 10).name
    told = {row["label"]: (row["status"], row["reason"]) for row in user.rows(out)}
    raised, killed, hung = (told[f"misbehaving(how={how})"] for how in ("raise", "kill", "hang"))
    assert raised == ("failed", "rank 1 failed in warm-up: RuntimeError: the third step always fails")
    assert killed == ("killed", "rank 1 was ended by SIGKILL in warm-up")
    assert hung[0] == "timed_out"
    assert "rank 1 was in warm-up" in hung[1] or "rank 0 was in warm-up" in hung[1]
    logs = {trial["cell"]: trial["log_tail"] for trial in user.trials(out)}
    assert "in misbehave" in logs["bag/misbehaving(how=hang)/2"]
    assert list(user.temporary.glob("parbench-*")) == []
    nothing_is_left(cluster)


def test_cells_that_an_allocation_has_no_room_for_are_skipped(user: SlurmUser) -> None:
    scenario = user.scenario("[single, averaging]", [1, 2])
    ended = user.allocated("--nodes=1 --ntasks=1", "plan", scenario)
    assert ended.returncode == 0, ended.stderr
    assert "needs 2 devices; granted are 1 × 1" in ended.stdout


def test_what_cannot_be_launched_is_a_sentence(user: SlurmUser, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = user.scenario("[single]", [1])
    run = ("run", scenario, "--launcher", "slurm")

    def refused(*arguments: str, **variables: str) -> str:
        user.environment |= variables
        ended = user(*run, *arguments)
        assert ended.returncode == 2, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stderr

    assert "launcher slurm needs an allocation" in refused()
    assert "the job was not submitted: sbatch failed" in refused("--submit", "--", "--partition=nowhere")
    assert "--nodes, --rendezvous: not with --submit" in refused("--submit", "--nodes", "7", "--rendezvous", "a:1")
    assert "there is no 'slrum'" in refused("--launcher", "slrum")
    assert "--nodes: not for launcher slurm" in refused("--nodes", "2")
    gone = refused(SLURM_JOB_ID="4000000", SLURM_JOB_NODELIST="n[1-2]")
    assert "parbench cannot be started on n1, n2: srun: error" in gone
    assert "start it once, without srun" in refused(SLURM_STEP_NUM_TASKS="4")
    assert "needs srun, which is not on PATH" in refused(SLURM_STEP_NUM_TASKS="1", PATH="/nowhere")


def test_a_dry_run_shows_what_would_be_submitted_and_submits_nothing(user: SlurmUser, cluster: Cluster) -> None:
    scenario = user.scenario("[single]", [1])
    shown = user("run", scenario, "--out", "out", "--launcher", "slurm", "--submit", "--dry-run", "--", "--nodes=2")
    assert (shown.returncode, shown.stdout) == (0, "")
    assert "exec " in shown.stderr
    assert "$ sbatch --parsable --job-name=parbench-reach" in shown.stderr
    assert "Submitted" not in shown.stderr
    assert (cluster.jobs(), (user.folder / "out").exists()) == ([], False)


def test_scancel_of_a_step_fails_its_trial_and_the_campaign_goes_on(user: SlurmUser, cluster: Cluster) -> None:
    scenario = user.scenario("[misbehaving: {how: hang, timed_only: true}, averaging]", [2], deadline_s=3600)
    with user.allocating(ONE_CPU_ON_EACH, "run", scenario, "--out", "out") as said:
        (step,) = cluster.run("squeue", "--noheader", "--steps", "--format=%i").split()
        cluster.run("scancel", step)
    assert said[1] == "exit code 3", said
    ends = {trial["cell"]: trial["status"] for trial in user.trials() if trial["purpose"] == "measure"}
    assert ends == {"bag/misbehaving/2": "failed", "bag/averaging/2": "ok"}
    nothing_is_left(cluster)


def test_what_ranks_start_in_sessions_of_their_own_ends_with_their_trial(user: SlurmUser, cluster: Cluster) -> None:
    for deadline_s in (15, 150):  # the first may be over before a slow machine has started what is to be ended
        scenario = user.scenario("[misbehaving: {how: offspring, timed_only: true}]", [2], deadline_s)
        with user.allocating(ONE_CPU_ON_EACH, "run", scenario, "--out", f"under-{deadline_s}") as said:
            wait_for(lambda: len(offspring()) == 2 or not user.hanging(), "what the rank starts before it hangs")
            started = len(offspring())
        assert said[1] == "exit code 3", said
        assert offspring() == []
        if started == 2:
            break
    assert started == 2
    nothing_is_left(cluster)


def test_a_submitted_campaign_outlives_preemption_cancellation_and_kill_9(user: SlurmUser, cluster: Cluster) -> None:
    scenario, out = (
        user.scenario("[misbehaving: {how: hang, timed_only: true}]", [2], deadline_s=3600),
        "a run's folder",
    )
    submitted = user("run", scenario, "--out", out, "--launcher", "slurm", "--submit", "--", *ONE_CPU_ON_EACH.split())
    assert submitted.returncode == 0, submitted.stderr
    job, script = submitted.stdout.strip(), user.folder / out / "job.sh"
    assert script.read_text() in submitted.stderr
    assert f"Submitted as job {job}" in submitted.stderr
    log = script.parent / f"slurm-{job}.log"

    def over() -> str | None:
        return None if cluster.state(job) else f"job {job} has left the queue, with {log.read_text()}"

    wait_for(user.hanging, "the hanging trial", ended=over)
    before = user.trials(out)
    assert [(trial["purpose"], trial["status"]) for trial in before] == [("reference", "ok"), ("proof", "ok")]

    # A job with a higher priority takes the nodes; when it is through, SLURM starts ours again.
    urgent = cluster.run(
        "sbatch", "--parsable", "--partition=urgent", *BOTH_NODES.split(), "--wrap=true", "--output=/dev/null"
    ).strip()
    wait_for(lambda: urgent not in cluster.jobs(), "the end of the urgent job")
    assert not user.hanging()
    # Only once the job is back in the queue does SLURM have it wait for two minutes; what is said before is forgotten.
    wait_for(lambda: cluster.state(job) == "PENDING", "the job, back in the queue", ended=over)
    cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
    wait_for(user.hanging, "the hanging trial, once more", ended=over)
    assert "Interrupted by SIGTERM; what was measured is kept; go on with: parbench run" in log.read_text()
    assert "2 measured before are kept" in log.read_text()

    again = ("run", scenario, "--out", out, "--resume")
    # kill -9 of parbench: its tasks are told by the end of their input.
    psutil.Process(int((script.parent / "lock").read_text().split()[0])).kill()
    nothing_is_left(cluster)

    with user.allocating(ONE_CPU_ON_EACH, *again) as said:
        cluster.run("scancel", *cluster.jobs())
    assert "SLURM has ended the step that was running; job" in said[0] or "Interrupted by SIGTERM" in said[0]
    assert f"what was measured is kept; go on with: parbench run {scenario} --resume --out" in said[0]
    assert said[1] == "exit code 143"
    nothing_is_left(cluster)
    assert user.trials(out) == before

    # kill -9 of a task, which ends its rank: that is the trial's own affair.
    with user.allocating(ONE_CPU_ON_EACH, *again) as said:
        user.ranks(1)[0].parent().kill()
    assert said[1] == "exit code 3"
    *kept, lost = user.trials(out)
    assert kept == before
    assert (lost["status"], lost["reason"]) == ("failed", "srun: error: n2: task 1: Killed")
    nothing_is_left(cluster)
