"""The SLURM launcher: inside an allocation, every trial is one step (`srun`) of the size of its cell."""

import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from parbench.errors import LaunchError, UsageError
from parbench.launch.base import BatchJob, Campaign, Launcher, Outcome, Site
from parbench.launch.rank_process import LOOPBACK, PEERS_GRACE_S
from parbench.launch.slurm.batch import show, submit
from parbench.launch.slurm.commands import copy_to_node, find_program, job_state, node_address, node_names
from parbench.launch.slurm.messages import Meeting, NodeReport
from parbench.launch.slurm.node_task import measuring_code
from parbench.launch.slurm.step import Step
from parbench.records.assignment import Assignment
from parbench.records.node import NodeRecord
from parbench.system.devices import Machine
from parbench.system.environment import Environment
from parbench.system.signals import Interrupted

RANK_TASK, NODE_TASK = "parbench.launch.slurm.rank_task", "parbench.launch.slurm.node_task"
# Importing torch from a shared disk on many nodes at once takes minutes; a trial's deadline starts only after it.
START_S = 300.0
# As in the fork server: one thread in the process that forks the rank, and GPUs with NVML's numbers.
TASK_VARIABLES = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


class SlurmLauncher(Launcher):
    """Starts ranks as tasks of steps, in the SLURM job that this process belongs to."""

    name = "slurm"

    def __init__(self, job: str) -> None:
        self._job = job
        self._nodes: list[str] = []
        self._address = ""
        self._reports: list[NodeReport] = []
        self._step: Step | None = None

    @classmethod
    def detected(cls) -> str | None:
        """Whether this process runs in an allocation, which sets the job's id in the environment."""
        job = os.environ.get("SLURM_JOB_ID")
        return f"this is job {job} of SLURM" if job else None

    @classmethod
    def at(cls, site: Site) -> Self:
        """The launcher for the job that this process belongs to. Raises `UsageError` outside of an allocation."""
        if site.options:
            raise UsageError(f"{', '.join(site.options)}: not for launcher slurm, which uses its allocation's nodes")
        job = os.environ.get("SLURM_JOB_ID")
        if not job:
            raise UsageError(
                "launcher slurm needs an allocation: run inside of salloc or of an sbatch script, or add "
                "--submit -- SBATCH_OPTIONS… to have the script written and submitted"
            )
        if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
            raise UsageError("srun has started parbench several times; start it once, without srun: it calls srun")
        if not os.environ.get("SLURM_JOB_NODELIST"):
            raise UsageError("SLURM_JOB_ID is set, but not SLURM_JOB_NODELIST: run parbench inside of the allocation")
        find_program("srun")
        return cls(job)

    @classmethod
    def submit(cls, job: BatchJob, say: Callable[[str], None], *, dry_run: bool) -> str | None:
        """Submits the campaign with sbatch; a dry run only prints the script."""
        if not dry_run:
            return submit(job, say)
        show(job, say)
        return None

    def machine(self) -> Machine:
        """The nodes of the allocation, each counted with the devices of the smallest one."""
        nodes = self._reports or self._inspect_nodes()
        capabilities = [node.compute_capability for node in nodes if node.compute_capability]
        smallest = min(nodes, key=lambda node: len(node.cores))
        return Machine(
            cores=smallest.cores,
            gpus=min(node.gpus for node in nodes),
            compute_capability=min(capabilities, default=None),
            gpu_cpus=smallest.gpu_cpus,
            nodes=len(nodes),
            granted=True,
        )

    def environment(self, nodes: Sequence[NodeRecord]) -> Environment:
        """The environment of the first node: this process may run on a login node of another kind."""
        first = Environment.model_validate(self._reports[0].environment)
        speed = first.speed.model_copy(update={"network": tuple(node.link for node in nodes)})
        return first.model_copy(update={"speed": speed})

    @contextmanager
    def gathered(self, campaign: Campaign) -> Iterator[tuple[NodeRecord, ...]]:
        """The nodes of the allocation. Requires the same software on all, and copies data to nodes that lack it."""
        nodes = self._inspect_nodes(sorted({corpus.path for corpus in campaign.corpora.values()}))
        by_name = dict(zip(self._nodes, nodes, strict=True))
        require_same_software(by_name, measuring_code())
        for name, node in by_name.items():
            for path in node.lacks:
                copy_to_node(Path(path), name)
        yield tuple(
            node.record.model_copy(update={"clock_offset_s": node.clock_s - nodes[0].clock_s}) for node in nodes
        )

    def launch(self, folder: Path, *, processes: int, deadline_s: float, nodes: int = 1) -> Outcome:
        """Runs the trial as a step. An exception leaves this call after the step has ended."""
        started = time.monotonic()
        self._step = step = Step(self._nodes[:nodes], processes, [RANK_TASK], folder / "srun.log", TASK_VARIABLES)
        try:
            step.send(Assignment.model_validate_json((folder / "cell.json").read_bytes()))
            in_time = self._run(step, processes, deadline_s)
            lost = step.over and len(step.ends) < processes
        finally:
            self.close()
            step.write_files(folder)
        if lost or any(end.interrupted for end in step.ends.values()):
            self._require_allocation(lost=lost)
        ends = [step.ends.get(rank) for rank in range(processes)]
        return Outcome(
            exit_codes=tuple(end.exit_code if end else None for end in ends),
            wall_s=time.monotonic() - started,
            timed_out=not in_time,
            reason=step.error_text if lost else None,
        )

    def close(self) -> None:
        """Ends the step, if one still runs."""
        step, self._step = self._step, None
        if step is not None:
            step.end()

    def _run(self, step: Step, processes: int, deadline_s: float) -> bool:
        """Connects the tasks once all are ready, and waits for their ends. False if the deadline came first."""
        if not step.receive_until(lambda: len(step.ready) == processes, time.monotonic() + START_S):
            return step.over
        first = step.ready[0]
        several = len({task.node for task in step.ready.values()}) > 1
        step.send(Meeting(address=self._address if several else LOOPBACK, port=first.port or 0))
        deadline = time.monotonic() + deadline_s

        def failed() -> bool:
            return any(end.exit_code for end in step.ends.values())

        def all_ended() -> bool:
            return len(step.ends) == processes

        step.receive_until(lambda: all_ended() or failed(), deadline)
        # The other ranks may wait for a failed one: they get a moment to end and to record their errors.
        if failed():
            step.receive_until(all_ended, min(deadline, time.monotonic() + PEERS_GRACE_S))
        return all_ended() or failed() or step.over

    def _inspect_nodes(self, files: Sequence[str] = ()) -> list[NodeReport]:
        """The reports of all nodes. Raises `LaunchError` if one is missing."""
        self._nodes = self._nodes or node_names(os.environ["SLURM_JOB_NODELIST"])
        count = len(self._nodes)
        with tempfile.TemporaryDirectory(prefix="parbench-") as folder:
            self._step = step = Step(self._nodes, count, [NODE_TASK, *files], Path(folder) / "srun.log")
            try:
                deadline = time.monotonic() + START_S
                if step.receive_until(lambda: len(step.ready) == count, deadline):
                    # Looked up now, because SLURM's controller may be unavailable while trials run.
                    self._address = node_address(step.ready[0].node)
                    step.send(Meeting(address=self._address, port=0))
                if not step.receive_until(lambda: len(step.ends) == count, deadline):
                    missing = [node for rank, node in enumerate(self._nodes) if rank not in step.ends]
                    raise LaunchError(f"parbench cannot be started on {', '.join(missing)}: {step.error_text}")
            finally:
                self.close()
        self._nodes = [step.ready[rank].node for rank in range(count)]
        self._reports = [NodeReport.model_validate_json(bytes(step.files[rank, "json"])) for rank in range(count)]
        return self._reports

    def _require_allocation(self, *, lost: bool) -> None:
        """Raises `Revoked` unless the job goes on; if it does, a lost task is a failure of its trial."""
        state = job_state(self._job)
        if not (lost and state == "RUNNING"):
            raise Revoked(self._job, state)


class Revoked(Interrupted):
    """SLURM has ended the job's allocation, or is about to: the trial that was running has not failed."""

    def __init__(self, job: str, state: str) -> None:
        super().__init__(signal.SIGTERM)
        self._event = f"SLURM has ended the step that was running; job {job} is {state}"

    def __str__(self) -> str:
        return f"{self._event}{self.advice}"


def require_same_software(nodes: Mapping[str, NodeReport], code: str) -> None:
    """Raises `UsageError` if the nodes have different software, or other code than this process."""
    software = {name: _software(Environment.model_validate(node.environment)) for name, node in nodes.items()}
    if len(set(software.values())) > 1:
        versions = "; ".join(f"{name} has {text}" for name, text in software.items())
        raise UsageError(f"the nodes have different software; install the same on all: {versions}")
    other = [name for name, node in nodes.items() if node.code != code]
    if other:
        raise UsageError(
            f"{', '.join(other)} has other code than this process; install the same parbench and plug-ins everywhere"
        )


def _software(environment: Environment) -> str:
    speed = environment.speed
    return f"parbench {environment.context.parbench}, torch {speed.torch}, Python {speed.python}, CUDA {speed.cuda}"
