"""The SLURM launcher: inside an allocation, every trial is one step (`srun`) of the size that its cell needs."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from parbench.errors import LaunchError, UsageError
from parbench.launch.base import Campaign, Job, Launcher, Outcome, Site
from parbench.launch.rank_process import HOST, VICTIMS_GRACE_S
from parbench.launch.slurm.batch import show, submit
from parbench.launch.slurm.commands import copy_to_node, job_state, node_address, node_names, program
from parbench.launch.slurm.messages import Meeting, NodeReport
from parbench.launch.slurm.node_task import measuring_code
from parbench.launch.slurm.step import Step
from parbench.records.assignment import Assignment
from parbench.records.node import NodeRecord
from parbench.system.devices import Machine
from parbench.system.environment import Environment
from parbench.system.signals import Interrupted

TASK, NODE = "parbench.launch.slurm.rank_task", "parbench.launch.slurm.node_task"


# Importing torch from a shared disk on many nodes at once takes minutes; a trial's own deadline starts after it.
START_S = 300.0


# As in the local launcher's server: one thread where ranks are forked from, and GPUs numbered as NVML does.
TASK_VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


class SlurmLauncher(Launcher):
    """Starts ranks as the tasks of steps of the job that this process belongs to."""

    name = "slurm"

    def __init__(self, job: str) -> None:
        self._job = job
        self._nodes: list[str] = []
        self._address = ""
        self._reports: list[NodeReport] = []
        self._step: Step | None = None

    @classmethod
    def detected(cls) -> str | None:
        """A job's id is in the environment of all that runs in an allocation."""
        job = os.environ.get("SLURM_JOB_ID")
        return f"this is job {job} of SLURM" if job else None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher of the job that this process belongs to."""
        if site.given:
            raise UsageError(f"{', '.join(site.given)}: not for launcher slurm, which uses the nodes of its allocation")
        job = os.environ.get("SLURM_JOB_ID")
        if not job:
            raise UsageError(
                "launcher slurm needs an allocation: run inside of salloc or of an sbatch script, or add "
                "--submit -- SBATCH_OPTIONS… to have the script written and submitted"
            )
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            raise UsageError("srun has started parbench many times over; start it once, without srun: it calls srun")
        if not os.environ.get("SLURM_JOB_NODELIST"):
            raise UsageError("SLURM_JOB_ID is set, but not SLURM_JOB_NODELIST: run parbench inside of the allocation")
        program("srun")
        return cls(job)

    @classmethod
    def submit(cls, job: Job, say: Callable[[str], None], *, dry_run: bool) -> str | None:
        """Hands the campaign to sbatch."""
        if not dry_run:
            return submit(job, say)
        show(job, say)
        return None

    def machine(self) -> Machine:
        """As many nodes as were granted, each as large as the smallest of them."""
        nodes = self._reports or self._look()
        capabilities = [node.compute_capability for node in nodes if node.compute_capability]
        return Machine(
            cores=min((node.cores for node in nodes), key=len),
            gpus=min(node.gpus for node in nodes),
            compute_capability=min(capabilities, default=None),
            nodes=len(nodes),
            granted=True,
        )

    def environment(self, nodes: Sequence[NodeRecord]) -> Environment:
        """The first node's: this process may be on a host of another kind, outside of the allocation."""
        first = Environment.model_validate(self._reports[0].environment)
        speed = first.speed.model_copy(update={"network": tuple(node.link for node in nodes)})
        return first.model_copy(update={"speed": speed})

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:
        """The nodes of the allocation, with the same software, and with the data where they cannot see it."""
        nodes = self._look(sorted({corpus.path for corpus in campaign.corpora.values()}))
        by_name = dict(zip(self._nodes, nodes, strict=True))
        require_same_software(by_name, measuring_code())
        for name, node in by_name.items():
            for path in node.lacks:
                copy_to_node(Path(path), name)
        yield tuple(
            node.record.model_copy(update={"clock_offset_s": node.clock_s - nodes[0].clock_s}) for node in nodes
        )

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the trial as a step; whatever ends this call early ends the step first."""
        started = time.monotonic()
        self._step = step = Step(self._nodes[:nodes], processes, [TASK], folder / "srun.log", TASK_VARIABLES)
        try:
            step.send(Assignment.model_validate_json((folder / "cell.json").read_bytes()))
            in_time = self._run(step, processes, deadline_s)
            lost = step.over and len(step.ended) < processes
        finally:
            self.close()
            step.keep_files(folder)
        if lost or any(end.interrupted for end in step.ended.values()):
            self._require_allocation(lost=lost)
        ended = [step.ended.get(rank) for rank in range(processes)]
        return Outcome(
            exit_codes=tuple(end.exit_code if end else None for end in ended),
            wall_s=time.monotonic() - started,
            timed_out=not in_time,
            reason=step.complaint if lost else None,
        )

    def close(self) -> None:
        """Ends the step that still runs."""
        step, self._step = self._step, None
        if step is not None:
            step.end()

    def _run(self, step: Step, processes: int, deadline_s: float) -> bool:
        """Has the tasks of a step meet once all are ready, and waits for their ends. False: too late."""
        if not step.hears(lambda: len(step.ready) == processes, time.monotonic() + START_S):
            return step.over
        first = step.ready[0]
        several = len({task.node for task in step.ready.values()}) > 1
        step.send(Meeting(address=self._address if several else HOST, port=first.port or 0))
        deadline = time.monotonic() + deadline_s

        def failed() -> bool:
            return any(end.exit_code for end in step.ended.values())

        def all_ended() -> bool:
            return len(step.ended) == processes

        step.hears(lambda: all_ended() or failed(), deadline)
        # The others may wait for one that has failed, and have something to say of it.
        if failed():
            step.hears(all_ended, min(deadline, time.monotonic() + VICTIMS_GRACE_S))
        return all_ended() or failed() or step.over

    def _look(self, files: Sequence[str] = ()) -> list[NodeReport]:
        """What every node tells of itself. Raises `LaunchError` where one does not."""
        self._nodes = self._nodes or node_names(os.environ["SLURM_JOB_NODELIST"])
        count = len(self._nodes)
        with tempfile.TemporaryDirectory(prefix="parbench-") as folder:
            self._step = step = Step(self._nodes, count, [NODE, *files], Path(folder) / "srun.log")
            try:
                deadline = time.monotonic() + START_S
                if step.hears(lambda: len(step.ready) == count, deadline):
                    # Asked only now: while trials run, SLURM's controller may be away for a while.
                    self._address = node_address(step.ready[0].node)
                    step.send(Meeting(address=self._address, port=0))
                if not step.hears(lambda: len(step.ended) == count, deadline):
                    missing = [node for rank, node in enumerate(self._nodes) if rank not in step.ended]
                    raise LaunchError(f"parbench cannot be started on {', '.join(missing)}: {step.complaint}")
            finally:
                self.close()
        self._nodes = [step.ready[rank].node for rank in range(count)]
        self._reports = [NodeReport.model_validate_json(bytes(step.files[rank, "json"])) for rank in range(count)]
        return self._reports

    def _require_allocation(self, *, lost: bool) -> None:
        """Raises `Revoked` unless the job goes on: then a task that is lost is the trial's own affair."""
        state = job_state(self._job)
        if not (lost and state == "RUNNING"):
            raise Revoked(self._job, state)


class Revoked(Interrupted):
    """SLURM has taken its allocation back, or is about to: no trial is to blame for its end."""

    def __init__(self, job: str, state: str) -> None:
        super().__init__(signal.SIGTERM)
        self._what = f"SLURM has ended the step that was running; job {job} is {state}"

    def __str__(self) -> str:
        return f"{self._what}{self.advice}"


def require_same_software(nodes: Mapping[str, NodeReport], code: str) -> None:
    """Raises `UsageError` where nodes would not run the same program, or other code than is here."""
    found = {name: _software(Environment.model_validate(node.environment)) for name, node in nodes.items()}
    if len(set(found.values())) > 1:
        told = "; ".join(f"{name} has {software}" for name, software in found.items())
        raise UsageError(f"the nodes have different software; install the same on all: {told}")
    other = [name for name, node in nodes.items() if node.code != code]
    if other:
        raise UsageError(
            f"{', '.join(other)} would measure by other code than this process has; install the same parbench and the "
            "same plug-ins everywhere"
        )


def _software(environment: Environment) -> str:
    speed = environment.speed
    return f"parbench {environment.context.parbench}, torch {speed.torch}, Python {speed.python}, CUDA {speed.cuda}"
